"""Shifts against what the states were moved by."""

from __future__ import annotations

import pytest
import torch

from unlearn.algebra.shift import shift


def test_a_shift_is_relative_to_the_spread_before() -> None:
    torch.manual_seed(0)
    before = 3.0 + 2.0 * torch.randn(400, 8)
    step = torch.zeros(8)
    step[2] = 5.0
    found = shift(before, before + step)
    assert found is not None and found.prompts == 400
    assert found.spread == pytest.approx(2 * 8**0.5, rel=0.05)
    assert found.mean == pytest.approx(5 / found.spread)
    assert found.each == pytest.approx(found.mean)
    # Moves that cancel leave the mean where it was, and still count for each.
    signs = torch.tensor([1.0, -1.0]).repeat(200)[:, None]
    apart = shift(before, before + signs * step)
    assert apart is not None and apart.mean < 1e-6 and apart.each == pytest.approx(found.each)
    same = shift(before, before)
    assert same is not None and (same.mean, same.each) == (0, 0)
    scaled = shift(100 * before, 100 * (before + step))
    assert scaled is not None and scaled.mean == pytest.approx(found.mean, rel=1e-5)


def test_without_a_spread_there_is_no_shift() -> None:
    assert shift(torch.ones(1, 4), torch.ones(1, 4)) is None
    assert shift(torch.ones(5, 4), torch.zeros(5, 4)) is None


def test_states_that_are_not_finite_do_not_pass_for_states_without_a_spread() -> None:
    states, broken = torch.randn(5, 4), torch.full((5, 4), torch.nan)
    for before, after in ((states, broken), (broken, states)):
        found = shift(before, after)
        assert found is not None and not torch.isfinite(torch.tensor(found.mean))
