"""NSE's part of the equation: the most active neurons, and a metric that lives on them alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.algebra.moments import Metric


def most_active(keys: Tensor, share: float) -> Tensor:
    """The neurons that carry ``share`` of the keys' summed absolute activation, ascending; at least one, (s,).

    NSE (Jiang et al., ACL 2025, neuron-level selection): neurons are ranked by ``sum_j |k_nj|`` and taken from the top
    while their cumulative score stays within the share. The weights of a shared layer that other facts live in are
    not touched at all. The released configurations ship share 1, which selects every neuron.

    Args:
        keys: (d_in, n).
        share: above 0; 1 takes every neuron.
    """
    score = keys.double().abs().sum(1)
    order = score.argsort(descending=True, stable=True)
    cumulative = score[order].cumsum(0)
    if share >= 1:
        return torch.arange(len(score), device=keys.device)
    count = int((cumulative <= share * cumulative[-1]).sum())
    return order[: max(1, count)].sort().values


@dataclass(frozen=True)
class Restricted:
    """A metric on some neurons, nothing on the others: an update in its range has zero columns elsewhere."""

    neurons: Tensor
    """(s,), indices into d_in."""
    inner: Metric
    """On the chosen neurons, (s, s): for NSE ``C_SS^-1``."""

    @property
    def rank(self) -> int:
        """That of the inner metric: at most s."""
        return self.inner.rank

    def apply(self, columns: Tensor) -> Tensor:
        """``E A_SS E^T @ columns``, (d_in, n)."""
        at = self.neurons.to(columns.device)
        return torch.zeros_like(columns).index_copy_(0, at, self.inner.apply(columns[at]))
