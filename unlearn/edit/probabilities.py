"""How likely a model finds each token of the target after a prompt, and the first tokens of the old reply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from unlearn.edit.forms import Row
from unlearn.model.editable import EditableModel
from unlearn.model.forward import predicted, replies
from unlearn.model.head import logits_of
from unlearn.model.upper import Upper

LIKELY = 0.01
"""A token with which the model begins its reply so often counts among what it says."""
BEGINS = 0.01
"""Probability from which on a token is likely, and its column grows at the pace that the settings give; one that the
value itself leaves below is out of reach."""


class Probabilities(NamedTuple):
    """Of some tokens of the replies to the rows' prompts."""

    targets: list[Tensor]
    """Per row, probability of every target token, (reply,), float32."""
    firsts: list[Tensor]
    """Per row, probability of every token that was asked about as the first of the reply, (tokens,), float32."""


def first_tokens(model: EditableModel, rows: Sequence[Row]) -> list[Tensor]:
    """Per row, the tokens other than the target's with which the model is likely to begin its reply."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    begun = [replace(row, ids=row.ids[: len(row.prompt) + 1], reply=1) for row in rows]
    for i, chances in _replies(model, begun):
        said = chances[0] > LIKELY
        said[rows[i].ids[len(rows[i].prompt)]] = False
        found[i] = said.nonzero()[:, 0]
    return found


def reply_probabilities(
    model: EditableModel,
    rows: Sequence[Row],
    first: Sequence[Tensor] | None = None,
    upper: Upper | None = None,
) -> Probabilities:
    """Probabilities of the target tokens, and of some tokens as the first of the reply.

    Args:
        rows: with their targets.
        first: per row the ids of those first tokens; none if not given.
        upper: the same rows, read up to a block below which the model has not changed since.
    """
    targets: list[Tensor] = [torch.empty(0)] * len(rows)
    firsts: list[Tensor] = [torch.zeros(0)] * len(rows)
    for i, chances in _replies(model, rows) if upper is None else _resumed(model, upper, rows):
        row = rows[i]
        targets[i] = of_targets(row, chances)
        if first is not None:
            firsts[i] = chances[0, first[i]]
    return Probabilities(targets, firsts)


def of_targets(row: Row, chances: Tensor) -> Tensor:
    """Probability of every target token of a row, (reply,), given ``distributions`` it."""
    ids = torch.tensor(row.ids[len(row.prompt) :], device=chances.device)
    return chances.gather(-1, ids[:, None])[:, 0]


@torch.inference_mode()
def _replies(model: EditableModel, rows: Sequence[Row]) -> Iterator[tuple[int, Tensor]]:
    """Per row its index and the distributions from which its reply's tokens are drawn, (reply, V), float32."""
    for i, logits in predicted(model, [(row.ids, row.reply) for row in rows]):
        yield i, logits.softmax(-1)


@torch.inference_mode()
def _resumed(model: EditableModel, upper: Upper, rows: Sequence[Row]) -> Iterator[tuple[int, Tensor]]:
    """The same of rows that were read up to some block."""
    for group in upper.packs(range(len(rows)), gradients=False):
        sizes = [rows[i].reply for i in group]
        chances = logits_of(model, upper.states(group, sizes)).softmax(-1)
        yield from zip(group, chances.split(sizes), strict=True)


def distributions(
    model: EditableModel, rows: Sequence[Row], group: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """The same for some of the rows, by index, in one pass."""
    read = replies(model, [(rows[i].ids, rows[i].reply) for i in group])
    yield from zip(group, (logits.softmax(-1) for logits in read.each()), strict=True)
