"""Rows laid one behind another into a few lines, so that a pass over rows of all lengths reads hardly any padding.

What of a line belongs to one row sees that row alone, and the beginning that all rows share: the mask says so, and
positions are counted anew in every row. So a row goes through the model as it would by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

WIDER = (1.0, 1.25, 1.5, 2.0)
"""How wide lines may be, in lengths of the longest row; the width with which fewest tokens are read is taken."""


@dataclass(frozen=True)
class Lines:
    """Where rows lie in lines of one width."""

    lengths: tuple[int, ...]
    """Tokens of each row."""
    width: int
    count: int
    """Number of lines."""
    begins: tuple[int, ...]
    """Where each row begins, in lines that are laid one behind another."""

    @classmethod
    def apart(cls, lengths: Sequence[int]) -> Lines:
        """A line for each row."""
        width = max(lengths)
        return cls(tuple(lengths), width, len(lengths), tuple(range(0, len(lengths) * width, width)))

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lines:
        """Lay out rows of these lengths, longest first, each into the first line that has room."""
        widths = dict.fromkeys(int(max(lengths) * wider) for wider in WIDER)
        return min((cls._wide(lengths, width) for width in widths), key=lambda found: found.tokens)

    @classmethod
    def _wide(cls, lengths: Sequence[int], width: int) -> Lines:
        used: list[int] = []
        begins = [0] * len(lengths)
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            line = next((n for n, full in enumerate(used) if full + lengths[row] <= width), len(used))
            if line == len(used):
                used.append(0)
            begins[row] = line * width + used[line]
            used[line] += lengths[row]
        return cls(tuple(lengths), width, len(used), tuple(begins))

    @property
    def tokens(self) -> int:
        """How many are read, padding included."""
        return self.count * self.width

    @cached_property
    def places(self) -> Tensor:
        """Where the tokens of all rows stand, row by row, (tokens of rows,)."""
        return torch.cat(
            [torch.arange(at, at + size) for at, size in zip(self.begins, self.lengths, strict=True)]
        )

    def laid(self, tokens: Tensor, padding: int = 0) -> Tensor:
        """The rows' tokens, (tokens of rows, ...), in lines, (count, width, ...)."""
        found = tokens.new_full((self.tokens, *tokens.shape[1:]), padding)
        found[self.places.to(tokens.device)] = tokens
        return found.view(self.count, self.width, *tokens.shape[1:])

    def positions(self, front: int) -> Tensor:
        """Of every token in its row, (count, width); ``front`` tokens stand before each row."""
        return self.laid(torch.cat([torch.arange(front, front + size) for size in self.lengths]))

    def sees(self, front: int) -> Tensor:
        """Which token sees which, (count, 1, width, front + width): all the front, and what came before in its row."""
        owner = self.laid(
            torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths)), padding=-1
        )
        earlier = torch.ones(self.width, self.width, dtype=torch.bool).tril()
        own = (owner[:, :, None] == owner[:, None, :]) & earlier
        before = torch.ones(self.count, self.width, front, dtype=torch.bool)
        return torch.cat([before, own], -1)[:, None]
