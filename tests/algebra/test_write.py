"""The one equation against the published dense formulas, and by the property that each theorem promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests import reference
from unlearn.algebra.moments import Projector, Spectrum, Whitener
from unlearn.algebra.write import write

EXACT = 1e-8
"""Relative, float64: the systems have condition numbers up to about 1e6."""
sizes = st.tuples(
    st.integers(6, 40),  # d_in
    st.integers(2, 12),  # d_out
    st.integers(1, 5),  # n
    st.integers(0, 6),  # kept keys
    st.integers(0, 10_000),  # seed
)


def problem(size: tuple[int, int, int, int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_in, d_out, n, m, seed = size
    torch.manual_seed(seed)
    mix = torch.randn(d_in, d_in, dtype=torch.float64) * torch.logspace(0, -2, d_in, dtype=torch.float64)
    corpus = torch.randn(4 * d_in, d_in, dtype=torch.float64) @ mix.T
    second = corpus.T @ corpus / len(corpus)
    second += 1e-3 * second.diagonal().mean() * torch.eye(d_in, dtype=torch.float64)  # condition below 1e6
    keys, residuals = torch.randn(d_in, n, dtype=torch.float64), torch.randn(d_out, n, dtype=torch.float64)
    return keys, residuals, torch.randn(d_in, m, dtype=torch.float64), second


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-300))


def published_ridge(relative: float, keys: Tensor, metric: Projector | Whitener) -> float:
    """The absolute number that a relative ridge stands for."""
    return relative * float((keys * metric.apply(keys)).sum(0).mean())


@settings(max_examples=60, deadline=None)
@given(size=sizes, ridge=st.floats(1e-3, 10), share=st.floats(0.2, 0.99))
def test_alphaedit_is_the_published_system(size: tuple[int, ...], ridge: float, share: float) -> None:
    keys, residuals, earlier, second = problem(size)  # type: ignore[arg-type]
    spectrum = Spectrum.of(second)
    kept = min(spectrum.kept_by_energy(share), len(second) - 1)
    metric = Projector.null_space(spectrum, kept)
    delta = write(keys, residuals, metric, ridge, earlier).dense()
    dense = reference.projector(second, kept)
    l2 = published_ridge(ridge, keys, metric)
    assert distance(delta, reference.alphaedit(keys, residuals, dense, l2, earlier)) < EXACT
    single = write(keys.float(), residuals.float(), metric, ridge, earlier.float()).dense().double()
    assert distance(single, delta) < 1e-4
    if earlier.shape[1]:  # the control: without the earlier keys it is another update
        assert distance(write(keys, residuals, metric, ridge).dense(), delta) > 1e-6


@settings(max_examples=60, deadline=None)
@given(size=sizes, ridge=st.floats(1e-2, 10))
def test_the_inverse_metric_is_memit(size: tuple[int, ...], ridge: float) -> None:
    keys, residuals, earlier, second = problem(size)  # type: ignore[arg-type]
    metric = Whitener(Spectrum.of(second), floor=0.0)
    delta = write(keys, residuals, metric, ridge, earlier).dense()
    weight = published_ridge(ridge, keys, metric)
    assert distance(delta, reference.memit(keys, residuals, second, weight, earlier)) < 1e-6
    assert distance(reference.memit(keys, residuals, second, 2 * weight, earlier), delta) > 1e-6


@settings(max_examples=60, deadline=None)
@given(size=sizes)
def test_one_key_without_ridge_is_rome_and_meets_its_constraint(size: tuple[int, ...]) -> None:
    keys, residuals, _, second = problem(size)  # type: ignore[arg-type]
    key, residual = keys[:, :1], residuals[:, :1]
    delta = write(key, residual, Whitener(Spectrum.of(second), floor=0.0), 0.0).dense()
    assert distance(delta, reference.rome(key[:, 0], residual[:, 0], second)) < 1e-6
    assert distance(delta @ key, residual) < EXACT
    assert distance(delta @ -key, residual) > 1  # the control: another key is not met


@settings(max_examples=40, deadline=None)
@given(size=sizes, ridge=st.floats(0, 1))
def test_kept_directions_are_left_alone(size: tuple[int, ...], ridge: float) -> None:
    keys, residuals, _, second = problem(size)  # type: ignore[arg-type]
    spectrum = Spectrum.of(second)
    kept = max(1, len(second) // 3)
    delta = write(keys, residuals, Projector.null_space(spectrum, kept), ridge).dense()
    leading = spectrum.vectors[:, :kept]
    assert float((delta @ leading).norm() / delta.norm()) < EXACT
    unprotected = write(keys, residuals, Whitener(spectrum), max(ridge, 0.1)).dense()  # the control
    assert float((unprotected @ leading).norm() / unprotected.norm()) > 1e-6


@settings(max_examples=40, deadline=None)
@given(size=sizes, order=st.randoms(use_true_random=False))
def test_the_order_of_requests_does_not_matter(size: tuple[int, ...], order: object) -> None:
    keys, residuals, earlier, second = problem(size)  # type: ignore[arg-type]
    metric = Projector.null_space(Spectrum.of(second), len(second) // 3)
    shuffled = list(range(keys.shape[1]))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    one = write(keys, residuals, metric, 0.1, earlier).dense()
    assert (
        distance(write(keys[:, shuffled], residuals[:, shuffled], metric, 0.1, earlier).dense(), one) < EXACT
    )
    if shuffled != sorted(shuffled):  # the control: residuals that no longer belong to their keys
        assert distance(write(keys[:, shuffled], residuals, metric, 0.1, earlier).dense(), one) > 1e-6


def test_zero_residuals_write_nothing() -> None:
    keys, residuals, earlier, second = problem((20, 5, 3, 4, 0))
    metric = Projector.null_space(Spectrum.of(second), 6)
    assert not write(keys, torch.zeros_like(residuals), metric, 0.1, earlier).dense().any()
    assert write(keys, residuals, metric, 0.1, earlier).dense().any()


def test_ridge_to_zero_approaches_equality_and_kept_keys_stay() -> None:
    keys, residuals, earlier, second = problem((30, 5, 3, 4, 1))
    metric = Projector.null_space(Spectrum.of(second), 6)
    misses = [
        distance(write(keys, residuals, metric, r, earlier).dense() @ keys, residuals)
        for r in (1, 1e-2, 1e-4, 0)
    ]
    assert misses == sorted(misses, reverse=True) and misses[-1] < EXACT < misses[0]
    kept = write(keys, residuals, metric, 0.0, earlier).dense() @ earlier
    assert float(kept.norm()) < EXACT
    assert float((write(keys, residuals, metric, 0.0).dense() @ earlier).norm()) > 1e-3


def test_two_requests_with_one_key_get_the_least_squares_compromise() -> None:
    keys, residuals, _, second = problem((20, 5, 1, 0, 2))
    twice, both = torch.cat([keys, keys], 1), torch.cat([residuals, -residuals / 2], 1)
    delta = write(twice, both, Projector.null_space(Spectrum.of(second), 5), 0.0).dense()
    assert distance(delta @ keys, residuals / 4) < EXACT


def test_a_patch_of_n_requests_has_rank_n() -> None:
    keys, residuals, earlier, second = problem((40, 12, 4, 6, 3))
    delta = write(keys, residuals, Projector.null_space(Spectrum.of(second), 10), 0.1, earlier)
    assert delta.rank == 4 and int(torch.linalg.matrix_rank(delta.dense())) == 4
    assert abs(delta.norm() - float(delta.dense().norm())) < 1e-9 * delta.norm()


def test_keys_and_residuals_must_match() -> None:
    keys, residuals, _, second = problem((10, 4, 3, 0, 4))
    with pytest.raises(ValueError, match="3 keys but 2 residuals"):
        write(keys, residuals[:, :2], Whitener(Spectrum.of(second)), 0.1)
