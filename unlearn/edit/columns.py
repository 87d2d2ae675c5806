"""The columns of an edit: a key for every token of every form that is written, as the model stands before."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.edit.forms import Forms, Row

COMPLETING = 1.6
"""Weight of the look-up token of a statement relative to a question's: nothing but the answer continues a statement."""


@dataclass(frozen=True)
class Columns:
    """The columns of a batch: one per site of every form."""

    rows: tuple[Row, ...]
    vectors: Tensor
    """(columns,), index of the free vector."""
    requests: Tensor
    """(columns,), index of the request."""
    weights: Tensor
    """(columns,)."""
    raised: float = 1.0
    """Mean of the weights relative to what it was before any round of writing."""

    @classmethod
    def of(cls, laid: Forms, device: torch.device) -> Columns:
        """Number the sites of the rows that are to be written."""
        rows = tuple(row for row in laid.rows if not row.keep)
        sites = [(row, vector, at) for row in rows for vector, at in row.sites]
        return cls(
            rows,
            torch.tensor([vector for _, vector, _ in sites], device=device),
            torch.tensor([row.request for row, _, _ in sites], device=device),
            torch.tensor([_weight(row, at) for row, _, at in sites], device=device),
        )

    def some(self, chosen: Tensor) -> Columns:
        """Some of the columns, by a mask; the rows stay, since their keys are read together."""
        return replace(
            self,
            vectors=self.vectors[chosen],
            requests=self.requests[chosen],
            weights=self.weights[chosen],
        )

    @property
    def ids(self) -> list[tuple[int, ...]]:
        """Ids per row."""
        return [row.ids for row in self.rows]

    @property
    def positions(self) -> list[list[int]]:
        """Sites per row."""
        return [[at for _, at in row.sites] for row in self.rows]


def _weight(row: Row, at: int) -> float:
    return row.weight * (COMPLETING if row.statement and at < len(row.prompt) else 1.0)
