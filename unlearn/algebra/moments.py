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

    def __init__(self, d_in: int, device: torch.device | str = "cpu", blocks: int = 1) -> None:
        """Start with nothing seen; the sum lies on the device.

        Args:
            d_in: length of a key.
            blocks: of how many blocks, one per expert, a key consists. With several, products within each alone are
                summed: (blocks, d_in / blocks, d_in / blocks) in place of (d_in, d_in).
        """
        width = d_in // blocks
        shape = (width, width) if blocks == 1 else (blocks, width, width)
        self.total = torch.zeros(shape, dtype=torch.float64, device=device)
        self.count = 0

    @classmethod
    def of(cls, total: Tensor, count: int) -> Moments:
        """From a sum over so many keys, float64, which is not copied."""
        made = cls(0)
        made.total, made.count = total, count
        return made

    def update(self, keys: Tensor) -> Moments:
        """Add keys, one row per token: (tokens, d_in)."""
        rows = keys.float() if keys.dtype in (torch.bfloat16, torch.float16) else keys
        if self.total.dim() == 2:
            _add(self.total, rows)
        else:
            for total, part in zip(self.total, rows.chunk(len(self.total), 1), strict=True):
                _add(total, part[part.any(1)])  # an expert sees few tokens
        self.count += rows.shape[0]
        return self

    @property
    def second(self) -> Tensor:
        """``C`` = sum / count, (d_in, d_in) or its blocks, float64.

        Raises:
            ValueError: nothing was seen.
        """
        if not self.count:
            raise ValueError("no keys were seen: the corpus is empty")
        return self.total / self.count


def _add(total: Tensor, rows: Tensor) -> None:
    """Add the products of rows, (tokens, d_in), to a sum, (d_in, d_in)."""
    # Narrow products are added up one row after another: no more rows than columns, so that nothing is lost, and
    # the sum still costs little beside the products.
    for piece in rows.split(max(FEWEST, rows.shape[1])):
        total += (piece.T @ piece).to(total)


@dataclass(frozen=True)
class Directions:
    """Orthonormal directions of the keys, of each block of a key by itself; there is one block but for experts."""

    blocks: tuple[Tensor, ...]
    """Per block (its width, its directions), a direction per column."""

    @property
    def rank(self) -> int:
        """How many directions there are."""
        return sum(block.shape[1] for block in self.blocks)

    def inside(self, rows: Tensor) -> Tensor:
        """The coordinates of rows, (n, d_in): (n, rank)."""
        parts = rows.chunk(len(self.blocks), 1)
        return torch.cat([part @ block for part, block in zip(parts, self.blocks, strict=True)], 1)

    def outside(self, coordinates: Tensor) -> Tensor:
        """The rows that have some coordinates, (n, rank): (n, d_in)."""
        parts = coordinates.split([block.shape[1] for block in self.blocks], 1)
        return torch.cat([part @ block.T for part, block in zip(parts, self.blocks, strict=True)], 1)

    def orthogonal_to(self, keys: Tensor) -> Directions:
        """Those among them to which each block of some keys, (d_in, n), is orthogonal."""
        parts = keys.chunk(len(self.blocks))
        return Directions(tuple(_apart(block, part) for block, part in zip(self.blocks, parts, strict=True)))

    def to(self, device: torch.device) -> Directions:
        """The same on a device, float32."""
        return Directions(tuple(block.float().to(device) for block in self.blocks))


def _apart(basis: Tensor, keys: Tensor) -> Tensor:
    """Directions within the span of a basis, (d_in, r), that are orthogonal to keys, (d_in, n)."""
    used = basis.T @ keys[:, keys.any(0)].to(basis)  # (r, n): what an expert was not given asks nothing of it
    free: Tensor = torch.linalg.qr(used, mode="complete")[0][:, used.shape[1] :]
    return basis @ free


class Ordered:
    """The directions of ``C``, from the most to the least used."""

    values: Tensor
    """(d_in,), eigenvalues, descending, not negative."""

    def kept_by_energy(self, share: float) -> int:
        """Number of leading directions that carry ``share`` of the trace: a rule that no scale changes."""
        energy = self.values.cumsum(0) / self.values.sum().clamp_min(torch.finfo(torch.float64).tiny)
        return int((energy < share).sum().item()) + 1 if share < 1 else len(self.values)

    def kept_by_threshold(self, threshold: float) -> int:
        """Number of directions with an eigenvalue of at least ``threshold``: the published, absolute rule (2e-2)."""
        return int((self.values >= threshold).sum())


@dataclass(frozen=True)
class Spectrum(Ordered):
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

    def null_space(self, kept: int) -> Metric:
        """``P`` without the ``kept`` leading directions."""
        return Projector.null_space(self, kept)

    def unused(self, kept: int) -> Directions:
        """The directions of that null space."""
        return Directions((self.vectors[:, kept:],))

    def whitened(self, shift: float = 0.0) -> Metric:
        """``(C + shift I)^-1``; the shift is relative to the mean eigenvalue."""
        return Whitener(self, shift=shift)


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
    mean: float | None = None
    """What the mean eigenvalue is taken to be; by default that of this spectrum."""

    @property
    def rank(self) -> int:
        """d_in: nothing is left out."""
        return len(self.spectrum.values)

    def apply(self, columns: Tensor) -> Tensor:
        """``(C + shift I)^-1 @ columns``, (d_in, n)."""
        vectors = self.spectrum.vectors.to(columns)
        mean = float(self.spectrum.values.mean()) if self.mean is None else self.mean
        values = (self.spectrum.values.clamp_min(self.floor * mean) + self.shift * mean).to(columns)
        return vectors @ ((vectors.T @ columns) / values[:, None])


def energy(second: Tensor, matrix: Tensor) -> float:
    """``tr(M C M^T)``: mean squared norm of ``M k`` over the corpus. ``M`` is (d_out, d_in).

    Of a ``C`` of blocks, (E, w, w), it is the sum of what the experts put out, each by itself.
    """
    wide = matrix.to(second)
    if second.dim() == 3:
        wide = wide.unflatten(1, (len(second), -1)).movedim(1, 0)  # (E, d_out, w)
    return float(((wide @ second) * wide).sum().clamp_min(0))  # which rounding may miss by a little


def leakage(second: Tensor, delta: Tensor, weight: Tensor) -> float:
    """``sqrt(tr(D C D^T) / tr(W C W^T))``: how far the update moves the corpus, relative to the weight's own output."""
    return float((energy(second, delta) / energy(second, weight)) ** 0.5)
