"""The loss of a step of the null-space tuning (`train.null_space`), and its gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from unlearn.edit.train.seen import Pack, Seen
from unlearn.edit.train.taught import ASKED, FORMS, KEPT, SIBLINGS, TEXTS, Hard, Taught
from unlearn.edit.train.token_losses import divergence, lacking
from unlearn.model.editable import EditableModel
from unlearn.model.head import logits_of, token_losses
from unlearn.sums import Seat, stacked, total

KEEP, TEXT = 15.0, 30.0
"""Weights in the loss."""
MET, GAIN, MOST = 1.0, 1.04, 8.0
"""While a step's forms of a relation lose more than this (nats), all forms of it weigh so many times as much with every
step, at most so many times as at first; while they lose less, they weigh less again."""


@dataclass(frozen=True)
class Part:
    """Rows of one kind."""

    rows: Hard
    begins: int
    """How many rows of other kinds come first."""
    count: int
    """Of them in every step."""
    weight: float
    per_token: bool
    """Whether the loss is a mean over tokens instead of rows."""


def parts_of(rows: Taught) -> list[Part]:
    """The kinds of rows that a training sees, in the order in which they are numbered."""
    kinds = (rows.forget, rows.siblings, rows.neighbours, rows.asked, rows.texts)
    begins = list(accumulate((len(drawer.rows) for drawer in kinds), initial=0))
    siblings = min(max(SIBLINGS, KEPT - len(rows.neighbours.rows)), len(rows.siblings.rows))
    neighbours = min(KEPT - siblings, len(rows.neighbours.rows))
    each = KEEP / max(1, siblings + neighbours)
    return [
        Part(rows.forget, begins[0], FORMS, 1.0, per_token=False),
        Part(rows.siblings, begins[1], siblings, each * siblings, per_token=False),
        Part(rows.neighbours, begins[2], neighbours, each * neighbours, per_token=False),
        Part(rows.asked, begins[3], ASKED, TEXT, per_token=True),
        Part(rows.texts, begins[4], TEXTS, TEXT, per_token=True),
    ]


class Pressure:
    """How heavily the forms weigh against all that is kept: how hard they are differs from relation to relation."""

    def __init__(self, relations: Sequence[str]) -> None:
        """All weigh alike at first; ``relations`` are those of the forms, one each."""
        self._relations = relations
        self.weights = dict.fromkeys(relations, 1.0)

    def on(self, form: int) -> float:
        """How many times as much a form weighs as at first."""
        return self.weights[self._relations[form]]

    def note(self, losses: Mapping[int, float]) -> None:
        """Weigh more or less from the next step on, by what a step's forms lost on average."""
        by = defaultdict(list)
        for form, loss in losses.items():
            by[self._relations[form]].append(loss)
        for relation, lost in by.items():
            change = GAIN if sum(lost) / len(lost) > MET else 1 / GAIN
            self.weights[relation] = min(MOST, max(1.0, self.weights[relation] * change))


def slope(
    seen: Seen,
    parts: Sequence[Part],
    first: Sequence[Tensor],
    margin: float,
    pressure: Pressure,
    seat: Seat = Seat(),  # noqa: B008 - frozen
    trained: Sequence[Tensor] = (),
) -> float:
    """Add the gradients of one step's loss, on rows that are drawn for it; the loss, in nats.

    Args:
        seat: of several, each reads its share of the packs; all get the loss and the gradients of all.
        trained: where these gradients arrive; needed by several.
    """
    weights: dict[int, float] = {}
    for part in parts:
        drawn = [part.begins + i for i in part.rows.draw(part.count)]
        size = sum(seen.lessons[i].reply for i in drawn) if part.per_token else len(drawn)
        weights |= {i: part.weight / size * (pressure.on(i) if part is parts[0] else 1.0) for i in drawn}
    packs = list(seen.packs(weights))

    def read(group: Sequence[int]) -> Tensor:
        each = _losses(seen.model, seen.read(group), first, margin)
        (each * torch.tensor([weights[i] for i in group], device=each.device)).sum().backward()
        return each.detach()

    losses: dict[int, float] = {}
    for group, each in zip(packs, _each(packs, read, seat, trained), strict=True):
        losses |= zip(group, each.tolist(), strict=True)
    for part in parts:
        own = [i for i in losses if part.begins <= i < part.begins + len(part.rows.rows)]
        part.rows.note([i - part.begins for i in own], torch.tensor([losses[i] for i in own]))
    pressure.note({i: loss for i, loss in losses.items() if i < len(parts[0].rows.rows)})
    return sum(weights[i] * loss for i, loss in losses.items())


def _each(
    packs: Sequence[Sequence[int]],
    read: Callable[[Sequence[int]], Tensor],
    seat: Seat,
    trained: Sequence[Tensor],
) -> list[Tensor]:
    """Per pack the losses of its rows, (rows,); their gradients are added up where they arrive.

    Args:
        read: gives the losses of a pack, and adds its gradients.
        seat: this process's.
        trained: where the gradients arrive.
    """
    if seat.size == 1:
        return [read(pack) for pack in packs]
    longest = max(map(len, packs))

    def one(number: int) -> list[Tensor]:
        for tensor in trained:
            tensor.grad = None
        each = read(packs[number]).float()
        gradients = [torch.zeros_like(t) if t.grad is None else t.grad for t in trained]
        return [torch.nn.functional.pad(each, (0, longest - len(each))), *gradients]

    numbers = range(len(packs))
    like = [torch.zeros(longest), *(tensor.detach() for tensor in trained)]
    losses, *gradients = stacked(one, seat.of(numbers), like, len(packs), seat)
    for tensor, pieces in zip(trained, gradients, strict=True):
        tensor.grad = total(pieces).to(tensor.device)
    return [losses[number, : len(packs[number])] for number in numbers]


def _losses(model: EditableModel, pack: Pack, first: Sequence[Tensor], margin: float) -> Tensor:
    """Per row what the target's tokens lack and what is left to the old reply, or KL(before || now), (rows,), nats."""
    wanted = ~pack.kept
    targets, owners = pack.targets[wanted], pack.owners[wanted]
    begins = torch.searchsorted(owners, torch.arange(len(pack.rows), device=owners.device)).tolist()
    old = {
        begins[place]: first[row].to(owners.device)
        for place, row in enumerate(pack.rows)
        if row < len(first) and len(first[row])
    }

    def forgotten(logits: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        mine = {place - at.start: old[place] for place in old if at.start <= place < at.stop}
        return lacking(logits, targets[at], mine, margin)

    def kept(logits: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            before = logits_of(model, pack.before[at])
        return divergence(logits, before)

    forgot = token_losses(model, pack.states[wanted], forgotten)
    stayed = token_losses(model, pack.states[pack.kept], kept)
    return pack.sums(forgot, owners) + pack.sums(stayed, pack.owners[pack.kept])
