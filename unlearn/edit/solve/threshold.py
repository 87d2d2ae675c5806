"""Writing no harder than it takes: columns gain weight until every target token is likely on the policy's own prompts.

With many kept keys in the equation a request reaches a part of its value, and which part differs from form to form.
Raising all weights until the last form is likely enough would write the others too hard, and what is written too hard
spreads. So every column begins light, and only those whose tokens are not yet likely gain weight: fast while they are
far from it, and at a pace of their own near it. No more is asked for than the values themselves reach: a token that the
model cannot be made to say there would gain weight for ever, and write over all the others. A likely target may leave
its rival, the old reply, a few percent, which samples find: the columns that lead to the reply's first token gain
weight until that is below a ceiling as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from unlearn.edit.columns import Columns
from unlearn.edit.forms import Row
from unlearn.edit.probabilities import BEGINS, distributions, first_tokens, of_targets, reply_probabilities
from unlearn.edit.sequence import Sofar, Written
from unlearn.edit.settings import Threshold
from unlearn.edit.solve.writing import plus
from unlearn.model.budget import token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches, changed
from unlearn.model.upper import Upper

LIGHT = 0.3
"""Weight of a column at first."""
FAR = 3.0
"""What a column's weight is multiplied by while its tokens are hardly likely at all."""
FAIR = 0.9
"""The share of what the values reach that is asked of a write."""


def write_until_likely(
    model: EditableModel,
    columns: Columns,
    upper: Upper,
    sofar: Sofar,
    settings: Threshold,
    write: Callable[[Columns, Written | None], Written],
    reach: Tensor,
) -> Written:
    """Write a batch again and again, from where it began, until its target tokens are likely enough.

    Args:
        upper: their rows, read up to the first layer that is written.
        sofar: the update before this batch.
        settings: how likely, at which pace, in how many rounds.
        write: writes the batch with given weights, after what it wrote in the round before.
        reach: (columns,), ``reached`` by the values themselves.

    Returns:
        What the round wrote that left the fewest columns short; the last of these.
    """
    wanted = torch.where(reach < BEGINS, 0.0, (FAIR * reach).clamp_max(settings.target_probability))
    first = columns.weights.mean()
    columns = replace(columns, weights=LIGHT * columns.weights, raised=LIGHT)
    old: list[Tensor] | None = None
    written: Written | None = None
    best: Written | None = None
    least = len(columns.weights) + 1
    if settings.old_answer_ceiling is not None:
        with model.patched(sofar.deltas()):
            old = first_tokens(model, columns.rows)
    for turn in range(settings.rounds):
        written = write(columns, written)
        with model.patched(plus(sofar, written.factors).deltas()):
            now = reply_probabilities(model, columns.rows, old, upper)
        likely = likelihoods(columns, now.targets)
        short = ~(likely >= wanted)  # a model that is broken says nothing likely
        if settings.old_answer_ceiling is not None:
            short |= (old_answers(columns, now.firsts) > settings.old_answer_ceiling) & (wanted > 0)
        if int(short.sum()) <= least:
            best, least = written, int(short.sum())
        if not least or turn == settings.rounds - 1:
            break
        step = torch.where(likely < BEGINS, FAR, settings.pace)
        weights = torch.where(short, step * columns.weights, columns.weights)
        columns = replace(columns, weights=weights, raised=float(weights.mean() / first))
    assert best is not None
    return best


@torch.inference_mode()
def reached(model: EditableModel, columns: Columns, gains: Tensor, layer: int) -> Tensor:
    """Probability of the tokens that each column leads to with the values themselves in the stream, (columns,).

    Args:
        model: on which the values were optimised.
        columns: of the batch.
        gains: (d_model, columns), what is added at each.
        layer: to whose output.
    """
    rows = columns.rows
    begins = [0, *accumulate(len(row.sites) for row in rows)]
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for group in batches([row.ids for row in rows], token_budget(model)):
        width = max(len(rows[i].ids) for i in group)
        added = torch.zeros(len(group), width, gains.shape[0], device=gains.device)
        for number, i in enumerate(group):
            at = [width - len(rows[i].ids) + place for _, place in rows[i].sites]
            added[number, at] = gains[:, begins[i] : begins[i + 1]].T
        with changed(model.anatomy.block(model.model, layer), partial(_plus, added)):
            for i, chances in distributions(model, rows, group):
                found[i] = of_targets(rows[i], chances)
    return likelihoods(columns, found)


def _plus(added: Tensor, out: Tensor) -> Tensor:
    return out + added.to(out.dtype)


def likelihoods(columns: Columns, targets: Sequence[Tensor]) -> Tensor:
    """Probability of the target tokens that each column leads to, the least of them, (columns,).

    A column at a target's own token, or at the token before it, leads to the tokens up to the next column; one at the
    subject to the whole target.
    """
    found: list[Tensor] = []
    for row, tokens in zip(columns.rows, targets, strict=True):
        leads = _leads(row)
        for lead in leads:
            after = [other for other in leads if other > max(lead, -1)]
            until = min(after) if lead >= 0 and after else len(tokens)
            found.append(tokens[max(lead, 0) : until].min())
    return torch.stack(found)


def old_answers(columns: Columns, firsts: Sequence[Tensor]) -> Tensor:
    """Probability of the old reply's first tokens where a column leads to the first token, 0 elsewhere, (columns,)."""
    left = torch.stack([chances.sum() for chances in firsts])
    rows = torch.tensor([i for i, row in enumerate(columns.rows) for _ in row.sites], device=left.device)
    leads = torch.tensor([lead <= 0 for row in columns.rows for lead in _leads(row)], device=left.device)
    return left[rows] * leads


def _leads(row: Row) -> list[int]:
    """Of each site, how far behind the last prompt token it stands; negative before it."""
    return [at - (len(row.prompt) - 1) for _, at in row.sites]
