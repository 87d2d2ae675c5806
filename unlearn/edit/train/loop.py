"""The loop that every trained baseline shares: seeded minibatches, Adam, epoch means, and an early stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from unlearn.algebra.low_rank import LowRank
from unlearn.edit.settings import Baseline, retained
from unlearn.edit.train.lessons import Lessons
from unlearn.model.adapters import Adapter
from unlearn.model.training import anneal, relative
from unlearn.progress import Progress

PASSES, TURNS = 10, 150
"""Of a training: times that every form is seen, and every fact, on average."""


class Losses(NamedTuple):
    """Of one step, means over its rows."""

    forget: float
    """What the method minimises on rows to be forgotten."""
    keep: float
    """What it minimises on kept rows, without its weight; zero where it has none."""


@dataclass(frozen=True)
class History:
    """How the training went; means over an epoch of the rows to be forgotten."""

    steps: int
    first: float
    """The forget loss of the first batch, before anything was trained."""
    forget: float
    keep: float
    converged: bool
    """Whether it stopped by itself."""


@dataclass(frozen=True)
class Trained:
    """What a training gave."""

    factors: Mapping[str, LowRank]
    """By weight name."""
    history: History


Step = Callable[[Sequence[int], Sequence[int]], Losses]
"""Adds the gradients of a step, on rows to be forgotten and kept ones, by their indices."""
Done = Callable[[float, float, float], bool]
"""From the first forget loss and an epoch's means of both losses."""


def minimise(
    adapter: Adapter,
    lessons: Lessons,
    step: Step,
    done: Done,
    settings: Baseline,
    *,
    seed: int,
    progress: Progress,
    label: str,
) -> History:
    """Minimise ``forget + weight * keep`` by Adam, its rate falling linearly.

    Args:
        adapter: what is trained.
        lessons: rows to be forgotten, and kept ones.
        step: the two losses on some rows, with their gradients.
        done: when to stop early; asked after every epoch over the rows to be forgotten.
        settings: how long, how fast, and how firmly kept rows are held.
        seed: of the order of the rows.
        progress: where to show it.
        label: what to call it.

    Raises:
        ModelError: a loss is not finite, or its gradient.
    """
    steps, (keep, kept) = settings.steps, retained(settings)
    generator = torch.Generator().manual_seed(seed)
    forgetting = _turns(len(lessons.forget), settings.batch, generator)
    keeping = _turns(len(lessons.kept), kept, generator)
    epoch = -(-len(lessons.forget) // settings.batch)
    seen: list[Losses] = []

    def slope() -> float:
        losses = step(next(forgetting), next(keeping))
        seen.append(losses)
        return losses.forget + keep * losses.keep

    def enough() -> bool:
        return len(seen) % epoch == 0 and done(seen[0][0], *_means(seen[-epoch:]))

    converged = anneal(relative(adapter, settings.lr), slope, steps, progress, label, enough)
    return History(len(seen), seen[0][0], *_means(seen[-epoch:]), converged)


def _means(seen: Sequence[Losses]) -> tuple[float, float]:
    forget, keep = (sum(values) / len(seen) for values in zip(*seen, strict=True))
    return forget, keep


def _turns(rows: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches of indices for ever, each epoch in a new order; empty ones where there is nothing."""
    while not rows or not size:
        yield []
    while True:
        order = torch.randperm(rows, generator=generator).tolist()
        yield from (order[at : at + size] for at in range(0, rows, size))


def turns(forms: int, facts: int, least: int) -> int:
    """Rows that all steps of a training see together, for so many forms of so many facts."""
    return max(least, PASSES * forms, TURNS * facts)
