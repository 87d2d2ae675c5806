"""Leakage against the dense definition and against what the theorem promises; growth and drift against planted ones."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from tests import families
from tests.pico import LINES, pico
from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import Moments
from unlearn.algebra.moments import leakage as dense_leakage
from unlearn.audit import cost
from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import text_ids
from unlearn.model.forward import read
from unlearn.patch import Patch
from unlearn.report import Measurement


def rows_of(model: EditableModel) -> list[tuple[int, ...]]:
    return [tuple(text_ids(model.tokenizer, line)) for line in LINES]


def keys_of(model: EditableModel, layer: int) -> Tensor:
    """Inputs of a down-projection at every token, (d_ff, tokens)."""
    rows = rows_of(model)
    return read(model, rows, [list(range(len(row))) for row in rows], key_layers=[layer]).keys[layer]


def no_limits(_name: str) -> None:
    return None


def leak(model: EditableModel, change: cost.Change) -> Measurement:
    return cost.leakage(model, change, rows_of(model), "a few lines", no_limits, seed=0)


def patch_of(model: EditableModel, updates: Mapping[int, LowRank]) -> Patch:
    return Patch({model.anatomy.weight_name(layer): update for layer, update in updates.items()}, {}, {})


@pytest.mark.parametrize("family", ["llama", "gpt2", *families.MIXTURES])
def test_leakage_is_the_dense_definition(family: str) -> None:
    """Of experts too it is that of the whole second moment: the audit forms none of it."""
    model = families.kept(family) if family in families.MIXTURES else pico(family)
    torch.manual_seed(1)
    size = {layer: model.weight(model.anatomy.weight_name(layer)).shape for layer in (1, 2)}
    updates = {
        layer: LowRank(0.1 * layer * torch.randn(rows, 3), torch.randn(3, columns))
        for layer, (rows, columns) in size.items()
    }
    found = leak(model, cost.change_of_patch(model, patch_of(model, updates)))
    for layer, update in updates.items():
        name = model.anatomy.weight_name(layer)
        second = Moments(model.anatomy.d_ff).update(keys_of(model, layer).T.double()).second
        want = dense_leakage(second, update.dense().double(), model.weight(name).double())
        assert found.by_weight[name] == pytest.approx(want, rel=1e-4)
    assert found.after == max(found.by_weight.values()) > 0
    assert found.ci95 is not None and found.ci95[0] <= found.after <= found.ci95[1]
    assert found.n == sum(map(len, rows_of(model)))


def test_an_update_in_the_null_space_of_the_text_does_not_leak_and_another_one_does() -> None:
    model = pico("llama", inner=256)  # longer than the text, so that its keys leave directions unused
    keys = keys_of(model, 2).double()
    basis, sizes, _ = torch.linalg.svd(keys, full_matrices=True)
    used = int((sizes > 1e-6 * sizes[0]).sum())
    assert used < len(basis)
    left = torch.randn(model.anatomy.d_model, 1)
    found = {}
    for name, direction in {"unused": basis[:, -1], "used": basis[:, 0]}.items():
        update = LowRank(left, direction[None].float())
        found[name] = float(leak(model, cost.change_of_patch(model, patch_of(model, {2: update}))).after or 0)
    assert found["unused"] < 1e-4 < 0.1 < found["used"]


def test_a_patch_and_the_model_that_it_makes_cost_the_same() -> None:
    model, other = pico("qwen2"), pico("qwen2")
    name = model.anatomy.weight_name(1)
    rows, columns = model.weight(name).shape
    torch.manual_seed(0)
    patch = patch_of(model, {1: LowRank(0.2 * torch.randn(rows, 2), torch.randn(2, columns))})
    other.weight(name).add_(patch.factors[name].dense())
    mine, theirs = cost.change_of_patch(model, patch), cost.change_between(model, other)
    assert theirs.names == mine.names == (name,)
    for of in (
        lambda c: cost.norm(c, no_limits),
        lambda c: cost.growth(c, no_limits),
        lambda c: leak(model, c),
    ):
        assert of(mine).after == pytest.approx(of(theirs).after, rel=1e-4)
    grown = float(other.weight(name).norm() / model.weight(name).norm()) - 1
    assert cost.growth(theirs, no_limits).after == pytest.approx(grown, rel=1e-4) and grown > 0


def test_nothing_changed_costs_nothing_and_what_has_no_inputs_is_said() -> None:
    model, other = pico("llama"), pico("llama")
    same = cost.change_between(model, other)
    assert (
        leak(model, same).after,
        cost.norm(same, no_limits).after,
        cost.growth(same, no_limits).after,
    ) == (0, 0, 0)
    other.model.get_input_embeddings().weight.data.mul_(2)
    only = leak(model, cost.change_between(model, other))
    assert only.passed is False and "no linear layer" in str(only.reason)
    other.weight(other.anatomy.weight_name(0)).mul_(1.5)
    both = leak(model, cost.change_between(model, other))
    assert both.after == pytest.approx(0.5, rel=1e-4) and "left out" in both.definition
    with pytest.raises(AuditError, match="replaced"):
        cost.change_between(model, model)


def test_watched_layers() -> None:
    model = pico("llama")
    assert cost.watched(model, None) == (2, 3)
    change = cost.Change({"model.layers.1.mlp.down_proj.weight": 0.1}, {}, (), lambda name: torch.zeros(0))
    assert cost.watched(model, change) == (1, 3)


def test_norm_and_growth_are_those_of_the_worst_matrix() -> None:
    change = cost.Change({"a": 0.1, "b": 0.3}, {"a": 0.2, "b": -0.1}, (), lambda name: torch.zeros(0))
    found = cost.norm(change, lambda _name: 0.25)
    assert found.after == 0.3 and found.by_weight == {"a": 0.1, "b": 0.3} and found.passed is False
    assert cost.growth(change, no_limits).after == 0.2
    assert cost.norm(cost.Change({}, {}, (), change.delta), no_limits).after == 0.0


def test_weights_that_are_no_numbers_fail_every_measure_of_the_weights() -> None:
    model, broken = pico("llama"), pico("llama")
    with torch.no_grad():
        broken.weight(model.anatomy.weight_name(0)).mul_(1.5)
        broken.weight(model.anatomy.weight_name(1))[0, 0] = float("nan")
    change = cost.change_between(model, broken)
    for made in (cost.norm(change, lambda _: 9.0), cost.growth(change, lambda _: 9.0), leak(model, change)):
        assert made.after is None and made.passed is False and "not a finite number" in str(made.reason)
