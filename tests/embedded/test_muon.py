"""Muon's steps: nearly orthogonal, of a known length, and they fit a matrix."""

from __future__ import annotations

import pytest
import torch

from tools.embedded.muon import Muon, orthogonalise


def test_orthogonalised_singular_values_are_near_one() -> None:
    stack = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(stack).float())
    assert values.min() > 0.5 and values.max() < 1.4


def test_muon_fits_a_matrix() -> None:
    torch.manual_seed(0)
    target, weight = torch.randn(24, 12), torch.nn.Parameter(torch.zeros(24, 12))
    optimiser = Muon([weight], lr=0.05, weight_decay=0.0)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimiser.zero_grad()
        ((weight - target) ** 2).mean().backward()
        optimiser.step()
    assert ((weight - target) ** 2).mean() < 0.05 * (target**2).mean()


@pytest.mark.parametrize("shape", [(24, 12), (12, 24), (16, 16)])
def test_a_step_is_as_long_as_it_says(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape)
    Muon([weight], lr=0.3, weight_decay=0.0).step()
    length = float(weight.detach().square().mean().sqrt())
    assert length == pytest.approx(0.3 / shape[1] ** 0.5, rel=0.25)


def test_steps_are_those_of_torch() -> None:
    """Up to its rounding to bfloat16."""
    torch.manual_seed(0)
    gradients = torch.randn(4, 12, 20)
    ends = []
    for ours in (True, False):
        weight = torch.nn.Parameter(torch.zeros(12, 20))
        made = (
            Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.0)
            if ours
            else torch.optim.Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.0)
        )
        for gradient in gradients:
            weight.grad = gradient.clone()
            made.step()
        ends.append(weight.detach())
    assert float((ends[0] - ends[1]).norm() / ends[1].norm()) < 0.03
