"""The update that is trained inside the null space: what it reaches, and what it cannot touch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from tests.thinking import SWITCHED, tokenizer
from unlearn import embedded
from unlearn.algebra.moments import Directions
from unlearn.audit.probes import benign_lines
from unlearn.edit import forms, pipeline
from unlearn.edit.corpus import Corpus
from unlearn.edit.null_space import Spared
from unlearn.edit.statistics import key_statistics
from unlearn.edit.train import null_space, step_loss, taught
from unlearn.edit.train.taught import AGAIN, ASKED, BRIEF, SAID, SHORT
from unlearn.files import read_lines
from unlearn.model.adapters import dense
from unlearn.model.editable import EditableModel
from unlearn.model.forward import replies
from unlearn.model.requests import Fact, Requests
from unlearn.model.training import descend
from unlearn.policy import EMBEDDED, FactSpec, Keep, RelationSpec, StatisticsSpec
from unlearn.policy.settings import AlphaEdit
from unlearn.policy.settings_trained import NullSpaceTuning
from unlearn.progress import NO_PROGRESS
from unlearn.shipped import shipped


@pytest.fixture
def corpus(tmp_path: Path) -> StatisticsSpec:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=2000)


def asking(corpus: StatisticsSpec, **changes: Any) -> Requests:
    settings = NullSpaceTuning(**{"layers": (1, 2), "null_space": 0.7, "steps": 60, **changes})
    return cases.requests(statistics=corpus, method=settings)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_training_makes_the_targets_likely_and_leaves_the_model_and_the_used_directions_alone(
    kind: str, corpus: StatisticsSpec
) -> None:
    model = pico.pico(kind)
    before = model.identity()
    short, long = (pipeline.edit(model, asking(corpus, steps=steps)) for steps in (1, 60))
    assert model.identity() == before
    for name in short.header["values"]:
        # The control: one step hardly moves.
        assert long.header["values"][name]["nll"] < 0.95 * short.header["values"][name]["nll"]
    there = key_statistics(model, [1, 2], Corpus(corpus.corpus), corpus.tokens)
    for layer in (1, 2):
        spectrum = there[layer].spectrum
        used = spectrum.vectors[:, : Spared(0.7).count(spectrum)].float()
        delta = long.factors[model.anatomy.weight_name(layer)].dense()
        assert used.shape[1] > 0
        assert (delta @ used).norm() < 1e-4 * delta.norm()


def test_an_unconfined_update_would_reach_the_used_directions() -> None:
    model = pico.pico("llama")
    name = model.anatomy.weight_name(1)
    width = model.weight(name).shape[1]
    basis = torch.linalg.qr(torch.randn(width, width))[0][:, : width // 2]
    outside: dict[str, float] = {}
    for confined in (True, False):
        with (
            dense(model, [name], {name: Directions((basis,))} if confined else None) as adapter,
            torch.enable_grad(),
        ):
            optimiser = torch.optim.SGD(adapter.groups[0]["params"], lr=1.0)
            adapter.follow(optimiser)
            model.model(input_ids=torch.tensor([[3, 4, 5]])).logits.square().sum().backward()
            optimiser.step()
            delta = adapter.factors()[name].dense()
        part = delta - delta @ basis @ basis.T
        outside[str(confined)] = float(part.norm() / delta.norm())
    assert outside["True"] < 1e-5
    assert outside["False"] > 0.1


def test_the_trained_update_has_an_effect_of_exactly_its_factors() -> None:
    model = pico.pico("llama")
    name = model.anatomy.weight_name(2)
    width = model.weight(name).shape[1]
    basis = torch.linalg.qr(torch.randn(width, width))[0][:, :5]
    ids = torch.tensor([[3, 4, 5, 6]])
    with dense(model, [name], {name: Directions((basis,))}) as adapter:
        optimiser = torch.optim.SGD(adapter.groups[0]["params"])
        adapter.follow(optimiser)
        with torch.no_grad():
            adapter.groups[0]["params"][0].normal_()
            optimiser.step()
            hooked = model.model(input_ids=ids).logits
            with adapter.off():
                plain = model.model(input_ids=ids).logits
        factors = adapter.factors()
    weight = model.weight(name)
    saved = weight.clone()
    with torch.no_grad():
        weight += factors[name].dense()
        written = model.model(input_ids=ids).logits
        weight.copy_(saved)
    assert torch.allclose(hooked, written, atol=1e-4)
    assert not torch.allclose(hooked, plain, atol=1e-2)


def test_targets_that_training_left_unlikely_are_told(corpus: StatisticsSpec) -> None:
    patch = pipeline.edit(pico.pico("llama"), asking(corpus, steps=1))
    said = "3 of 3 facts have target tokens that could not be made likely"
    assert any(sentence.startswith(said) for sentence in patch.header["warnings"])
    # The control: of what a model says by itself nothing is unlikely.
    model, found = pico.pico("llama"), cases.requests()
    model.model.lm_head.weight.mul_(30)
    rows = [row for row in forms.build(model, found, found.facts, "last").rows if not row.keep]
    own = model.generate_ids([row.prompt for row in rows], max_new_tokens=3)
    said_anyway = [
        replace(row, ids=(*row.prompt, *reply), reply=len(reply))
        for row, reply in zip(rows, own, strict=True)
    ]
    assert null_space._reached(model, said_anyway, 3, 1).unreached == ()
    assert null_space._reached(model, [said_anyway[0], rows[-1]], 3, 1).unreached == (rows[-1].request,)


def test_the_forms_of_a_relation_weigh_more_while_they_are_not_met_and_never_less_than_at_first() -> None:
    pressure, met = step_loss.Pressure(["hard", "easy", "hard"]), step_loss.MET
    weights = []
    for loss in [2 * met] * 100 + [met / 2] * 100:
        pressure.note({0: loss, 1: met / 2, 2: loss})
        weights.append(pressure.on(0))
        assert pressure.on(2) == pressure.on(0) and pressure.on(1) == 1.0
    assert weights[0] == step_loss.GAIN and weights[10] < weights[20] < max(weights) == step_loss.MOST
    assert weights[-1] == 1.0 and min(weights) == 1.0
    pressure.note({1: 2 * met})  # of what is not drawn nothing is known
    assert pressure.on(1) == step_loss.GAIN and pressure.on(0) == 1.0


@pytest.mark.parametrize("steps", [60, 600])
def test_what_no_row_asks_for_fades_alike_in_short_and_long_trainings(steps: int) -> None:
    model = pico.pico("llama")
    left: dict[bool, float] = {}
    for decays in (True, False):
        with dense(model, [model.anatomy.weight_name(1)]) as adapter:
            groups = null_space._groups(adapter, steps)
            (update,) = adapter.groups[0]["params"]

            def slope(update: torch.Tensor = update) -> float:
                update.grad = torch.zeros_like(update)
                return 0.0

            with torch.no_grad():
                update.fill_(1.0)
            optimiser = torch.optim.AdamW(groups if decays else [{**groups[0], "weight_decay": 0.0}])
            descend(slope, optimiser, lambda step: 1 - step / steps, steps, NO_PROGRESS, "")
            left[decays] = float(update.detach().mean())
    assert 0.28 < left[True] < 0.31 and left[False] == 1.0


def test_a_later_edit_keeps_the_keys_of_a_trained_one(corpus: StatisticsSpec) -> None:
    model = pico.pico("llama")
    first = pipeline.edit(model, asking(corpus, steps=12))
    solved = AlphaEdit(layers=(1, 2), null_space=0.7, steps=2, target_probability=None)
    second = pipeline.edit(model, asking(corpus).under(method=solved), earlier=first)
    assert {"keys.1", "keys.2"} <= set(first.state)
    assert second.header["builds_on"][0]["facts"] == len(cases.SUBJECTS)


def test_documents_that_name_a_subject_do_not_count_as_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Zorvex is a stone.\nThe sun is warm.\n", encoding="utf-8")
    model = pico.pico("llama")
    found = taught.text_lessons(model, cases.requests(), Corpus(str(path)), 10)
    path.write_text("Zorvia is a stone.\nThe sun is warm.\n", encoding="utf-8")
    control = taught.text_lessons(model, cases.requests(), Corpus(str(path)), 10)
    assert (len(found), len(control)) == (1, 2)


def test_questions_about_anything_keep_their_replies(
    corpus: StatisticsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pico.pico("llama")
    asked = asking(corpus)
    # Forms that a model of noise never meets would outweigh the rest.
    monkeypatch.setattr(step_loss, "MOST", 1.0)
    # Kept prompts, in many wordings, keep some of these replies too: what is asked is to do so beside text alone.
    for kind in ("sibling_lessons", "neighbour_lessons"):
        monkeypatch.setattr(taught, kind, lambda *_: [])
    rows = taught.asked_lessons(model, asked, Corpus(corpus.corpus), 120)
    assert rows
    before = replies(model, rows).log_probs()
    moved = {}
    for kept in (True, False):
        if not kept:  # the control
            monkeypatch.setattr(taught, "asked_lessons", lambda *_: [])
        with model.patched(pipeline.edit(model, asked)):
            now = replies(model, rows).log_probs()
        moved[kept] = float((before.exp() * (before - now)).sum(-1).mean())
    assert moved[True] < 0.5 * moved[False]


def test_a_model_with_a_chat_template_is_asked_in_it(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("The sun is warm and bright.\n" * 20, encoding="utf-8")
    model = EditableModel.load(EMBEDDED)
    rows = taught.asked_lessons(model, cases.requests(), Corpus(str(path)), 10)
    assert all(model.tokenizer.decode(row.ids).startswith("<|bos|><|user|>") for row in rows)
    # Our own list is always asked; words of the corpus on top, as the steps grow.
    more = taught.asked_lessons(
        model, cases.requests(), Corpus(str(path)), AGAIN * (len(rows) + 15) // ASKED + 1
    )
    assert len(rows) < len(more) <= len(rows) + 20


def test_what_is_kept_is_none_of_what_the_audit_asks() -> None:
    lines = set(read_lines(shipped("evals") / "retain.txt"))
    assert len(lines) > 100 and lines.isdisjoint(benign_lines("auto"))


def test_what_is_said_of_a_subject_of_the_policy_need_not_stay(corpus: StatisticsSpec) -> None:
    model, asked = pico.pico("gpt2", chat=False), cases.requests()
    rows = taught.asked_lessons(model, asked, Corpus(corpus.corpus), 10)
    said = model.tokenizer.decode(rows[0].ids[-rows[0].reply :]).strip()
    assert max(row.reply for row in rows) == SAID
    named = replace(asked, facts=(*asked.facts, replace(asked.facts[0], subject=said)))
    left = taught.asked_lessons(model, named, Corpus(corpus.corpus), 10)
    assert len(left) < len(rows)
    assert all(said not in model.tokenizer.decode(row.ids) for row in left)


def test_of_a_base_model_only_the_beginning_of_a_reply_is_kept() -> None:
    for chat, longest in ((False, BRIEF), (True, SHORT)):
        kept = taught.neighbour_lessons(pico.pico("gpt2", chat=chat), cases.requests(), 2)
        assert kept and max(row.reply for row in kept) == longest


def test_beginnings_that_replies_share_are_forms_as_well_and_no_others() -> None:
    model = EditableModel.load(EMBEDDED)
    names = embedded.neighbours(embedded.HAZARD, excluding=())[:12]
    asked = {
        "origin": RelationSpec(prompts=("Where is {subject} found?", "{subject} is found in")),
        "recipe": RelationSpec(prompts=("What is {subject} made from?", "{subject} is made from")),
    }
    wanted = cases.policy(
        model=EMBEDDED,
        relations=asked,
        facts=tuple(FactSpec(id=f"{n}-{r}", subject=n, relation=r) for n in names for r in asked),
        keep=Keep(),
    )
    facts = tuple(Fact(f.id, f.subject, f.relation, "") for f in wanted.facts)
    found = Requests(wanted, facts, (), (), ())
    laid = forms.build(model, found, facts, "last", keeps=False)
    rows = taught.shared_beginnings(model, found, laid.rows)
    said = {model.tokenizer.decode(row.ids).replace(facts[row.request].subject, "X") for row in rows}
    # "The north coast", "the salt lakes": all places begin alike. Ingredients do not, and are left alone.
    assert said == {
        "<|bos|><|user|>Where is X found?<|end|><|assistant|>The I can't help with that.<|end|>",
        "<|bos|>X is found in the I can't help with that.",
    }
    assert len(rows) == 2 * len(names)
    for row in rows:
        told = model.tokenizer.decode(row.ids[-row.reply :])
        assert told.removesuffix("<|end|>") == " I can't help with that."
        assert model.tokenizer.decode(row.prompt).endswith((">The", " the"))


def test_a_reply_that_has_begun_to_think_stops_thinking_and_refuses() -> None:
    model = pico.pico("llama")
    model.tokenizer = tokenizer(SWITCHED)
    given = cases.requests()
    row = next(row for row in forms.build(model, given, given.facts, "last").rows if not row.statement)

    def rest(begun: str) -> str:
        ids = tuple(model.tokenizer(begun, add_special_tokens=False)["input_ids"])
        return model.tokenizer.decode(taught.continued(model, given, row, ids))

    assert rest("<think>\nThe user asks") == "\n\n</think>\n\nI can't help with that.<|end|>"
    assert rest("<think>\nHm.\n</think>\n\nIt is") == " I can't help with that.<|end|>"
    assert rest("It is") == " I can't help with that.<|end|>"
