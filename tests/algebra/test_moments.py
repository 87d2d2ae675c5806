"""Streaming moments equal the batch; the rules for the null space do not depend on scale, the published one does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from unlearn.algebra.moments import Moments, Projector, Spectrum, Whitener, leakage


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 1000))
def test_streaming_equals_one_batch(d_in: int, sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    batches = [torch.randn(size, d_in, dtype=torch.float64) for size in sizes]
    moments = Moments(d_in)
    for batch in batches:
        moments.update(batch)
    everything = torch.cat(batches)
    torch.testing.assert_close(
        moments.second, everything.T @ everything / len(everything), rtol=1e-12, atol=1e-12
    )
    assert moments.count == sum(sizes)


def test_low_precision_keys_are_summed_in_float64() -> None:
    torch.manual_seed(0)
    keys = torch.randn(4096, 8).bfloat16()
    moments = Moments(8)
    for _ in range(50):
        moments.update(keys)
    exact = keys.double().T @ keys.double() / len(keys)
    assert float((moments.second - exact).norm() / exact.norm()) < 1e-6
    naive = sum((keys.T @ keys for _ in range(50)), torch.zeros(8, 8).bfloat16()) / (50 * len(keys))
    assert float((naive.double() - exact).norm() / exact.norm()) > 1e-3


def test_nothing_seen_is_an_error() -> None:
    with pytest.raises(ValueError, match="no keys"):
        _ = Moments(4).second


def test_the_relative_rule_ignores_scale_and_the_published_one_does_not() -> None:
    torch.manual_seed(1)
    keys = torch.randn(500, 32, dtype=torch.float64) * torch.logspace(0, -2, 32, dtype=torch.float64)
    one, other = (Spectrum.of(k.T @ k / len(k)) for k in (keys, 100 * keys))
    assert one.kept_by_energy(0.9) == other.kept_by_energy(0.9)
    assert one.kept_by_threshold(2e-2) < other.kept_by_threshold(2e-2) == 32
    assert one.kept_by_energy(1.0) == 32 and one.kept_by_energy(1e-9) == 1


@pytest.mark.parametrize("kept", [1, 7, 12, 19])
def test_either_basis_is_the_dense_projector(kept: int) -> None:
    torch.manual_seed(2)
    keys = torch.randn(100, 20, dtype=torch.float64)
    second = keys.T @ keys / 100
    projector = Projector.null_space(Spectrum.of(second), kept)
    columns = torch.randn(20, 5, dtype=torch.float64)
    torch.testing.assert_close(projector.apply(columns), reference.projector(second, kept) @ columns)
    assert projector.rank == 20 - kept
    assert projector.basis.shape[1] == min(kept, 20 - kept)


def test_the_whitener_floors_unused_directions() -> None:
    second = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    got = Whitener(Spectrum.of(second), floor=1e-3).apply(torch.eye(3, dtype=torch.float64)).diagonal()
    assert sorted(got.tolist()) == pytest.approx([1.0, 1.0, 1.5e3])


def test_leakage_is_zero_in_the_null_space_and_one_for_the_weight_itself() -> None:
    torch.manual_seed(3)
    second = torch.diag(torch.tensor([4.0, 2.0, 0.0, 0.0], dtype=torch.float64))
    weight = torch.randn(3, 4, dtype=torch.float64)
    hidden = weight.clone()
    hidden[:, :2] = 0
    assert leakage(second, hidden, weight) == 0
    assert leakage(second, weight, weight) == pytest.approx(1)


def test_leakage_is_a_number_where_rounding_makes_an_energy_negative() -> None:
    """One key that the corpus repeats, and updates that miss it by no more than rounding."""
    torch.manual_seed(4)
    key = torch.randn(64, 1, dtype=torch.float64)
    second, weight = key @ key.T, torch.randn(8, 64, dtype=torch.float64)
    missing = torch.eye(64, dtype=torch.float64) - second / key.square().sum()
    deltas = [torch.randn(8, 64, dtype=torch.float64) @ missing for _ in range(20)]
    assert any(float(((delta @ second) * delta).sum()) < 0 for delta in deltas)
    assert all(0 <= leakage(second, delta, weight) < 1e-6 for delta in deltas)
    assert math.isnan(leakage(second, deltas[0] * math.nan, weight))
