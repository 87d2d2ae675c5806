"""An update as its factors: what every editor returns, and all that a patch stores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def growth(weight: Tensor, after: Tensor) -> float:
    """``|after| / |W| - 1`` (Frobenius), float64; infinite where W alone is zero."""
    long = torch.float64
    old, new = (float(torch.linalg.vector_norm(one, dtype=long)) for one in (weight, after))
    return new / old - 1 if old else (math.inf if new else 0.0)


@dataclass(frozen=True)
class LowRank:
    """``left @ right``, float32."""

    left: Tensor
    """(d_out, n)."""
    right: Tensor
    """(n, d_in)."""

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """Number of columns n: an upper bound of the rank."""
        return self.left.shape[1]

    def dense(self) -> Tensor:
        """The update itself, (d_out, d_in)."""
        return self.left @ self.right

    def norm(self) -> float:
        """Frobenius norm, from the n x n Gram matrices: nothing of the weight's size is formed."""
        left, right = self.left.double(), self.right.double()
        return float(((left.T @ left) * (right @ right.T)).sum().clamp_min(0).sqrt())

    def growth(self, weight: Tensor) -> float:
        """How much longer it makes a weight W, (d_out, d_in), to whose device it is brought: ``growth``."""
        return growth(weight, weight.float() + self.dense().to(weight.device))

    def plus(self, other: LowRank) -> LowRank:
        """The sum of two updates of one weight; never more columns than the weight has rows."""
        both = LowRank(torch.cat([self.left, other.left], 1), torch.cat([self.right, other.right], 0))
        return both if both.rank <= self.shape[0] else both.compact()

    def compact(self) -> LowRank:
        """The same update with d_out columns: many batches on one weight would otherwise outgrow the weight."""
        dense = self.left.double() @ self.right.double()
        identity = torch.eye(self.shape[0], dtype=self.left.dtype, device=self.left.device)
        return LowRank(identity, dense.to(self.right.dtype))
