"""One layer's update for new edits after earlier ones, on random numbers of any width: the fast way and the dense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import plain, published
from benchmarks.timing import Phase, Rate, busy_of, counted, timed
from unlearn.algebra.moments import Projector
from unlearn.algebra.write import write

WIDEST = {"cpu": 1024, "cuda": 16384}
"""Of a dense solve, by device; wider ones are multiplied up by the cube of the width."""
EDITS, EARLIER, RIDGE = 100, 1000, 10.0
OUT = 4096
"""Rows of the weight, at most."""


class System(NamedTuple):
    """What an update is solved from."""

    keys: Tensor
    """(d_in, n)."""
    gains: Tensor
    """(d_out, n)."""
    spared: Tensor
    """(d_in, d_in / 4), a basis of what the projector removes."""
    earlier: Tensor
    """(d_in, m)."""

    @classmethod
    def random(cls, width: int, device: torch.device) -> System:
        """The same one for the same width."""
        torch.manual_seed(0)

        def numbers(rows: int, columns: int) -> Tensor:
            return torch.randn(rows, columns, device=device)

        basis = torch.linalg.qr(numbers(width, width // 4))[0]
        kept = numbers(width, min(EARLIER, width))
        return cls(numbers(width, EDITS), numbers(min(width, OUT), EDITS), basis, kept)


def ways(width: int, device: torch.device) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The fast and the plain way to one and the same update, (d_out, d_in)."""
    system = System.random(width, device)
    metric = Projector(system.spared, complement=True)
    return (
        lambda: write(system.keys, system.gains, metric, RIDGE, system.earlier, absolute=True).dense(),
        lambda: plain.solved(system.keys, system.gains, system.spared, RIDGE, system.earlier),
    )


def solve(width: int, device: torch.device) -> Phase:
    """The update for 100 edits after 1,000 earlier ones."""
    ours, _ = ways(width, device)
    ours()
    _, phase = timed(ours, device)
    within = min(width, WIDEST[device.type])
    larger = (width / within) ** 3
    _, dense = ways(within, device)
    system = System.random(within, device)
    projector = torch.eye(within, device=device) - system.spared @ system.spared.T
    seen = system.earlier @ system.earlier.T
    theirs = busy_of(lambda: published.solved(system.keys, system.gains, projector, seen), device)
    return replace(
        phase,
        share=Rate(torch.float32, device).share(counted(ours), phase.busy),
        plain=busy_of(dense, device) * larger / phase.busy,
        published=theirs * larger / phase.busy,
    ).saying(dense_at=within)
