"""Second moments of keys over a corpus, and the metrics that are made of them.

``C = E[k k^T]`` (d_in, d_in), not centred, over every token of a corpus. Its eigenvectors with small eigenvalues
span the directions that the corpus hardly uses: the *null space*, where an update does not disturb it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Metric(Protocol):
    """The symmetric positive semi-definite ``A`` (d_in, d_in) of the one equation, known by what it does to columns."""

    @property
    def rank(self) -> int:
        """Dimension of its range: the directions in which an update may write."""

    def apply(self, columns: Tensor) -> Tensor:
        """``A @ columns``, (d_in, n)."""


FEWEST = 256
"""Rows whose product is summed in float32, at least."""


class Moments:
    """Running sum of ``k k^T``: products of some rows in float32, their sum in float64."""

    def __init__(self, d_in: int, device: torch.device | str = "cpu") -> None:
        """Start with nothing seen; the sum lies on the device, (d_in, d_in)."""
        self.total = torch.zeros(d_in, d_in, dtype=torch.float64, device=device)
        self.count = 0

    @classmethod
    def of(cls, total: Tensor, count: int) -> Moments:
        """From a sum over so many keys, (d_in, d_in) float64, which is not copied."""
        made = cls(0)
        made.total, made.count = total, count
        return made

    def update(self, keys: Tensor) -> Moments:
        """Add keys, one row per token: (tokens, d_in)."""
        rows = keys.float() if keys.dtype in (torch.bfloat16, torch.float16) else keys
        # Narrow products are added up one row after another: no more rows than columns, so that nothing is lost, and
        # the sum still costs little beside the products.
        for piece in rows.split(max(FEWEST, rows.shape[1])):
            self.total += (piece.T @ piece).to(self.total)
        self.count += rows.shape[0]
        return self

    @property
    def second(self) -> Tensor:
        """``C`` = sum / count, (d_in, d_in), float64.

        Raises:
            ValueError: nothing was seen.
        """
        if not self.count:
            raise ValueError("no keys were seen: the corpus is empty")
        return self.total / self.count


@dataclass(frozen=True)
class Spectrum:
    """Eigen-decomposition of ``C``: ``C = vectors diag(values) vectors^T``, largest first, float64."""

    values: Tensor
    """(d_in,), descending, not negative."""
    vectors: Tensor
    """(d_in, d_in), one eigenvector per column."""

    @classmethod
    def of(cls, second: Tensor) -> Spectrum:
        """Decompose a symmetric positive semi-definite matrix (d_in, d_in)."""
        values, vectors = torch.linalg.eigh((second + second.T) / 2)
        return cls(values.flip(0).clamp_min(0), vectors.flip(1))

    def kept_by_energy(self, share: float) -> int:
        """Number of leading directions that carry ``share`` of the trace: a rule that no scale changes."""
        energy = self.values.cumsum(0) / self.values.sum().clamp_min(torch.finfo(torch.float64).tiny)
        return int((energy < share).sum().item()) + 1 if share < 1 else len(self.values)

    def kept_by_threshold(self, threshold: float) -> int:
        """Number of directions with an eigenvalue of at least ``threshold``: the published, absolute rule (2e-2)."""
        return int((self.values >= threshold).sum())


@dataclass(frozen=True)
class Projector:
    """``P``, the orthogonal projector on the null space of ``C``, kept as a basis."""

    basis: Tensor
    """Orthonormal columns: the null space itself, or its complement, whichever has fewer."""
    complement: bool
    """Whether ``basis`` spans what ``P`` removes."""

    @classmethod
    def null_space(cls, spectrum: Spectrum, kept: int) -> Projector:
        """Remove the ``kept`` leading directions of ``C`` (AlphaEdit, section 3: ``P = U0 U0^T``)."""
        d_in = len(spectrum.values)
        if kept <= d_in - kept:
            return cls(spectrum.vectors[:, :kept], complement=True)
        return cls(spectrum.vectors[:, kept:], complement=False)

    @property
    def rank(self) -> int:
        """Dimension of the null space."""
        return self.basis.shape[0] - self.basis.shape[1] if self.complement else self.basis.shape[1]

    def apply(self, columns: Tensor) -> Tensor:
        """``P @ columns``, (d_in, n)."""
        basis = self.basis.to(columns)
        inside = basis @ (basis.T @ columns)
        return columns - inside if self.complement else inside


@dataclass(frozen=True)
class Whitener:
    """``(C + shift I)^-1``, the metric of ROME and MEMIT, with eigenvalues floored at a share of their mean."""

    spectrum: Spectrum
    floor: float = 1e-6
    """Relative to the mean eigenvalue: directions that the corpus never used would otherwise weigh infinitely."""
    shift: float = 0.0
    """Relative to the mean eigenvalue: penalises the update's own length (ENCORE: ``lambda C + lambda_n I``)."""

    @property
    def rank(self) -> int:
        """d_in: nothing is left out."""
        return len(self.spectrum.values)

    def apply(self, columns: Tensor) -> Tensor:
        """``(C + shift I)^-1 @ columns``, (d_in, n)."""
        vectors, mean = self.spectrum.vectors.to(columns), float(self.spectrum.values.mean())
        values = (self.spectrum.values.clamp_min(self.floor * mean) + self.shift * mean).to(columns)
        return vectors @ ((vectors.T @ columns) / values[:, None])


def energy(second: Tensor, matrix: Tensor) -> float:
    """``tr(M C M^T)``: mean squared norm of ``M k`` over the corpus. ``M`` is (d_out, d_in)."""
    wide = matrix.to(second)
    return float(((wide @ second) * wide).sum().clamp_min(0))  # which rounding may miss by a little


def leakage(second: Tensor, delta: Tensor, weight: Tensor) -> float:
    """``sqrt(tr(D C D^T) / tr(W C W^T))``: how far the update moves the corpus, relative to the weight's own output."""
    return float((energy(second, delta) / energy(second, weight)) ** 0.5)
