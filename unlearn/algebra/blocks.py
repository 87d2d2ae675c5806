"""Second moments without what is between experts: one block per expert, since all together they would fill no memory.

A key of a mixture of experts is ``[g_1 k_1; ...; g_E k_E]``, with at most s blocks that are not zero. Of ``C =
E[k k^T]`` only the diagonal blocks ``C_e = E[g_e^2 k_e k_e^T]`` are kept: ``E w^2`` numbers in place of ``(E w)^2``.
With ``D`` the matrix that has these blocks and zeros elsewhere, it holds for every update ``delta = [delta_1 ...
delta_E]`` that

    tr(delta C delta^T)  <=  s tr(delta D delta^T)

(Cauchy and Schwarz: ``|sum_e delta_e g_e k_e|^2 <= s sum_e |delta_e g_e k_e|^2``, with s terms). So what leaves alone
what ``D`` knows leaves alone what ``C`` knows, and the null space of ``D`` lies within that of ``C``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from unlearn.algebra.moments import Directions, Metric, Ordered, Projector, Spectrum, Whitener


@dataclass(frozen=True)
class Blockwise:
    """A metric of independent blocks of a key, one behind the other."""

    blocks: tuple[Metric, ...]

    @property
    def rank(self) -> int:
        """The sum over the blocks."""
        return sum(block.rank for block in self.blocks)

    def apply(self, columns: Tensor) -> Tensor:
        """Each block on its own rows of the columns, (d_in, n)."""
        parts = columns.chunk(len(self.blocks))
        return torch.cat([block.apply(part) for block, part in zip(self.blocks, parts, strict=True)])


@dataclass(frozen=True)
class BlockSpectrum(Ordered):
    """Eigen-decomposition of a ``C`` of blocks; directions are ordered over all blocks together."""

    blocks: tuple[Spectrum, ...]
    values: Tensor = field(init=False)
    """(E w,), descending, not negative."""

    def __post_init__(self) -> None:
        every = torch.cat([block.values for block in self.blocks])
        object.__setattr__(self, "values", every.sort(descending=True).values)

    @classmethod
    def of(cls, seconds: Tensor) -> BlockSpectrum:
        """Decompose symmetric positive semi-definite blocks, (E, w, w)."""
        return cls(tuple(Spectrum.of(second) for second in seconds))

    def null_space(self, kept: int) -> Metric:
        """``P`` without the ``kept`` leading directions of all blocks together."""
        counted = zip(self.blocks, self._counts(kept), strict=True)
        return Blockwise(tuple(Projector.null_space(block, count) for block, count in counted))

    def unused(self, kept: int) -> Directions:
        """The directions of that null space."""
        counted = zip(self.blocks, self._counts(kept), strict=True)
        return Directions(tuple(block.vectors[:, count:] for block, count in counted))

    def whitened(self, shift: float = 0.0) -> Metric:
        """``(C + shift I)^-1``; floor and shift are relative to the mean over all blocks."""
        mean = float(self.values.mean())
        return Blockwise(tuple(Whitener(block, shift=shift, mean=mean) for block in self.blocks))

    def _counts(self, kept: int) -> list[int]:
        """How many of the leading directions each block has."""
        values = torch.stack([block.values for block in self.blocks])  # (E, w)
        leading = values.flatten().argsort(descending=True, stable=True)[:kept]
        found: list[int] = torch.bincount(leading // values.shape[1], minlength=len(self.blocks)).tolist()
        return found


AnySpectrum: TypeAlias = Spectrum | BlockSpectrum
"""Of one matrix, or of one per expert."""


def spectrum_of(second: Tensor) -> AnySpectrum:
    """Decompose ``C``, (d_in, d_in), or its blocks, (E, w, w)."""
    return Spectrum.of(second) if second.dim() == 2 else BlockSpectrum.of(second)
