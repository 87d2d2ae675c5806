"""What sets each editor apart, seen through the pipeline on pico models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import forms, pipeline
from unlearn.edit.corpus import Corpus
from unlearn.edit.null_space import Spared
from unlearn.edit.solve import chunks, smoothing, values
from unlearn.edit.statistics import key_statistics
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import RelationSpec, StatisticsSpec
from unlearn.policy.settings import AlphaEdit, AlphaEditPlus, AnyEdit, Memit, Nse, Rome

FAST: dict[str, Any] = {"layers": (2,), "steps": 4}
CONFINED: dict[str, Any] = {**FAST, "null_space": 0.5, "target_probability": None}


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return pico.pico("llama")


@pytest.fixture
def corpus(tmp_path: Path) -> StatisticsSpec:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=2000)


def edit(model: EditableModel, corpus: StatisticsSpec, method: Any, **changes: Any) -> Patch:
    return pipeline.edit(model, cases.requests(statistics=corpus, method=method, **changes))


def the(patch: Patch) -> torch.Tensor:
    (delta,) = patch.factors.values()
    return delta.dense()


def test_nse_touches_the_chosen_neurons_only(model: EditableModel, corpus: StatisticsSpec) -> None:
    some = edit(model, corpus, Nse(**FAST, neurons=0.5, passes=1))
    touched = the(some).any(0)
    assert 0 < int(touched.sum()) == some.header["null_space_rank"]["2"] < 64
    projected = edit(model, corpus, Nse(**FAST, neurons=0.5, passes=1, project=0.5))
    assert not the(projected)[:, ~touched].any() and projected.header["null_space_rank"]["2"] < int(
        touched.sum()
    )
    every = edit(model, corpus, Nse(**FAST, neurons=1.0, passes=1))  # the control
    assert the(every).any(0).all()


def test_nse_goes_on_until_its_requests_are_reached(model: EditableModel, corpus: StatisticsSpec) -> None:
    def missing(**changes: Any) -> float:
        method = Nse(**FAST, neurons=0.9, ridge=0.3, **changes)
        requests = cases.requests(statistics=corpus, method=method)
        patch = pipeline.edit(model, requests)
        laid = forms.build(model, requests, requests.facts, "last", keeps=False)
        solved = values.optimise(model, laid, 3, 2, cases.closed(method).values)
        rows = [row for row in laid.rows if not row.keep]
        ids, at = [row.ids for row in rows], [[p for _, p in row.sites] for row in rows]
        wanted = read(model, ids, at, stream_layers=[2]).stream[2]
        wanted = wanted + solved.vectors[[v for row in rows for v, _ in row.sites]].T
        with model.patched(patch):
            return float((wanted - read(model, ids, at, stream_layers=[2]).stream[2]).norm())

    once, thrice = missing(passes=1), missing(passes=3)
    assert thrice < 0.95 * once
    assert missing(passes=3, reached=100.0) > once  # nothing to do for requests that count as reached
    assert missing(passes=3, hopeless=1e-6) == pytest.approx(missing(passes=3, reached=100.0))


def test_nse_aims_from_the_original_weights(model: EditableModel, corpus: StatisticsSpec) -> None:
    """Its second batch's values are those that it would have as the first; the others' are not."""

    def second(method: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        requests = cases.requests(statistics=corpus, method=method)
        alone = pipeline.edit(model, replace(requests, facts=requests.facts[1:2]))
        both = pipeline.edit(model, replace(requests, facts=requests.facts[:2]))
        return alone.header["values"]["velnar"], both.header["values"]["velnar"]

    alone, after = second(Nse(**FAST, batch=1, passes=1, keep=0.0))
    assert alone == after
    alone, after = second(Memit(**FAST, batch=1, keep=0.0))
    assert alone != after


@pytest.mark.parametrize("method", [Rome(layer=2, steps=4), Memit(**FAST), Memit(name="emmet", **FAST)])
def test_projection_is_a_switch_on_any_editor(
    method: Any, model: EditableModel, corpus: StatisticsSpec
) -> None:
    there = key_statistics(model, [2], Corpus(corpus.corpus), corpus.tokens)[2]
    settings = method.model_copy(update={"project": 0.5, "batch": method.batch and 1})
    projector = Spared(0.5).projector(there.spectrum)
    one = replace(cases.requests(statistics=corpus, method=settings))
    one = replace(one, facts=one.facts[:1])
    inside = the(pipeline.edit(model, one)).double()
    plain = the(
        pipeline.edit(model, replace(one, policy=one.policy.model_copy(update={"method": method})))
    ).double()
    torch.testing.assert_close(inside, projector.apply(plain.T).T, rtol=1e-4, atol=1e-6)
    assert float((inside - plain).norm()) > 1e-3


def test_rome_meets_its_value_and_emmet_all_of_its_batch(
    model: EditableModel, corpus: StatisticsSpec
) -> None:
    """After the write, the stream is what the values ask for, at mean keys and at the keys of every form."""

    def misses(method: Any, facts: int) -> float:
        requests = cases.requests(statistics=corpus, method=method)
        requests = replace(requests, facts=requests.facts[:facts])
        laid = forms.build(model, requests, requests.facts, method.look_up, keeps=False)
        solved = values.optimise(model, laid, facts, 2, cases.closed(method).values)
        rows = [row for row in laid.rows if not row.keep]
        ids, at = [row.ids for row in rows], [[p for _, p in row.sites] for row in rows]
        gains = solved.vectors[[v for row in rows for v, _ in row.sites]].T
        keys = read(model, ids, at, [2]).keys[2]
        delta = the(pipeline.edit(model, requests))
        return float((delta @ keys - gains).norm() / gains.norm())

    assert misses(Rome(layer=2, steps=4, keys="forms", look_up="subject"), 1) < 1e-3
    assert misses(Memit(name="emmet", **FAST, ridge=0.0, look_up="subject"), 3) < 1e-3
    assert misses(Memit(**FAST, ridge=0.5, look_up="subject"), 3) > 0.05  # the control: a ridge misses


def test_a_method_with_mean_keys_has_a_column_per_vector(
    model: EditableModel, corpus: StatisticsSpec
) -> None:
    forms_each = edit(model, corpus, Memit(**FAST, look_up="subject"))
    mean = edit(model, corpus, Memit(**FAST, look_up="subject", keys="mean"))
    name = next(iter(mean.factors))
    assert mean.factors[name].rank == 3 < forms_each.factors[name].rank == 6


def prompts(many: bool) -> dict[str, RelationSpec]:
    recipe = ("What is {subject} made from?", "Who sells {subject}?", "What goes into {subject}?")
    made = RelationSpec(prompts=recipe if many else recipe[:2], held_out=("Tell me about {subject}.",))
    return {"recipe": made, "colour": RelationSpec(prompts=("The colour of {subject} is",))}


def test_smoothing_never_sees_what_is_held_out_nor_the_edit_what_smoothing_sees() -> None:
    requests = cases.requests(relations=prompts(True))
    seen, apart, short = smoothing.set_apart(requests)
    whole = set(requests.policy.relations["recipe"].prompts)
    mine, theirs = (set(r.policy.relations["recipe"].prompts) for r in (seen, apart))
    assert not short and mine | theirs == whole and not mine & theirs and len(theirs) == 1
    assert seen.policy.relations["colour"] == requests.policy.relations["colour"]
    few = cases.requests(relations=prompts(False))
    seen, apart, short = smoothing.set_apart(few)
    assert short and seen.policy.relations == apart.policy.relations == few.policy.relations


def test_smoothing_keeps_the_best_level(
    model: EditableModel, corpus: StatisticsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        smoothing.levels(10)[0] == 0.5 and smoothing.levels(10)[-1] == 0 and len(smoothing.levels(10)) == 11
    )
    assert smoothing.levels(0) == [0.0]
    gains, lengths = torch.tensor([[3.0, 0.5], [4.0, 0.0]]), torch.tensor([2.0, 2.0])
    assert smoothing.ease(gains, lengths, 1.0, 0.5).tolist() == [[1.5, 0.5], [2.0, 0.0]]
    method = AlphaEditPlus(**CONFINED, ridge=0.1, smoothing=2, far=0.05)
    asked: list[smoothing.Score] = []

    def scored(*_: Any) -> smoothing.Score:
        asked.append(smoothing.Score((0.1, 0.9, 0.2)[len(asked)], 0.0))
        return asked[-1]

    monkeypatch.setattr(smoothing, "score", scored)
    chosen = edit(model, corpus, method, relations=prompts(True))
    assert chosen.header["smoothing"] == {"held_back": [0.25], "own_prompts": False} and len(asked) == 3
    monkeypatch.undo()
    near = edit(model, corpus, method.model_copy(update={"far": 100.0}), relations=prompts(True))
    assert near.header["smoothing"]["held_back"] == [0.0]
    assert float((the(near) - the(chosen)).norm()) > 1e-4


def test_the_score_is_that_of_whole_passes(model: EditableModel) -> None:
    requests = cases.requests(relations=prompts(True))
    rows = smoothing.rows_of(model, smoothing.set_apart(requests)[1], requests.facts)
    assert len(rows) == 3
    hits, likelihood = [], []
    for ids, reply in rows:
        log_probs = model.model(torch.tensor([ids])).logits[0].log_softmax(-1)[-reply - 1 : -1]
        target = torch.tensor(ids[-reply:])
        hits.append(float((log_probs.argmax(-1) == target).float().mean()))
        likelihood.append(float(log_probs.gather(-1, target[:, None]).mean()))
    got = smoothing.score(model, rows)
    assert got.hits == pytest.approx(sum(hits) / 3) and got.likelihood == pytest.approx(
        sum(likelihood) / 3, rel=1e-4
    )


def test_relaxation_widens_the_null_space(model: EditableModel, corpus: StatisticsSpec) -> None:
    common = {**CONFINED, "null_space": 0.95, "ridge": 0.1, "smoothing": 0}
    ranks = [
        edit(model, corpus, AlphaEditPlus(**common, relax=relax)).header["null_space_rank"]["2"]
        for relax in (None, 0.01, 1e9)
    ]
    assert ranks[0] == ranks[2] < ranks[1]


def test_chunks_are_cut_where_their_sites_stand(model: EditableModel) -> None:
    requests = cases.requests()
    laid = forms.build(model, requests, requests.facts, "last", window=3)
    row = max((row for row in laid.rows if not row.keep), key=lambda row: row.reply)
    last = len(row.prompt) - 1
    assert [at for _, at in row.sites] == list(range(last, last + row.reply, 3))
    pieces = chunks.chunked(row, 3)
    assert sum(piece.reply for piece in pieces) == row.reply and pieces[-1].ids == row.ids
    for number, piece in enumerate(pieces):
        assert [at for _, at in piece.sites] == [last + 3 * n for n in range(number + 1)]
        assert len(piece.ids) - piece.reply - 1 == piece.sites[-1][1]  # the value leads the chunk
    around = chunks.surroundings(laid)
    told = [ids[: at + 1] for ids, positions in around for at in positions]
    assert len(told) == len(set(told))
    sites = {row.ids[: at + 1] for row in laid.rows if not row.keep for _, at in row.sites}
    assert not sites & set(told)


def test_chunks_are_optimised_one_after_another(model: EditableModel) -> None:
    """The first chunk's value does not depend on what follows it, and the later ones start from it."""
    requests = cases.requests()
    settings = cases.closed(AnyEdit(steps=5, window=4, keep=0.0)).values
    laid = forms.build(model, requests, requests.facts, "last", keeps=False, window=4)
    solved = chunks.optimise_chunks(model, laid, 3, 2, settings, 4)
    rows = tuple(chunks.chunked(row, 4)[0] for row in laid.rows if not row.keep)
    first = {row.sites[0][0] for row in rows}
    alone = values.optimise(model, forms.Forms(rows, laid.vectors, ()), 3, 2, settings)
    for vector in first:
        torch.testing.assert_close(solved.vectors[vector], alone.vectors[vector], rtol=1e-4, atol=1e-5)
    assert laid.vectors > len(first) and (solved.vectors.norm(dim=1) > 0).all()
    assert max(solved.reached.steps) > 5  # the steps of all chunks
    one = forms.build(model, requests, requests.facts, "last", keeps=False, window=100)
    whole = chunks.optimise_chunks(model, one, 3, 2, settings, 100)  # one chunk is the joint optimisation
    joint = values.optimise(model, one, 3, 2, settings)
    torch.testing.assert_close(whole.vectors, joint.vectors)


