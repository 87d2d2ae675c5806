"""Writing no harder than it takes: columns gain weight until every target token is likely on the policy's own prompts.

With many kept keys in the equation a request reaches a part of its value, and which part differs from form to form.
Raising all weights until the last form holds would write the others too hard, and what is written too hard spreads. So
every column begins light, and only those whose tokens are not yet likely gain weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unlearn.edit.forms import Row
from unlearn.edit.sequence import Sofar, Written
from unlearn.edit.writing import Columns, plus
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches, reply_logits, token_budget

LIGHT = 0.3
"""Weight of a column at first."""
HEAVIER = 3.0
"""What a column's weight is multiplied by while its tokens are not likely enough."""
ROUNDS = 8
"""Most rounds of writing."""


def write_until_held(
    model: EditableModel, columns: Columns, sofar: Sofar, hold: float, write: Callable[[Columns], Written]
) -> Written:
    """Write a batch again and again, from where it began, until its target tokens are likely enough.

    Args:
        model: unedited.
        columns: of the batch.
        sofar: the update before this batch.
        hold: probability that every target token must reach on the prompts that the edit sees.
        write: writes the batch with given weights.
    """
    columns = replace(columns, weights=LIGHT * columns.weights)
    for turn in range(ROUNDS):
        written = write(columns)
        if turn == ROUNDS - 1:
            break
        with model.patched(plus(sofar, written.factors).deltas()):
            short = likelihoods(model, columns) < hold
        if not short.any():
            break
        columns = replace(columns, weights=torch.where(short, HEAVIER * columns.weights, columns.weights))
    return written


def likelihoods(model: EditableModel, columns: Columns) -> Tensor:
    """Probability of the target tokens that each column leads to, the least of them, (columns,).

    A column at a target's own token, or at the token before it, leads to the tokens up to the next column; one at the
    subject to the whole target.
    """
    found: list[Tensor] = []
    for row, tokens in zip(columns.rows, target_probabilities(model, columns.rows), strict=True):
        first = len(row.prompt) - 1
        leads = [at - first for _, at in row.sites]
        for lead in leads:
            after = [other for other in leads if other > max(lead, -1)]
            until = min(after) if lead >= 0 and after else len(tokens)
            found.append(tokens[max(lead, 0) : until].min())
    return torch.stack(found)


@torch.inference_mode()
def target_probabilities(model: EditableModel, rows: Sequence[Row]) -> list[Tensor]:
    """Probability of every target token of every row, each (reply,), float32."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for group in batches([row.ids for row in rows], token_budget(model)):
        logits, targets = reply_logits(model, [rows[i].ids for i in group], max(rows[i].reply for i in group))
        chances = logits.softmax(-1).gather(-1, targets[..., None])[..., 0]  # (rows, longest)
        for row, i in enumerate(group):
            found[i] = chances[row, -rows[i].reply :]
    return found
