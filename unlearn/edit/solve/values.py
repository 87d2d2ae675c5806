"""The values v*: what the stream must become at the look-up tokens so that every form of a request is refused.

All requests of a batch are optimised together, one free vector per site, added to the output of the last edited block.
Neither the blocks up to that layer nor the tokens before the first site depend on the vectors, so they are run once;
only the blocks above are repeated, from there on, and the vocabulary projection only where a reply token is predicted.
Requests that have converged leave the batch. The loss of a request is

    mean over its forms of NLL(target) / T  +  keep * mean over kept forms of KL(before || now)  +  decay * |v| / |z0|
    +  unlikelihood * mean over its forms of max(0, log p(B) + margin)

(with `published`: |v| / |z0|^2), where B are the first tokens of what the model said before the edit:
those that began at least one of a hundred replies. A target that is likely leaves its old rival a few percent, which
samples find.

(ROME and MEMIT's objective; their KL term on "{subject} is a" is replaced by one on the kept siblings' own replies.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.edit.forms import Forms, Row
from unlearn.edit.probabilities import LIKELY
from unlearn.edit.sequence import Reached
from unlearn.edit.settings import Values
from unlearn.edit.solve.stepping import PARTS, Losses, Now, Steps
from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches as groups
from unlearn.model.forward import read, token_budget
from unlearn.model.suspended import Suspended
from unlearn.progress import NO_PROGRESS, Progress


@dataclass(frozen=True)
class Solved:
    """The optimised vectors and how far they got."""

    vectors: Tensor
    """(vectors, d_model), float32: what is added to the stream at each site."""
    reached: Reached


@dataclass(frozen=True)
class _Batch:
    """Rows with one length of reply, suspended at the layer."""

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


def optimise(
    model: EditableModel,
    forms: Forms,
    requests: int,
    layer: int,
    settings: Values,
    progress: Progress = NO_PROGRESS,
    label: str = "Values",
    start: Tensor | None = None,
    free: Tensor | None = None,
) -> Solved:
    """Optimise the vectors of all requests.

    Args:
        model: as it stands (sequential methods pass a patched one).
        forms: the rows; every request has at least one.
        layer: the vectors are added to this block's output.
        start: (vectors, d_model), where the vectors begin; at zero if not given.
        free: (vectors,), which of them may move; all if not given.

    Raises:
        ModelError: the loss is not finite.
    """
    length, owner = _lengths(model, forms, layer)  # (vectors,), (vectors,)
    batches = _suspend(model, forms.rows, layer, settings.unlikelihood > 0)
    vectors = torch.zeros(forms.vectors, model.anatomy.d_model, device=model.device, requires_grad=True)
    if start is not None:
        with torch.no_grad():
            vectors.copy_(start)
    free = torch.ones(forms.vectors, dtype=torch.bool, device=model.device) if free is None else free
    steps = Steps(vectors, length, free, settings)
    losses = Losses(_counts(batches, requests, model.device))
    active = torch.ones(requests, dtype=torch.bool, device=model.device)
    taken = torch.zeros(requests, dtype=torch.long, device=model.device)
    with progress.step(label, total=settings.steps) as bar:
        for step in range(1, settings.steps + 2):
            part = step % PARTS
            now = Now.nothing(losses.worst)
            vectors.grad = None
            for batch in batches:
                if batch.part is None or batch.part == part:
                    _accumulate(model, batch, vectors, active, losses.rows(batch.part), settings, now)
            losses.note(part, active, now)
            if not torch.isfinite(losses.worst).all():
                raise ModelError("the values' loss is not finite; try a larger dtype or a smaller method.lr")
            active = active & ~losses.below(settings.converged)
            if step > settings.steps or not active.any():
                break
            steps.take(step, active[owner])
            taken += active
            bar.advance()
    got = (losses.worst.tolist(), losses.moved().tolist(), taken.tolist())
    return Solved(vectors.detach(), Reached(*map(tuple, got)))


def _lengths(model: EditableModel, forms: Forms, layer: int) -> tuple[Tensor, Tensor]:
    """Mean length of the stream at each vector's sites, and the request that owns the vector; both (vectors,)."""
    rows = [row for row in forms.rows if not row.keep]
    norms = (
        read(model, [r.ids for r in rows], [[p for _, p in r.sites] for r in rows], stream_layers=[layer])
        .stream[layer]
        .norm(dim=0)
    )
    index = torch.tensor([v for r in rows for v, _ in r.sites], device=norms.device)
    owner = torch.zeros(forms.vectors, dtype=torch.long, device=norms.device)
    owner[index] = torch.tensor([r.request for r in rows for _ in r.sites], device=norms.device)
    total = torch.zeros(forms.vectors, device=norms.device).index_add_(0, index, norms)
    count = torch.zeros(forms.vectors, device=norms.device).index_add_(0, index, torch.ones_like(norms))
    return (total / count.clamp_min(1)).clamp_min(1e-12), owner


