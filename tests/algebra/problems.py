"""Random problems for the algebra: sizes, ranks, earlier keys and a corpus with a wide spectrum."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from unlearn.algebra.moments import Metric

EXACT = 1e-8
"""Relative, float64: the systems have condition numbers up to about 1e5."""
SINGLE = 1e-4
"""Relative, float32 in and out: keys that are rounded to 24 bits, in the same systems."""

sizes = st.tuples(
    st.integers(6, 40),  # d_in
    st.integers(2, 12),  # d_out
    st.integers(1, 5),  # n
    st.integers(0, 6),  # kept keys
    st.integers(0, 10_000),  # seed
)


class Problem(NamedTuple):
    keys: Tensor
    residuals: Tensor
    earlier: Tensor
    second: Tensor


def problem(size: tuple[int, ...]) -> Problem:
    """Keys of full rank unless there are more of them than dimensions; moments with a condition number below 1e4."""
    d_in, d_out, n, m, seed = size
    torch.manual_seed(seed)
    mix = torch.randn(d_in, d_in, dtype=torch.float64) * torch.logspace(0, -2, d_in, dtype=torch.float64)
    corpus = torch.randn(4 * d_in, d_in, dtype=torch.float64) @ mix.T
    second = corpus.T @ corpus / len(corpus)
    second += 1e-2 * second.diagonal().mean() * torch.eye(d_in, dtype=torch.float64)
    keys, residuals = torch.randn(d_in, n, dtype=torch.float64), torch.randn(d_out, n, dtype=torch.float64)
    return Problem(keys, residuals, torch.randn(d_in, m, dtype=torch.float64), second)


def distance(a: Tensor, b: Tensor) -> float:
    """Relative, in the Frobenius norm."""
    return float((a.double() - b).norm() / b.norm().clamp_min(1e-300))


def published_ridge(relative: float, keys: Tensor, metric: Metric) -> float:
    """The absolute number that a relative ridge stands for."""
    return relative * float((keys * metric.apply(keys)).sum(0).mean())
