"""The rows by which values are optimised, laid out in batches and suspended behind the layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unlearn.edit.forms import Row
from unlearn.edit.probabilities import LIKELY
from unlearn.edit.solve.stepping import PARTS
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches
from unlearn.model.suspended import Suspended


class Group(NamedTuple):
    """Rows that are read together."""

    rows: tuple[Row, ...]
    part: int | None
    """Kept rows take turns: these are used in every ``PARTS``-th step. None for rows to be written."""


def grouped(rows: Sequence[Row], budget: int) -> list[Group]:
    """Group rows by part, then by length within a budget of padded tokens."""
    parts: dict[int | None, list[Row]] = {}
    seen: dict[int, int] = {}
    for row in rows:
        part = None
        if row.keep:
            part = seen[row.request] = (seen.get(row.request, -1) + 1) % PARTS
        parts.setdefault(part, []).append(row)
    return [
        Group(tuple(members[i] for i in chosen), part)
        for part, members in parts.items()
        for chosen in batches([row.ids for row in members], budget)
    ]


def counts(groups: Sequence[Group], requests: int) -> Tensor:
    """Rows per part and request, (PARTS + 1, requests); the last row counts those to be written."""
    found = torch.zeros(PARTS + 1, requests)
    for group in groups:
        mine = torch.tensor([row.request for row in group.rows])
        found[-1 if group.part is None else group.part].index_add_(0, mine, torch.ones(len(mine)))
    return found


@dataclass(frozen=True)
class Batch:
    """A group, suspended at the layer."""

    rows: tuple[Row, ...]
    at: Suspended
    targets: Tensor
    """(rows, reply)."""
    before: Tensor | None
    """Logits of the unedited model for kept rows, (rows, reply, V), in its dtype; None for rows to be written."""
    columns: Tensor
    """(sites, 3): row, vector, column of the padded batch."""
    requests: Tensor
    """(rows,)."""
    begun: Tensor | None
    """(rows, vocabulary), the tokens with which the model is likely to begin its reply; None where nobody asks."""
    part: int | None
    """Kept rows take turns: these are used in every ``PARTS``-th step. None for rows to be written."""


@torch.no_grad()
def suspend(model: EditableModel, group: Group, layer: int, unlikelihood: bool) -> Batch:
    """Run a group of rows up to the layer.

    Args:
        unlikelihood: whether it is asked with what the model begins its replies.
    """
    rows, part = group
    at = Suspended.at(model, [row.ids for row in rows], layer)
    width, reply = at.ids.shape[1], max(row.reply for row in rows)
    targets = torch.full((len(rows), reply), -100, device=at.ids.device)
    for i, row in enumerate(rows):
        targets[i, reply - row.reply :] = at.ids[i, width - row.reply :]
    before = begun = None
    if rows[0].keep:
        # On the host: over the whole vocabulary, those of many rows would fill a GPU.
        before = at.logits(at.stream, reply + 1)[:, :-1].cpu()
    elif unlikelihood:
        each = torch.arange(len(rows), device=targets.device)
        first = torch.tensor([reply - row.reply for row in rows], device=targets.device)
        begun = at.logits(at.stream, reply + 1)[each, first].float().softmax(-1) > LIKELY
        begun[each, targets[each, first]] = False
    columns = [(i, v, width - len(row.ids) + p) for i, row in enumerate(rows) for v, p in row.sites]
    begin = min([width - reply - 1, *(column for *_, column in columns)])
    return Batch(
        rows,
        at.behind(begin),
        targets,
        before,
        torch.tensor(columns, device=at.ids.device).reshape(-1, 3),
        torch.tensor([row.request for row in rows], device=at.ids.device),
        begun,
        part,
    )