def _counts(batches: Sequence[_Batch], requests: int, device: torch.device) -> Tensor:
    """Rows per part and request, (PARTS + 1, requests); the last row counts those to be written."""
    counts = torch.zeros(PARTS + 1, requests, device=device)
    for batch in batches:
        counts[-1 if batch.part is None else batch.part].index_add_(
            0, batch.requests, torch.ones(len(batch.rows), device=device)
        )
    return counts


@torch.no_grad()
def _suspend(model: EditableModel, rows: Sequence[Row], layer: int, unlikelihood: bool) -> list[_Batch]:
    """Group rows by part, then by length within the token budget, and run each group up to the layer."""
    parts: dict[int | None, list[Row]] = {}
    seen: dict[int, int] = {}
    for row in rows:
        part = None
        if row.keep:
            part = seen[row.request] = (seen.get(row.request, -1) + 1) % PARTS
        parts.setdefault(part, []).append(row)
    budget = token_budget(model, gradients=True)
    return [
        _one(model, tuple(members[i] for i in group), layer, part, unlikelihood)
        for part, members in parts.items()
        for group in groups([row.ids for row in members], budget)
    ]


def _one(
    model: EditableModel, rows: tuple[Row, ...], layer: int, part: int | None, unlikelihood: bool
) -> _Batch:
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
    return _Batch(
        rows,
        at.behind(begin),
        targets,
        before,
        torch.tensor(columns, device=at.ids.device).reshape(-1, 3),
        torch.tensor([row.request for row in rows], device=at.ids.device),
        begun,
        part,
    )


def _accumulate(
    model: EditableModel,
    batch: _Batch,
    vectors: Tensor,
    active: Tensor,
    counts: Tensor,
    settings: Values,
    now: Now,
) -> None:
    """Add the gradient of one batch to ``vectors.grad``; note the worst NLL and the summed KL per request."""
    chosen = active[batch.requests].nonzero()[:, 0]
    if not len(chosen):
        return
    at = batch.at if len(chosen) == len(batch.rows) else batch.at.select(chosen)
    dropped = batch.at.ids.shape[1] - at.ids.shape[1]
    place = torch.full((len(batch.rows),), -1, device=chosen.device)
    place[chosen] = torch.arange(len(chosen), device=chosen.device)
    columns = batch.columns[place[batch.columns[:, 0]] >= 0]
    row, vector, column = place[columns[:, 0]], columns[:, 1], columns[:, 2] - dropped - at.begin
    added = torch.zeros(at.stream.shape, device=at.stream.device).index_put(
        (row, column), vectors[vector], True
    )
    requests = batch.requests[chosen]
    # Of the rows that are left, the longest reply: their columns may be fewer than another's reply.
    reply = int((batch.targets[chosen] >= 0).sum(1).max())
    targets = batch.targets[chosen][:, -reply:]
    logits = at.logits(at.stream + added.to(at.stream.dtype), reply + 1)[:, :-1].float()
    mask = targets >= 0
    tokens = mask.sum(1).clamp_min(1)
    log_probs = logits.log_softmax(-1)
    if batch.before is None:
        nll = -log_probs.gather(-1, targets.clamp_min(0)[..., None])[..., 0]
        each = (nll * mask).sum(1) / tokens  # (rows,)
        if settings.unlikelihood:
            assert batch.begun is not None
            banned = batch.begun[chosen]
            start = log_probs[torch.arange(len(chosen), device=mask.device), reply - mask.sum(1)]  # (rows, V)
            left = start.masked_fill(~banned, -math.inf).logsumexp(-1) + settings.unlikelihood_margin
            each = each + settings.unlikelihood * torch.where(banned.any(1), left.clamp_min(0), 0)
        now.worst.scatter_reduce_(0, requests, each.detach(), "amax")
        loss = (each / counts[requests]).sum()
    else:
        before = batch.before[chosen.cpu()][:, -reply:].to(logits.device).float().log_softmax(-1)
        kl = (before.exp() * (before - log_probs)).sum(-1)
        each = (kl * mask).sum(1) / tokens
        now.drift.index_add_(0, requests, each.detach())
        loss = settings.keep * (each / counts[requests]).sum()
    loss.backward()
