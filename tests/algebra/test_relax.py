"""AlphaEdit+: the null space that gives way is the dense greedy search, and the weights are the published ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tests.algebra.problems import EXACT, SINGLE, distance, problem, published_ridge, sizes
from unlearn.algebra.moments import Projector, Spectrum
from unlearn.algebra.relax import losses, relaxed
from unlearn.algebra.write import write, yielding


@settings(max_examples=25, deadline=None)
@given(
    size=sizes,
    ridge=st.floats(1e-2, 3),
    least=st.floats(0.3, 3),
    step=st.integers(1, 4),
    beta=st.floats(0.5, 100),
)
def test_it_is_the_published_search(
    size: tuple[int, ...], ridge: float, least: float, step: int, beta: float
) -> None:
    keys, residuals, earlier, second = problem(size)
    spectrum, kept = Spectrum.of(second), len(second) // 2
    base = Projector.null_space(spectrum, kept)
    l2 = published_ridge(ridge, keys, base)
    yielded = (beta * yielding(earlier, keys)).sqrt() * earlier
    metric = relaxed(keys, residuals, spectrum, kept, l2, least, yielded, step)
    delta = write(keys, residuals, metric, l2, yielded, absolute=True).dense()
    dense, left = reference.alphaedit_plus(keys, residuals, second, kept, l2, least, step, earlier, beta)
    assert metric.rank == len(second) - left
    assert distance(delta, dense) < EXACT
    single = write(keys.float(), residuals.float(), metric, l2, yielded.float(), absolute=True).dense()
    assert distance(single, delta) < SINGLE
    if left < kept:  # the control: without the relaxation it is another update, with a larger loss
        strict = write(keys, residuals, base, l2, yielded, absolute=True).dense()
        assert distance(strict, delta) > 1e-6
    if earlier.shape[1]:  # the control: without the weights as well
        assert distance(write(keys, residuals, metric, l2, earlier, absolute=True).dense(), delta) > 1e-9


@settings(max_examples=15, deadline=None)
@given(size=sizes, ridge=st.floats(1e-2, 3))
def test_the_losses_are_those_of_the_updates(size: tuple[int, ...], ridge: float) -> None:
    keys, residuals, earlier, second = problem(size)
    spectrum, weights = Spectrum.of(second), yielding(earlier, keys)
    yielded = weights.sqrt() * earlier
    found = losses(keys, residuals, spectrum, ridge, yielded)
    assert len(found) == len(second) + 1
    for free in range(len(second) + 1):
        metric = Projector.null_space(spectrum, len(second) - free)
        delta = write(keys, residuals, metric, ridge, yielded, absolute=True).dense()
        error = (delta @ keys - residuals).square().sum() + (
            weights * (delta @ earlier).square().sum(0)
        ).sum()
        direct = float(error + ridge * delta.square().sum())
        assert float(found[free]) == pytest.approx(direct, rel=1e-8)
    if earlier.shape[1]:  # the control: without the kept keys an update costs less
        assert float(losses(keys, residuals, spectrum, ridge)[-1]) < float(found[-1])


def test_it_gives_way_as_far_as_it_pays_and_needs_a_ridge() -> None:
    torch.manual_seed(0)
    second = torch.diag(torch.logspace(2, -2, 20, dtype=torch.float64))
    spectrum = Spectrum.of(second)
    inside, outside = (torch.zeros(20, 1, dtype=torch.float64) for _ in range(2))
    inside[15], outside[8] = 1.0, 1.0  # ten directions are kept: the second key lies in one of them
    residuals = torch.randn(3, 1, dtype=torch.float64)
    assert relaxed(inside, residuals, spectrum, 10, 0.1, 1.0).rank == 10
    both = torch.cat([inside, outside], 1)
    twice = torch.cat([residuals, residuals], 1)
    assert relaxed(both, twice, spectrum, 10, 0.1, 1.0, step=2).rank == 12
    assert (
        relaxed(both, twice, spectrum, 10, 0.1, 1.0, step=1).rank == 10
    )  # the first step alone gains nothing
    assert relaxed(both, torch.zeros_like(twice), spectrum, 10, 0.1, 1.0).rank == 10
    with pytest.raises(ValueError, match="ridge above 0"):
        relaxed(both, twice, spectrum, 10, 0.0, 1.0)
