"""Batches and earlier patches: their sum fits the unedited model, and what was written before stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.algebra.low_rank import LowRank
from unlearn.edit import pipeline
from unlearn.edit.sequence import Sofar, Written
from unlearn.errors import ModelError, PatchError, PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings import AlphaEdit, Memit

QUICK: dict[str, Any] = {"layers": (2,), "steps": 4}
FAST: dict[str, Any] = {
    **QUICK, "null_space": 0.5, "ridge": 0.01, "kept": 0.0, "hard_negatives": 0, "target_probability": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return pico.pico("llama")


@pytest.fixture
def corpus(tmp_path: Path) -> StatisticsSpec:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=2000)


def asking(corpus: StatisticsSpec, method: Any, take: slice = slice(None)) -> Requests:
    whole = cases.requests(statistics=corpus, method=method)
    return replace(whole, facts=whole.facts[take])


def moved(patch: Patch, keys: torch.Tensor, name: str) -> float:
    """How far a patch moves the outputs at some keys."""
    return float((patch.factors[name].dense() @ keys).norm())


def test_batches_are_policies_one_after_another(model: EditableModel, corpus: StatisticsSpec) -> None:
    method = AlphaEdit(**FAST)
    split = pipeline.edit(model, asking(corpus, method.model_copy(update={"batch": 2})))
    assert split.header["batches"] == [2, 1] and len(split.header["values"]) == 3
    first = pipeline.edit(model, asking(corpus, method, slice(0, 2)))
    second = pipeline.edit(model, asking(corpus, method, slice(2, 3)), earlier=first)
    for name, delta in split.factors.items():
        torch.testing.assert_close(second.factors[name].dense(), delta.dense(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(second.state["keys.2"], split.state["keys.2"], rtol=1e-4, atol=1e-5)
    whole = pipeline.edit(model, asking(corpus, method))  # the control: one batch of all is another edit
    name = next(iter(split.factors))
    assert float((whole.factors[name].dense() - split.factors[name].dense()).norm()) > 1e-3
    assert second.header["builds_on"] == [
        {"policy": "pico", "method": "alphaedit", "layers": [2], "facts": 2}
    ]
    assert first.header["builds_on"] == [] and set(second.base) == set(first.base)


@pytest.mark.parametrize("keeping", [AlphaEdit(**FAST), Memit(name="memit_seq", **QUICK, ridge=1e-3)])
def test_earlier_keys_are_kept_by_those_that_keep_them(
    keeping: Any, model: EditableModel, corpus: StatisticsSpec, tmp_path: Path
) -> None:
    first = pipeline.edit(model, asking(corpus, keeping, slice(0, 1)))
    first.save(tmp_path / "first.safetensors")
    first = Patch.load(tmp_path / "first.safetensors")  # what later edits need survives the file
    name, keys = next(iter(first.factors)), first.state["keys.2"]

    def further(method: Any) -> float:
        both = pipeline.edit(model, asking(corpus, method, slice(1, 3)), earlier=first)
        new = both.factors[name].dense() - first.factors[name].dense()
        return float((new @ keys).norm() / new.norm())

    heavy = keeping.model_copy(update={"earlier": 100.0})
    forgetting = keeping.model_copy(update={"earlier": 0.0})
    assert further(heavy) < further(keeping) < further(forgetting)
    assert further(heavy) < 0.5 * further(forgetting)


def test_memit_forgets_and_sequential_memit_does_not(model: EditableModel, corpus: StatisticsSpec) -> None:
    one, other = (
        pipeline.edit(model, asking(corpus, Memit(name=name, **QUICK, batch=1)))
        for name in ("memit", "memit_seq")
    )
    name = next(iter(one.factors))
    assert float((one.factors[name].dense() - other.factors[name].dense()).norm()) > 1e-4
    same = pipeline.edit(model, asking(corpus, Memit(name="memit_seq", **QUICK, batch=1, earlier=0.0)))
    torch.testing.assert_close(same.factors[name].dense(), one.factors[name].dense())


def test_the_sum_carries_layers_and_base_of_both(model: EditableModel, corpus: StatisticsSpec) -> None:
    before = model.identity()
    first = pipeline.edit(model, asking(corpus, AlphaEdit(**{**FAST, "layers": (1,)}), slice(0, 1)))
    both = pipeline.edit(model, asking(corpus, AlphaEdit(**FAST), slice(1, 2)), earlier=first)
    names = [model.anatomy.weight_name(layer) for layer in (1, 2)]
    assert set(both.factors) == set(both.base) == set(names)
    assert set(both.state) == {"keys.1", "keys.2"}
    assert torch.equal(both.factors[names[0]].dense(), first.factors[names[0]].dense())
    assert any("left no keys for layers 2" in sentence for sentence in both.header["warnings"])
    assert "null_space_leakage" not in both.header["weights"][names[0]]  # no statistics of that layer here
    with model.patched(both):
        assert model.identity() != before
    assert model.identity() == before


def test_an_edit_refuses_to_build_on_what_does_not_fit(model: EditableModel, corpus: StatisticsSpec) -> None:
    first = pipeline.edit(model, asking(corpus, AlphaEdit(**FAST), slice(0, 1)))
    with pytest.raises(ModelError, match="made for another model"):
        pipeline.edit(pico.pico("llama", seed=4), asking(corpus, AlphaEdit(**FAST)), earlier=first)
    with pytest.raises(PatchError, match="cannot build on an in-context guard"):
        pipeline.edit(model, asking(corpus, AlphaEdit(**FAST)), earlier=Patch({}, {}, {"system": "no"}))
    from unlearn.policy.settings_trained import Nothing

    with pytest.raises(PolicyError, match="none cannot build on an earlier patch"):
        pipeline.edit(model, asking(corpus, Nothing()), earlier=first)


def test_many_batches_stay_small() -> None:
    torch.manual_seed(0)
    sofar, total = Sofar(), torch.zeros(6, 9)
    square = torch.zeros(9, 9)
    for _ in range(5):
        delta, keys = LowRank(torch.randn(6, 4), torch.randn(4, 9)), torch.randn(9, 4)
        sofar = sofar.plus(Written({"w": delta}, {0: keys}, {0: 5}))
        total, square = total + delta.dense(), square + keys @ keys.T
    assert sofar.factors["w"].rank <= 8 and sofar.keys[0].shape[1] <= 9
    torch.testing.assert_close(sofar.factors["w"].dense(), total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sofar.keys[0] @ sofar.keys[0].T, square, rtol=1e-4, atol=1e-4)
    assert sofar.earlier(0, 0.0) is None and sofar.earlier(1, 1.0) is None
    kept = sofar.earlier(0, 4.0)
    assert kept is not None and torch.equal(kept, 2 * sofar.keys[0])
