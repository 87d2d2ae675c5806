"""What a baseline is trained on: the forms of the requests that the editors write too, as prompts with replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unlearn.edit import forms
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests

REPLY = 16
"""Longest reply of the unedited model that is unlearned or kept, in tokens."""


@dataclass(frozen=True)
class Lesson:
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


def lessons(model: EditableModel, requests: Requests, *, own: bool, kept: int) -> Lessons:
    """Lay out what is to be forgotten and what is to be kept.

    Args:
        model: the unedited one.
        requests: the policy with its answers.
        own: what to be forgotten ends in: the model's own greedy reply, instead of the policy's target.
        kept: most kept prompts, drawn by the policy's seed from those whose keys the editors keep.
    """
    laid = forms.build(model, requests, requests.facts, "last", kept > 0)
    written = [row for row in laid.rows if not row.keep]
    forget = [Lesson(tuple(row.ids), row.reply) for row in written]
    if own:
        forget = _answered(model, [tuple(row.prompt) for row in written])
    prompts = [tuple(ids) for ids, _ in laid.kept] if kept else []
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(requests.policy.seed))
    return Lessons(tuple(forget), tuple(_answered(model, [prompts[i] for i in order[:kept].tolist()])))


def _answered(model: EditableModel, prompts: Sequence[tuple[int, ...]]) -> list[Lesson]:
    """Prompts with the model's own greedy replies; those to which it says nothing are left out."""
    replies = model.generate_ids(prompts, max_new_tokens=REPLY) if prompts else []
    pairs = zip(prompts, replies, strict=True)
    return [Lesson((*prompt, *reply), len(reply)) for prompt, reply in pairs if reply]
