"""What a baseline is trained on: the forms of the requests that the editors write too, as prompts with replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from unlearn.edit import forms
from unlearn.matching import contains
from unlearn.model.editable import EditableModel
from unlearn.model.narrow import narrowed
from unlearn.model.prompts import special_ids
from unlearn.model.requests import Fact, Requests


class Lesson(NamedTuple):
    """A prompt with a reply."""

    ids: tuple[int, ...]
    """Prompt and reply."""
    reply: int
    """Number of reply tokens at the end of ``ids``."""


@dataclass(frozen=True)
class Lessons:
    """Rows to be forgotten and rows to be kept."""

    forget: tuple[Lesson, ...]
    """Every prompt of every request, with its target or with what the unedited model replies."""
    kept: tuple[Lesson, ...]
    """Prompts of siblings and neighbours with the unedited model's own greedy replies."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max((len(row.ids) for row in (*self.forget, *self.kept)), default=0)


def lessons(model: EditableModel, requests: Requests, *, own: bool, kept: int) -> Lessons:
    """Lay out what is to be forgotten and what is to be kept.

    Args:
        own: what to be forgotten ends in: the model's own greedy reply up to the answer, or the policy's target.
        kept: most kept prompts, drawn by the policy's seed from those whose keys the editors keep.
    """
    laid = forms.build(model, requests, requests.facts, "last", kept > 0)
    written = [row for row in laid.rows if not row.keep]
    forget = [Lesson(tuple(row.ids), row.reply) for row in written]
    if own:
        said = _quickly(model, [tuple(row.prompt) for row in written])
        # There is nothing to unlearn in a reply that only ends.
        special = special_ids(model.tokenizer)
        told = {
            n: lesson for n, lesson in said.items() if not special.issuperset(lesson.ids[-lesson.reply :])
        }
        forget = [
            _told(model, told[n], requests.facts[row.request]) for n, row in enumerate(written) if n in told
        ]
    prompts = [tuple(ids) for ids, _ in laid.kept] if kept else []
    some = drawn(prompts, kept, torch.Generator().manual_seed(requests.policy.seed))
    return Lessons(tuple(forget), tuple(_quickly(model, some).values()))


def drawn(prompts: Sequence[tuple[int, ...]], most: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    """Prompts in random order, no more than so many."""
    return [prompts[i] for i in torch.randperm(len(prompts), generator=generator)[:most].tolist()]


def answered(
    model: EditableModel, prompts: Sequence[tuple[int, ...]], longest: int = forms.REPLY
) -> dict[int, Lesson]:
    """By index, prompts with the model's own greedy replies, the end token included; empty ones are left out."""
    replies = model.generate_ids(prompts, max_new_tokens=longest) if prompts else []
    pairs = enumerate(zip(prompts, replies, strict=True))
    return {n: Lesson((*prompt, *reply), len(reply)) for n, (prompt, reply) in pairs if reply}


def _quickly(model: EditableModel, prompts: Sequence[tuple[int, ...]]) -> dict[int, Lesson]:
    with narrowed(model, 0):
        return answered(model, prompts)


def _told(model: EditableModel, lesson: Lesson, fact: Fact) -> Lesson:
    """A reply up to where it has told the answer; all of it, if it does not tell it.

    What follows says nothing, and is what a method would rather unlearn: a reply becomes as unlikely as one likes by
    its full stop alone.
    """
    begin = len(lesson.ids) - lesson.reply
    for end in range(begin + 1, len(lesson.ids)):
        if contains(model.tokenizer.decode(lesson.ids[begin:end]), fact.answers):
            return Lesson(lesson.ids[:end], end - begin)
    return lesson
