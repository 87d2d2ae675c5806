"""What blocks put out behind prompts: at the last token of each, what many of them begin with read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unlearn.model.cached import alike, prepared
from unlearn.model.editable import EditableModel
from unlearn.model.forward import Stopped, batches, in_order, tapped, token_budget


@torch.inference_mode()
def last_states(
    model: EditableModel, rows: Sequence[Sequence[int]], layers: Sequence[int]
) -> dict[int, Tensor]:
    """Outputs of some blocks at the last token of each row: per layer (d_model, rows), float32.

    Args:
        model: as it stands.
        rows: ids without padding, one at least each.
        layers: of which blocks, ascending; nothing above the last of them is computed.

    Raises:
        ModelError: a row is longer than the model takes.
    """
    model.longest(rows)
    stream: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    order: list[int] = []
    for group in _groups(model, rows):
        order += group
        _read(model, [rows[i] for i in group], stream)
    return dict(in_order(order, {}, stream).stream)


def _groups(model: EditableModel, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of rows that are read together: alike at their beginnings where they are, and of similar length."""
    for some in alike(rows):
        inside = sorted(some)
        for group in batches([rows[i] for i in inside], token_budget(model)):
            yield [inside[i] for i in group]


def _read(model: EditableModel, rows: Sequence[Sequence[int]], stream: dict[int, list[Tensor]]) -> None:
    """Add what the blocks put out at the end of rows, (rows, d_model) per layer."""
    state, ids, mask = prepared(model.model, rows, model.pad_id)

    def keep(store: list[Tensor], hidden: Tensor) -> None:
        store.append(hidden[:, -1].float())

    with tapped(model, {}, stream, max(stream), keep):
        try:
            state.read(ids, mask)
        except Stopped:
            pass
