"""The selective gradient against dense projectors, and what it does to the components."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tests.algebra.problems import EXACT, distance
from unlearn.algebra.damping import damped


def gradient(rows: int, columns: int, rank: int) -> torch.Tensor:
    torch.manual_seed(rows * columns + rank)
    spread = torch.logspace(1, -1, rank, dtype=torch.float64)
    left, right = (
        torch.randn(rows, rank, dtype=torch.float64),
        torch.randn(rank, columns, dtype=torch.float64),
    )
    return left * spread @ right


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(3, 12), columns=st.integers(3, 12), data=st.data())
def test_it_is_a_dense_projector_on_both_sides(rows: int, columns: int, data: st.DataObject) -> None:
    whole = gradient(rows, columns, min(rows, columns))
    count = data.draw(st.integers(1, min(rows, columns)))
    got = damped(whole, count)
    assert distance(got, reference.rep_select(whole, count)) < EXACT
    assert damped(whole.float(), count).dtype == torch.float32
    if count == 1:  # alone, the last component is as long as itself
        assert distance(got, whole) < EXACT
    else:  # the control
        assert distance(got, whole) > 1e-3


def test_the_longest_components_become_the_shortest_and_the_others_stay() -> None:
    whole = gradient(9, 7, 7)
    left, values, right = torch.linalg.svd(whole, full_matrices=False)
    after = left.T @ damped(whole, 4) @ right.T
    torch.testing.assert_close(after.diagonal()[:4], values[3] ** 2 / values[:4])
    torch.testing.assert_close(after.diagonal()[4:], values[4:])
    assert (after - after.diagonal().diag()).abs().max() < 1e-8


def test_components_that_a_gradient_does_not_have_are_not_damped_to_nothing() -> None:
    low = gradient(8, 8, 2)
    assert distance(damped(low, 6), damped(low, 2)) < EXACT
    assert float(damped(low, 6).norm()) > 0 and not damped(torch.zeros(3, 4), 2).any()
