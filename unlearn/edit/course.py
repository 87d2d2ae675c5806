"""What becomes of a model while an edit of several batches grows: noted after about ten of them, without generation.

Weights grow, hidden states of what must stay drift, and later batches may undo the first. The prompts are the edit's
own; the audit measures the whole edit, on others. An edit of one batch that builds on nothing has no course.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

from unlearn.algebra.shift import shift
from unlearn.edit.forms import prompts_of, target_of
from unlearn.edit.sequence import Sofar
from unlearn.model.editable import EditableModel
from unlearn.model.forward import predicted, read
from unlearn.model.requests import Fact, Requests
from unlearn.stages import Stage

T = TypeVar("T")
MARKS = 10
"""Batches after which it is noted, at most: the first, the last, and others evenly between them."""
PROMPTS = 60
"""Most prompts of either kind."""
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Course:
    """What is looked at, and when."""

    model: EditableModel
    """Unedited."""
    totals: Mapping[int, int]
    """By batch, counted from 1, after which it is noted: facts written by then, those of earlier patches included."""
    oldest: Sequence[tuple[Ids, int]]
    """Prompts of the first batch with their targets: ids, and how many of the last ones are the target."""
    kept: Sequence[Ids]
    """Prompts of siblings and neighbours that the edit is given."""
    before: Mapping[int, Tensor]
    """Per layer their states on the unedited model at the last prompt token, (prompts, d_model)."""

    @classmethod
    def of(
        cls,
        model: EditableModel,
        requests: Requests,
        layers: Sequence[int],
        batches: Sequence[Sequence[Fact]],
        earlier: Sofar,
    ) -> Course:
        """Prepare for an edit, and read the unedited model.

        Args:
            layers: that the edit writes.
            batches: in the order in which they are written.
            earlier: the edit that it builds on.
        """
        if len(batches) == 1 and not earlier.factors:
            return cls(model, {}, (), (), {})
        sizes = list(accumulate(map(len, batches), initial=earlier.facts))
        totals = {number: sizes[number] for number in spread(range(1, len(batches) + 1), MARKS)}
        kept = [
            ids
            for fact in (*requests.siblings, *requests.neighbours)
            for _, prompt in prompts_of(model, requests, fact)
            if len(ids := tuple(prompt.ids)) <= model.context
        ]
        watched = sorted({max(layers), model.anatomy.layers - 1})
        course = cls(model, totals, _asked(model, requests, batches[0]), spread(kept, PROMPTS), {})
        return replace(course, before=course._states(watched))

    def begun(self, earlier: Sofar) -> Sofar:
        """The edit that is built on, with what is noted of it: its own stages, or where it stands now."""
        if not self.totals:
            return earlier
        if earlier.stages:
            # Of its oldest edits nothing can be told any more: their prompts are not here.
            told = tuple(stage.model_copy(update={"oldest": None}) for stage in earlier.stages)
            return replace(earlier, stages=told)
        nothing = Stage(facts=0, norm_growth=0.0, hidden_drift=0.0 if self._drift(self.before) == 0 else None)
        there = [self._stage(earlier.facts, earlier)] if earlier.factors else []
        return replace(earlier, stages=(*([nothing] if earlier.facts or not there else []), *there))

    def after(self, number: int, sofar: Sofar) -> Sofar:
        """The edit after a batch, with a further stage if it is one after which it is noted."""
        if number not in self.totals:
            return sofar
        stage = self._stage(self.totals[number], sofar, self.oldest)
        return replace(sofar, stages=(*sofar.stages, stage))

    def _stage(self, facts: int, sofar: Sofar, oldest: Sequence[tuple[Ids, int]] = ()) -> Stage:
        growth = [delta.growth(self.model.weight(name)) for name, delta in sofar.factors.items()]
        with self.model.patched(sofar.deltas()):
            return Stage(
                facts=facts,
                norm_growth=_finite(max(growth)) if growth else 0.0,
                hidden_drift=self._drift(self._states(list(self.before))),
                oldest=_said(self.model, oldest) if oldest else None,
            )

    def _states(self, layers: Sequence[int]) -> dict[int, Tensor]:
        """States of the kept prompts as the model stands, as ``before``; none without prompts."""
        if not self.kept:
            return {}
        at = [[len(row) - 1] for row in self.kept]
        return {
            at: found.T for at, found in read(self.model, self.kept, at, stream_layers=layers).stream.items()
        }

    def _drift(self, now: Mapping[int, Tensor]) -> float | None:
        """The largest shift of the mean at any of the layers, as drift.hidden; None where there is no spread."""
        found = [shift(self.before[layer].cpu(), states.cpu()) for layer, states in now.items()]
        means = [one.mean for one in found if one is not None]
        return _finite(max(means)) if means else None


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items: the first, the last, and others evenly between them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _asked(model: EditableModel, requests: Requests, facts: Sequence[Fact]) -> list[tuple[Ids, int]]:
    """Prompts of facts with their targets."""
    found = []
    for fact in facts:
        for _, prompt in prompts_of(model, requests, fact):
            target = target_of(model, requests.policy, fact, prompt)
            found.append(((*prompt.ids, *target), len(target)))
    return spread(found, PROMPTS)


def _said(model: EditableModel, rows: Sequence[tuple[Ids, int]]) -> float:
    """Share of prompts whose whole target is the greedy reply: each of its tokens the likeliest after those before."""
    hits = 0
    for i, logits in predicted(model, rows):
        ids, reply = rows[i]
        hits += torch.equal(logits.argmax(-1).cpu(), torch.tensor(ids[len(ids) - reply :]))
    return hits / len(rows)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
