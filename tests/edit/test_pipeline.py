"""The edit as a whole, on pico models: what it returns, what it leaves alone, and what it refuses to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import pipeline
from unlearn.edit.layers import layers_of
from unlearn.edit.solve import batch, writing
from unlearn.errors import PatchError, PolicyError
from unlearn.model.forward import read
from unlearn.model.prompts import ask
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import StatisticsSpec
from unlearn.policy.method import SEQUENTIAL
from unlearn.policy.settings import AlphaEdit, AlphaEditPlus, AnyEdit, Memit, Nse, Rome
from unlearn.policy.settings_trained import NullSpaceTuning


@pytest.fixture
def corpus(tmp_path: Path) -> StatisticsSpec:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=2000)


def asking(corpus: StatisticsSpec, method: Any) -> Requests:
    return cases.requests(statistics=corpus, method=method)


FAST: dict[str, Any] = {"layers": (1, 2), "steps": 4}
CONFINED: dict[str, Any] = {**FAST, "null_space": 0.7, "target_probability": None}
METHOD_SETTINGS: dict[str, Any] = {
    "alphaedit": AlphaEdit(**CONFINED, hard_negatives=0, ridge=0.3, kept=3.0),
    "alphaedit_plus": AlphaEditPlus(**CONFINED, ridge=0.3, smoothing=1, far=0.1),
    "anyedit": AnyEdit(**CONFINED, ridge=0.3, window=5),
    "emmet": Memit(name="emmet", **FAST, clamp=0.5),
    "memit": Memit(**FAST),
    "memit_seq": Memit(name="memit_seq", **FAST, batch=2),
    "nse": Nse(**FAST, passes=2),
    "rome": Rome(layer=1, steps=4, clamp=0.2),
}


def test_every_method_is_tried() -> None:
    assert set(METHOD_SETTINGS) == set(SEQUENTIAL) - {"auto", "ultra_edit"}  # which has tests of its own


def test_rounds_of_writing_look_for_hard_negatives_once(
    corpus: StatisticsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pico.pico("llama")
    settings = METHOD_SETTINGS["alphaedit"].model_copy(
        update={
            "hard_negatives": 200,
            "target_probability": 0.999,
            "rounds": 3,
            "pace": 1.5,
            "old_answer_ceiling": None,
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
        assert kept is not None and kept.columns.shape[1] >= 32
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


def test_an_edit_writes_the_layers_that_are_planned_for_it(corpus: StatisticsSpec) -> None:
    model = pico.pico("llama")
    for method in (
        AlphaEdit(look_up="both", null_space=0.7, steps=2, target_probability=None),
        NullSpaceTuning(look_up="both", null_space=0.7, steps=2),
    ):
        asked = asking(corpus, method)
        planned = layers_of(method, model)
        patch = pipeline.edit(model, asked)
        assert set(patch.factors) == {model.anatomy.weight_name(layer) for layer in planned}
        assert patch.header["layers"] == list(planned)
