"""MEND's map and MALMEN's least squares, against plain float64 arithmetic; where they begin, they descend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import pico
from unlearn.edit.train.hypernetwork import (
    Aggregation,
    Columns,
    Hypernetwork,
    Tokens,
    captured,
    least_squares,
)
from unlearn.edit.train.lessons import Lesson, Lessons
from unlearn.edit.train.replied import Replied
from unlearn.model.adapters import dense, linears
from unlearn.model.editable import EditableModel
from unlearn.model.forward import replies

ROWS = [Lesson((0, 9, 17, 33, 21, 40), 3), Lesson((0, 12, 8), 2), Lesson((0, 30, 31, 32, 33), 2)]
SHAPE = (5, 7)


def drawn(n: int, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return Tokens(*(torch.randn(n, width, generator=generator) for width in reversed(SHAPE)))


def trained(aggregation: Aggregation) -> Hypernetwork:
    """A network that is no identity any more, of two weights of one shape and one of another."""
    network = Hypernetwork({"a": SHAPE, "b": SHAPE, "c": (3, 4)}, 2, 0, aggregation)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    for n, name in enumerate(("a", "b")):
        network.standardise(name, drawn(50, 10 + n), size=0.5 + n)
    return network


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_captured_gives_the_gradients_of_the_weights(family: str) -> None:
    model = pico.pico(family)
    names = linears(model, "mlp", [1, 3])
    assert len(names) == (6 if family == "llama" else 4) and not any(".0." in name for name in names)
    got = captured(model, names, Replied(model, Lessons(tuple(ROWS), ()), 1), range(len(ROWS)))
    for name in names:
        module = model.model.get_submodule(name.removesuffix(".weight"))
        weight = module.weight.requires_grad_(True)
        (wanted,) = torch.autograd.grad(sum(replies(model, [row]).nll().sum() for row in ROWS), weight)
        weight.requires_grad_(False)
        found = got[name].gradients.T @ got[name].inputs
        torch.testing.assert_close(found, wanted if family == "llama" else wanted.T, atol=1e-5, rtol=1e-4)
        assert wanted.abs().max() > 1e-3
    last = got[linears(model, "mlp", [3])[0]]
    # The last block's MLP says nothing about tokens that predict nothing of a reply, nor has padding a gradient.
    assert len(last.inputs) == sum(row.reply for row in ROWS)
    assert len(got[names[0]].inputs) <= sum(len(row.ids) - 1 for row in ROWS)
    assert not any(module._forward_hooks for module in model.model.modules())


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_map_is_what_its_formula_says(name: str) -> None:
    network, seen = trained("mean"), drawn(9)
    weight = ("a", "b").index(name)
    inside = network.networks[0]
    u, v, s, o = (part.detach().double() for part in (inside.left, inside.right, inside.scale, inside.shift))
    seed = torch.cat(drawn(50, 10 + weight), 1).double()
    mean, deviation = seed.mean(0), seed.std(0, correction=0)
    wanted = torch.zeros(SHAPE, dtype=torch.float64)
    for x, delta in zip(seen.inputs.double(), seen.gradients.double(), strict=True):
        z = (torch.cat([x, delta]) - mean) / deviation
        h = z + (s[0, weight] * (u[0] @ (v[0] @ z)) + o[0, weight]).clamp_min(0)
        r = s[1, weight] * (u[1] @ (v[1] @ h)) + o[1, weight] + (h - z)
        better = torch.cat([x, delta]) + deviation * r
        wanted -= network.step[weight].item() * (0.5 + weight) * torch.outer(better[7:], better[:7]) / 3
    found = network.update(name, network.columns(name, seen), edits=3)
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-4)
    other = Hypernetwork({"a": SHAPE}, 2, 0, "mean")  # the control: one that has learned nothing
    assert (other.update("a", other.columns("a", seen), edits=3).double() - wanted).abs().max() > 0.1


@pytest.mark.parametrize("tokens", [4, 40])
def test_least_squares_are_what_their_formula_says_however_few_the_tokens(tokens: int) -> None:
    network, seen = trained("least_squares"), drawn(tokens)
    better = network.mapped("a", seen)
    values = torch.stack(
        [
            -network.step[0].item() * 0.5 * delta.double() * (near.double() @ x.double())
            for x, near, delta in zip(seen.inputs, better.inputs, better.gradients, strict=True)
        ],
        1,
    )
    keys = seen.inputs.double().T
    ridge = network.log_ridge[0].exp().double() * drawn(50, 10).inputs.double().square().sum(1).mean()
    wanted = values @ keys.T @ torch.linalg.inv(keys @ keys.T + ridge * torch.eye(7, dtype=torch.float64))
    found = network.update("a", network.columns("a", seen), edits=1)
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("aggregation", ["least_squares", "mean"])
def test_bit_by_bit_the_update_is_the_same_and_forms_of_an_edit_count_as_one(
    aggregation: Aggregation,
) -> None:
    network = trained(aggregation)
    parts = [drawn(6, seed) for seed in range(8)]
    whole = network.columns("a", Tokens(*(torch.cat(some) for some in zip(*parts, strict=True))))
    grown = network.columns("a", parts[0])
    for part in parts[1:]:
        grown = grown.plus(network.columns("a", part))
    assert grown.right.shape[1] < whole.right.shape[1]  # it was condensed on the way
    update = network.update("a", whole, edits=8)
    torch.testing.assert_close(network.update("a", grown, edits=8), update, atol=1e-5, rtol=1e-4)
    twice = network.columns("a", parts[0], forms=2)
    once = network.update("a", network.columns("a", parts[0]), edits=1)
    torch.testing.assert_close(network.update("a", twice.plus(twice), edits=1), once, atol=1e-5, rtol=1e-4)
    if aggregation == "least_squares":  # the control: as two edits they weigh more against the ridge
        double = network.columns("a", parts[0])
        assert (network.update("a", double.plus(double), edits=1) - once).abs().max() > 1e-3


def test_a_coordinate_that_never_moved_does_not_drown_the_others_when_it_does() -> None:
    network, seen = trained("mean"), drawn(9)
    still = Tokens(drawn(50, 10).inputs.index_fill(1, torch.tensor([2]), 0.0), drawn(50, 10).gradients)
    network.standardise("a", still, size=0.5)

    def length(of: Tokens) -> float:
        return float(network.update("a", network.columns("a", of), edits=9).detach().norm())

    moved = Tokens(seen.inputs.index_fill(1, torch.tensor([2]), 0.01), seen.gradients)
    silent = Tokens(seen.inputs.index_fill(1, torch.tensor([2]), 0.0), seen.gradients)
    assert length(moved) < 30 * length(silent)
    network.deviation[0, 2] = 1e-12  # the control: what it would be divided by without a floor
    assert length(moved) > 1e6 * length(silent)


def nll(model: EditableModel, names: list[str], updates: dict[str, Tensor]) -> float:
    """Of the rows, with updates of the weights added."""
    with dense(model, names) as adapter, torch.no_grad():
        for name, group in zip(names, adapter.groups, strict=True):
            group["params"][0].copy_(updates[name])
        return float(replies(model, ROWS).nll().sum())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("aggregation", ["least_squares", "mean"])
def test_at_the_beginning_it_descends_and_with_the_other_sign_it_climbs(
    family: str, aggregation: Aggregation
) -> None:
    model = pico.pico(family)
    names = linears(model, "mlp", [2, 3])
    network = Hypernetwork({name: tuple(model.weight(name).shape) for name in names}, 4, 0, aggregation)
    seen = captured(model, names, Replied(model, Lessons(tuple(ROWS), ()), 2), range(len(ROWS)))
    step = 1e-3 if aggregation == "mean" else 1e-2
    for name in names:
        network.standardise(name, seen[name], step)

    def updates() -> dict[str, Tensor]:
        return {
            name: network.update(name, network.columns(name, seen[name]), len(ROWS)).detach()
            for name in names
        }

    down = updates()
    if aggregation == "mean":
        for name in names:  # exactly a step along the gradient of the mean loss
            gradient = seen[name].gradients.double().T @ seen[name].inputs.double() / len(ROWS)
            torch.testing.assert_close(down[name].double(), -step * gradient, atol=1e-7, rtol=1e-4)
    before = nll(model, names, {name: torch.zeros_like(down[name]) for name in names})
    assert nll(model, names, down) < before - 1e-4
    network.step.data.neg_()
    assert nll(model, names, updates()) > before + 1e-4


def test_the_ridge_may_be_anything_above_nothing_and_is_differentiated() -> None:
    columns = Columns(torch.randn(3, 12), torch.randn(6, 12))
    ridge = torch.tensor(0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(least_squares(columns, ridge).square().sum(), ridge)
    with torch.no_grad():
        near = [float(least_squares(columns, ridge + d).double().square().sum()) for d in (-0.01, 0.01)]
    assert float(slope) == pytest.approx((near[1] - near[0]) / 0.02, rel=1e-2)
