"""How values are optimised: Adam on all vectors at once, each request until it has converged."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unlearn.edit.settings import Values

PARTS = 4
"""The kept rows of a request are split into so many parts, one per step: they outnumber the rows to be written."""


class Now(NamedTuple):
    """What one step measured, per request."""

    worst: Tensor
    """The worst NLL of its forms, (requests,)."""
    drift: Tensor
    """The summed KL of the kept rows that were read, (requests,)."""

    @classmethod
    def nothing(cls, like: Tensor) -> Now:
        """Before anything was measured."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))


class Losses:
    """Per request what was last measured of it: of its forms, and of each part of its kept rows, which take turns."""

    def __init__(self, counts: Tensor) -> None:
        """Begin with nothing measured.

        Args:
            counts: rows per part and request, (PARTS + 1, requests); the last row counts those to be written.
        """
        self.counts = counts
        self.filled = (
            counts[:PARTS] > 0
        )  # (PARTS, requests): a request with few kept rows has none in some parts
        self.parts = self.filled.sum(0).clamp_min(1)
        self.worst = torch.zeros_like(counts[-1])
        self.drift = torch.zeros_like(counts[:PARTS])
        # What a request's last part with rows drifted; one whose rows were not read yet has not converged.
        self.latest = torch.where(self.filled.any(0), torch.inf, self.worst)

    def rows(self, part: int | None) -> Tensor:
        """By how many rows a row's loss is divided, (requests,): of its part, or of those to be written."""
        return self.counts[-1] if part is None else self.counts[part] * self.parts / PARTS

    def note(self, part: int, active: Tensor, now: Now) -> None:
        """Take in what a step measured; requests that are not active stay as they were."""
        self.worst = torch.where(active, now.worst, self.worst)
        seen = active & self.filled[part]
        self.latest = torch.where(seen, now.drift / self.counts[part].clamp_min(1), self.latest)
        self.drift[part] = torch.where(seen, self.latest, self.drift[part])

    def below(self, enough: float) -> Tensor:
        """Which requests have converged, (requests,)."""
        return (self.worst < enough) & (self.latest < enough)

    def moved(self) -> Tensor:
        """Mean KL of each request's kept rows, (requests,)."""
        return self.drift.sum(0) / self.parts


class Steps:
    """Adam with a step and a clamp relative to the stream at each vector's sites."""

    def __init__(self, vectors: Tensor, length: Tensor, free: Tensor, settings: Values) -> None:
        """Begin at rest.

        Args:
            vectors: (vectors, d_model), a leaf that is changed in place.
            length: of the stream, (vectors,).
            free: (vectors,), which may move.
            settings: step, clamp, decay.
        """
        self.vectors, self.length, self.free, self.settings = vectors, length, free, settings
        self.first, self.second = torch.zeros_like(vectors), torch.zeros_like(vectors)
        relative = settings.lr * length / vectors.shape[1] ** 0.5
        self.size = (torch.full_like(length, settings.lr) if settings.published else relative)[:, None]

    def take(self, number: int, active: Tensor) -> None:
        """One step, counted from 1, of the active vectors, (vectors,); the decay's gradient is added here."""
        vectors, settings = self.vectors, self.settings
        relative = vectors.norm(dim=1) / (self.length**2 if settings.published else self.length)
        (settings.decay * relative.sum()).backward()
        with torch.no_grad():
            moving = (active & self.free)[:, None]
            gradient = vectors.grad if vectors.grad is not None else torch.zeros_like(vectors)
            grad = torch.nan_to_num(gradient)  # the norm has no gradient at zero
            self.first = torch.where(moving, 0.9 * self.first + 0.1 * grad, self.first)
            self.second = torch.where(moving, 0.999 * self.second + 0.001 * grad**2, self.second)
            root = (self.second / (1 - 0.999**number)).sqrt() + 1e-12
            scale = self.first / (1 - 0.9**number) / root
            vectors -= torch.where(moving, self.size * scale, torch.zeros_like(scale))
            over = (vectors.norm(dim=1) / (settings.clamp * self.length)).clamp_min(1.0)
            vectors /= torch.where(self.free, over, torch.ones_like(over))[:, None]
