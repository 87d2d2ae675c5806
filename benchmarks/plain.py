"""The plain way to do what the program does: one row at a time, whole passes, dense solves. What speed is measured by.

Nothing here is used by the program. Each function gives the same as a fast one, within rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from unlearn.model.editable import EditableModel


@torch.no_grad()
def key_at(model: EditableModel, ids: Sequence[int], at: int, layer: int) -> Tensor:
    """The key of one token, (d_in,) float32, by a whole pass with all logits."""
    return _keys(model, ids, layer)[at]


@torch.no_grad()
def second_moment(model: EditableModel, rows: Iterable[Sequence[int]], layer: int) -> Tensor:
    """``E[k k^T]`` over every token of some rows, (d_in, d_in) float64: one row and one layer at a time."""
    width = model.anatomy.d_ff
    total, count = torch.zeros(width, width, dtype=torch.float64, device=model.device), 0
    for row in rows:
        keys = _keys(model, row, layer).double()
        total += keys.T @ keys
        count += len(row)
    return (total / count).cpu()


def solved(keys: Tensor, residuals: Tensor, basis: Tensor, ridge: float, earlier: Tensor) -> Tensor:
    """AlphaEdit's update by a dense float64 system, (d_out, d_in); ``basis`` spans what the projector removes."""
    own, kept, gone = keys.double(), earlier.double(), basis.double()
    projector = torch.eye(len(own), dtype=torch.float64, device=own.device) - gone @ gone.T
    system = projector @ (own @ own.T + kept @ kept.T)
    system.diagonal().add_(ridge)
    return torch.linalg.solve(system, projector @ (own @ residuals.double().T)).T


def _keys(model: EditableModel, ids: Sequence[int], layer: int) -> Tensor:
    caught: list[Tensor] = []

    def on_key(_module: object, given: tuple[Tensor, ...]) -> None:
        caught.append(given[0][0].float())

    handle = model.anatomy.down(model.model, layer).register_forward_pre_hook(on_key)
    try:
        model.model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    finally:
        handle.remove()
    return caught[0]