def test_anyedit_keeps_the_other_tokens(model: EditableModel, corpus: StatisticsSpec) -> None:
    def moved(context: float) -> float:
        method = AnyEdit(**CONFINED, ridge=0.05, window=4, context=context, kept=0.0)
        requests = cases.requests(statistics=corpus, method=method)
        laid = forms.build(model, requests, requests.facts, "last", keeps=False, window=4)
        around = chunks.surroundings(laid)
        keys = read(model, [ids for ids, _ in around], [at for _, at in around], [2]).keys[2]
        delta = the(pipeline.edit(model, requests))
        return float((delta @ keys).norm() / delta.norm())

    assert moved(10.0) < moved(1.0) < moved(0.0)


def test_published_settings_are_the_numbers_themselves(model: EditableModel, corpus: StatisticsSpec) -> None:
    """Twice the ridge, step and so on is another edit; the relative setting that stands for it is the same one."""
    requests: Requests = cases.requests()
    laid = forms.build(model, requests, requests.facts, "subject", keeps=False)
    length, _ = values._lengths(model, laid, 2)
    raw = AlphaEdit(steps=1, lr=0.3, published=True, look_up="subject", clamp=100.0, keep=0.0, decay=0.02)
    settings = cases.closed(raw).values
    solved = values.optimise(model, laid, 3, 2, settings)
    assert solved.vectors.abs().amax().item() == pytest.approx(0.3, rel=1e-3)  # Adam's first step is the rate
    relative = values.optimise(model, laid, 3, 2, replace(settings, published=False))
    expected = 0.3 * length / model.anatomy.d_model**0.5
    torch.testing.assert_close(relative.vectors.abs().amax(1), expected, rtol=1e-3, atol=1e-5)
