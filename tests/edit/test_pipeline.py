"""The edit as a whole, on pico models: what it returns, what it leaves alone, and what it refuses to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import batch, forms, pipeline, writing
from unlearn.edit.methods import METHODS, default_layers, layers_of
from unlearn.edit.taught import Taught
from unlearn.errors import PatchError, PolicyError
from unlearn.model.anatomy import FAMILIES, Anatomy
from unlearn.model.forward import read
from unlearn.model.prompts import ask
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import RelationSpec, StatisticsSpec
from unlearn.policy.settings import (
    AlphaEdit,
    AlphaEditPlus,
    AnyEdit,
    Emmet,
    Memit,
    MemitSequential,
    Nse,
    Rome,
)
from unlearn.policy.settings_baselines import Lora


@pytest.fixture
def corpus(tmp_path: Path) -> StatisticsSpec:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=2000)


def asking(corpus: StatisticsSpec, method: Any) -> Requests:
    return cases.requests(statistics=corpus, method=method)


FAST: dict[str, Any] = {"layers": (1, 2), "steps": 4, "null_space": 0.7, "witnesses": 0, "hold": None}
METHOD_SETTINGS: dict[str, Any] = {
    "alphaedit": AlphaEdit(**FAST, ridge=0.3, kept=3.0, descent=0),
    "alphaedit_plus": AlphaEditPlus(**FAST, ridge=0.3, smoothing=1, far=0.1),
    "anyedit": AnyEdit(**FAST, ridge=0.3, window=5),
    "emmet": Emmet(**FAST, clamp=0.5),
    "memit": Memit(**FAST),
    "memit_seq": MemitSequential(**FAST, batch=2),
    "nse": Nse(**FAST, passes=2),
    "rome": Rome(layer=1, steps=4, clamp=0.2),
}


def test_every_method_is_tried() -> None:
    assert set(METHOD_SETTINGS) == set(METHODS)


def test_a_chunk_has_a_token_for_every_block_above_the_last_layer() -> None:
    model = pico.pico("llama")
    depth = model.anatomy.layers
    for last in range(depth):
        found = pipeline.settings_for(model, cases.policy(method=AnyEdit(layers=(0, last))))
        assert found.window == max(1, depth - 1 - last)
    assert pipeline.settings_for(model, cases.policy(method=AnyEdit(layers=(0,), window=7))).window == 7


def test_a_base_model_is_written_at_both_tokens_where_most_facts_are_asked_in_several_ways() -> None:
    model = pico.pico("gpt2", chat=False)
    few = cases.policy(method=AlphaEdit())
    assert pipeline.settings_for(model, few).look_up == "subject"
    prompts = ("What is {subject} made from?", "{subject} is made from", "The recipe of {subject} calls for")
    relations = {**few.relations, "recipe": RelationSpec(prompts=prompts)}
    assert pipeline.settings_for(model, few.model_copy(update={"relations": relations})).look_up == "both"


@pytest.mark.parametrize("chat", [True, False])
def test_lora_sees_as_many_rows_as_the_trained_update_and_every_way_of_asking_counts(chat: bool) -> None:
    model = pico.pico("llama", chat=chat)
    few = cases.policy(method=Lora(batch=8), system="Be brief.")
    assert pipeline.settings_for(model, few).steps == forms.LEAST // 8
    assert pipeline.settings_for(model, few.model_copy(update={"method": Lora(steps=7)})).steps == 7
    prompts = tuple(f"{n}, {{subject}}?" for n in range(400))
    many = few.model_copy(update={"relations": {**few.relations, "recipe": RelationSpec(prompts=prompts)}})
    asked = replace(cases.requests(), policy=many)
    laid = sum(len(forms.prompts_of(model, asked, fact)) for fact in asked.facts)
    assert laid == 3 * 400 * (2 if chat else 1)  # a chat model with the system prompt and without
    assert pipeline.settings_for(model, many).steps == forms.PASSES * laid // 8 > forms.LEAST // 8


def test_rounds_of_writing_look_for_witnesses_once(
    corpus: StatisticsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pico.pico("llama")
    settings = METHOD_SETTINGS["alphaedit"].model_copy(
        update={
            "witnesses": 200,
            "hold": 0.999,
            "rounds": 3,
            "pace": 1.5,
            "remnant": None,
            "steps": 60,
            "lr": 0.5,
            "clamp": 20.0,
        }  # fmt: skip
    )
    asked, looked, written = writing._moved, [], []
    once = batch.write_layers

    def moved(*given: Any) -> torch.Tensor:
        found = asked(*given)
        looked.append(found.shape[1])
        return found

    def write(*given: Any) -> Any:
        written.append(once(*given))
        return written[-1]

    monkeypatch.setattr(writing, "_moved", moved)
    monkeypatch.setattr(batch, "write_layers", write)
    pipeline.edit(model, asking(corpus, settings))
    assert len(looked) == 2 and len(written) == 3 and all(n == 32 for n in looked)  # two turns of 8 % of 200
    first, second, third = written
    for layer in (1, 2):
        kept = first.still[layer]
        assert kept is not None and kept.shape[1] >= 32
        assert second.still[layer] is kept and third.still[layer] is kept
        assert not torch.equal(first.keys[layer], second.keys[layer])  # the control: the weights did change


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *(("llama", name) for name in METHOD_SETTINGS),
        ("gpt2", "alphaedit"),
        ("qwen2", "rome"),
        ("gpt2", "nse"),
    ],
)
def test_the_model_is_bit_identical_and_the_patch_does_something(
    family: str, name: str, corpus: StatisticsSpec
) -> None:
    model, requests = pico.pico(family), asking(corpus, METHOD_SETTINGS[name])
    before = model.identity()
    patch = pipeline.edit(model, requests)
    assert model.identity() == before
    assert list(patch.header["layers"]) == ([1] if name == "rome" else [1, 2])
    assert set(patch.header["values"]) == {fact.id for fact in requests.facts}
    prompt = torch.tensor([ask(model.tokenizer, "{subject} is made from", "Zorvex").ids])
    old = model.model(prompt).logits
    with model.patched(patch):
        assert (model.model(prompt).logits - old).abs().max() > 1e-3


def test_the_edit_is_the_same_when_it_is_made_again(corpus: StatisticsSpec) -> None:
    requests = asking(corpus, METHOD_SETTINGS["alphaedit"])
    one, two = (pipeline.edit(pico.pico("llama"), requests) for _ in range(2))
    assert all(torch.equal(one.factors[n].dense(), two.factors[n].dense()) for n in one.factors)
    other = pipeline.edit(pico.pico("llama", seed=3), requests)
    assert not any(torch.equal(one.factors[n].dense(), other.factors[n].dense()) for n in one.factors)


def test_an_edit_towards_nothing_changes_nothing(corpus: StatisticsSpec) -> None:
    """Requests that are content already give zero residuals, and zero residuals write nothing."""
    model = pico.pico("llama")
    settings = METHOD_SETTINGS["alphaedit"].model_copy(update={"converged": 1e6})
    patch = pipeline.edit(model, asking(corpus, settings))
    assert not any(delta.dense().any() for delta in patch.factors.values())
    before = model.identity()
    with model.patched(patch):
        assert model.identity() == before
    real = pipeline.edit(model, asking(corpus, METHOD_SETTINGS["alphaedit"]))
    with model.patched(real):  # the control
        assert model.identity() != before


def test_kept_prompts_move_less_than_without_being_kept(corpus: StatisticsSpec) -> None:
    model = pico.pico("llama")
    full = asking(corpus, METHOD_SETTINGS["alphaedit"].model_copy(update={"look_up": "last"}))
    bare = replace(full, siblings=(), neighbours=())
    prompts = [ask(model.tokenizer, t, "Stone") for t in full.policy.relations["recipe"].prompts]

    def moved(requests: Requests) -> float:
        ids, at = [p.ids for p in prompts], [[p.last] for p in prompts]
        old = read(model, ids, at, stream_layers=[2]).stream[2]
        with model.patched(pipeline.edit(model, requests)):
            return float((read(model, ids, at, stream_layers=[2]).stream[2] - old).norm())

    assert moved(full) < 0.5 * moved(bare)


def test_the_null_space_is_respected(corpus: StatisticsSpec) -> None:
    settings = METHOD_SETTINGS["alphaedit"]
    patch = pipeline.edit(pico.pico("llama"), asking(corpus, settings))
    loose = settings.model_copy(update={"null_space": 1e-9})  # the control: one direction is left alone
    free = pipeline.edit(pico.pico("llama"), asking(corpus, loose))

    def leak(found: Patch) -> float:
        return max(w["null_space_leakage"] / w["relative_norm"] for w in found.header["weights"].values())

    assert leak(patch) < 0.75 and leak(patch) < 0.9 * leak(free)
    assert all(0 < rank < 64 for rank in patch.header["null_space_rank"].values())


def test_layers_that_do_not_exist_and_destructive_updates_are_refused(corpus: StatisticsSpec) -> None:
    model = pico.pico("llama")
    before = model.identity()
    with pytest.raises(PolicyError, match=r"has layers 0 to 3, not \[7\]"):
        pipeline.edit(model, asking(corpus, AlphaEdit(layers=(1, 7))))
    wild = AlphaEdit(layers=(1,), steps=30, clamp=1e6, lr=1e5, decay=0.0, ridge=0.0, null_space=0.99)
    with pytest.raises(PatchError, match=r"more than method.largest \(10\) allows"):
        pipeline.edit(model, asking(corpus, wild.model_copy(update={"largest": 10.0})))
    reported = pipeline.edit(model, asking(corpus, wild))  # a collapsing baseline is reported, and loudly
    assert any("TIMES AS LONG AS THE WEIGHT" in sentence for sentence in reported.header["warnings"])
    assert model.identity() == before


def test_default_layers_scale_with_depth() -> None:
    def layers(depth: int, look_up: str) -> tuple[int, ...]:
        return default_layers(Anatomy("llama", FAMILIES["llama"], depth, 8, 16), look_up)

    for depth in (1, 2, 4, 6, 12, 28, 32, 80):
        for look_up in ("subject", "last", "both"):
            chosen = layers(depth, look_up)
            assert chosen and chosen[0] >= 0 and chosen[-1] < depth and list(chosen) == sorted(chosen)
            assert len(chosen) <= 5
    assert layers(32, "subject") == (4, 5, 6, 7, 8)  # as published for Llama-3-8B
    assert layers(6, "last") == (2, 3, 4)


def test_an_update_that_is_trained_at_both_tokens_takes_the_layers_of_both() -> None:
    anatomy = Anatomy("llama", FAMILIES["llama"], 6, 8, 16)

    def layers(look_up: str, trained: bool, asked: Any = "auto") -> tuple[int, ...]:
        return layers_of(AlphaEdit(look_up=look_up, layers=asked), anatomy, trained)

    assert layers("both", False) == (2, 3, 4)
    assert layers("both", True) == (0, 1, 2, 3, 4)
    assert layers("last", True) == layers("last", False) == (2, 3, 4)
    assert layers("both", True, (5, 3)) == (3, 5)


def test_training_writes_the_layers_that_are_planned_for_it(corpus: StatisticsSpec) -> None:
    model = pico.pico("llama")
    for descent in (0, 2):
        asked = asking(corpus, AlphaEdit(look_up="both", null_space=0.7, descent=descent, steps=2, hold=None))
        planned = pipeline.plan_layers(model, asked.policy, trained=descent > 0)
        patch = pipeline.edit(model, asked)
        assert set(patch.factors) == {model.anatomy.weight_name(layer) for layer in planned}
        assert patch.header["layers"] == list(planned)


def test_sampled_prefixes_reach_an_update_that_is_trained(
    corpus: StatisticsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real, seen = pico.pico("llama"), batch.descend, []

    def counting(model: Any, rows: Taught, *others: Any) -> Any:
        seen.append(len(rows.forms))
        return real(model, rows, *others)

    monkeypatch.setattr(batch, "descend", counting)
    for prefixes in (0, 2):
        pipeline.edit(
            model, asking(corpus, AlphaEdit(layers=(1,), null_space=0.7, descent=1, prefixes=prefixes))
        )
    assert seen[1] > seen[0]
