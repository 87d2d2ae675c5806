"""Features normalised by everything seen so far, and the targets that UltraEdit makes of them (Gu et al., 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STEADY = 1e-6
"""A feature that varies by no more than this share of its mean only varies by rounding."""


@dataclass(frozen=True)
class Running:
    """Statistics of the columns seen so far; batch after batch gives what all columns at once give."""

    count: int
    mean: Tensor
    """(features,), float64."""
    deviations: Tensor
    """(features,), float64: summed squared deviations from the mean."""

    @classmethod
    def nothing(cls, features: int, device: torch.device | str = "cpu") -> Running:
        """Before anything was seen."""
        zero = torch.zeros(features, dtype=torch.float64, device=device)
        return cls(0, zero, zero)

    @classmethod
    def read(cls, rows: Tensor) -> Running:
        """As ``rows`` wrote it."""
        count, mean, deviations = rows.double()
        return cls(round(float(count[0])), mean, deviations)

    def rows(self) -> Tensor:
        """As a tensor for a file: count, mean, deviations, (3, features), float32."""
        return torch.stack([torch.full_like(self.mean, self.count), self.mean, self.deviations]).float()

    def plus(self, columns: Tensor) -> Running:
        """With some more columns, (features, n), at least one (the merge of Chan, Golub and LeVeque, 1979)."""
        more, new = columns.shape[1], columns.double()
        count, mean = self.count + more, new.mean(1)
        apart = mean - self.mean
        deviations = self.deviations + (new - mean[:, None]).square().sum(1)
        return Running(
            count,
            self.mean + apart * more / count,
            deviations + apart.square() * self.count * more / count,
        )

    def normalised(self, columns: Tensor) -> Tensor:
        """Columns (features, n) less the mean, in standard deviations; 0 where nothing varied; float64."""
        spread = (self.deviations / max(self.count - 1, 1)).sqrt()
        varied = spread > STEADY * self.mean.abs()
        scale = torch.where(varied, 1 / spread, 0.0)
        return (columns.double() - self.mean[:, None]) * scale[:, None]


def descent(keys: Tensor, gradients: Tensor, running: Running) -> Tensor:
    """Where the outputs are to move: ``-|k^|^2 g^`` for normalised keys and gradients, (d_out, n), float64.

    Args:
        keys: (d_in, n).
        gradients: (d_out, n), of the loss by the outputs at the same tokens.
        running: of both, one above the other.
    """
    found = running.normalised(torch.cat([keys, gradients]))
    return -found[: len(keys)].square().sum(0) * found[len(keys) :]
