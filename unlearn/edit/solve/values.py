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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.edit.forms import Forms
from unlearn.edit.sequence import Reached
from unlearn.edit.settings import Values
from unlearn.edit.solve.stepping import PARTS, Losses, Now, Steps
from unlearn.edit.solve.suspension import Batch, Group, counts, grouped, suspend
from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read, token_budget
from unlearn.model.standing import in_step
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.sums import Seat, stacked, total


@dataclass(frozen=True)
class Solved:
    """The optimised vectors and how far they got."""

    vectors: Tensor
    """(vectors, d_model), float32: what is added to the stream at each site."""
    reached: Reached


@dataclass(frozen=True)
class Problem:
    """What values are optimised for; its tensors lie on the host."""

    groups: Sequence[Group]
    requests: int
    layer: int
    settings: Values
    length: Tensor
    """(vectors,), of the stream at each vector's sites."""
    owner: Tensor
    """(vectors,), the request that a vector belongs to."""
    start: Tensor
    """(vectors, d_model), where the vectors begin."""
    free: Tensor
    """(vectors,), which of them may move."""
    label: str
    """What to call it."""

    def done(self, model: EditableModel, seat: Seat, progress: Progress = NO_PROGRESS) -> Solved:
        """Optimise, together with the other processes that do so now.

        Raises:
            UnlearnError: another process cannot go on.
            ModelError: the loss is not finite.
        """
        settings, device = self.settings, model.device
        mine = self._numbers(seat)
        batches = {n: suspend(model, self.groups[n], self.layer, settings.unlikelihood > 0) for n in mine}
        vectors = self.start.to(device, copy=True).requires_grad_()
        owner = self.owner.to(device)
        steps = Steps(vectors, self.length.to(device), self.free.to(device), settings)
        losses = Losses(counts(self.groups, self.requests).to(device))
        active = torch.ones(self.requests, dtype=torch.bool, device=device)
        taken = torch.zeros(self.requests, dtype=torch.long, device=device)

        def slope(numbers: Sequence[int]) -> Now:
            now = Now.nothing(losses.worst)
            vectors.grad = None
            for batch in (batches[n] for n in numbers):
                _accumulate(model, batch, vectors, active, losses.rows(batch.part), settings, now)
            return now

        with progress.step(self.label, total=settings.steps) as bar:
            for step in range(1, settings.steps + 2):
                part = step % PARTS
                read = [n for n, group in enumerate(self.groups) if group.part in (None, part)]
                now = slope(read) if seat.size == 1 else _together(slope, read, mine, vectors, losses, seat)
                losses.note(part, active, now)
                if not torch.isfinite(losses.worst).all():
                    raise ModelError(
                        "the values' loss is not finite; try a larger dtype or a smaller method.lr"
                    )
                active = active & ~losses.below(settings.converged)
                if step > settings.steps or not active.any():
                    break
                steps.take(step, active[owner])
                taken += active
                bar.advance()
        got = (losses.worst.tolist(), losses.moved().tolist(), taken.tolist())
        return Solved(vectors.detach(), Reached(*map(tuple, got)))

    def _numbers(self, seat: Seat) -> list[int]:
        """A process's groups, by number, dealt so that each has its share of those that one step reads."""
        written = sum(group.part is None for group in self.groups)
        places: Counter[int | None] = Counter({part: written for part in range(PARTS)})
        found = []
        for number, group in enumerate(self.groups):
            if places[group.part] % seat.size == seat.number:
                found.append(number)
            places[group.part] += 1
        return found


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
    """Optimise the vectors of all requests, by all processes of the run.

    Args:
        model: as it stands (sequential methods pass a patched one).
        forms: the rows; every request has at least one.
        layer: the vectors are added to this block's output.
        start: (vectors, d_model), where the vectors begin; at zero if not given.
        free: (vectors,), which of them may move; all if not given.

    Raises:
        UnlearnError: another process could not do its share.
        ModelError: the loss is not finite.
    """
    length, owner = _lengths(model, forms, layer)
    problem = Problem(
        grouped(forms.rows, token_budget(model, gradients=True)),
        requests,
        layer,
        settings,
        length.cpu(),
        owner.cpu(),
        torch.zeros(forms.vectors, model.anatomy.d_model) if start is None else start.cpu(),
        torch.ones(forms.vectors, dtype=torch.bool) if free is None else free.cpu(),
        label,
    )
    standing = model.standing() if len(problem.groups) > 1 else None
    return in_step(model, problem, standing, progress)


def _together(
    slope: Callable[[Sequence[int]], Now],
    read: Sequence[int],
    mine: Sequence[int],
    vectors: Tensor,
    losses: Losses,
    seat: Seat,
) -> Now:
    """What a step measures in all processes; their gradients, added up, in ``vectors.grad``.

    Args:
        slope: measures some groups, by number, and adds their gradients up in ``vectors.grad``.
        read: the groups that the step reads.
        mine: those that this process has.
    """

    def one(place: int) -> list[Tensor]:
        now = slope([read[place]])
        gradient = torch.zeros_like(vectors) if vectors.grad is None else vectors.grad
        return [gradient, now.worst, now.drift]

    own = [place for place, number in enumerate(read) if number in mine]
    like = [vectors.detach(), losses.worst, losses.worst]
    gradients, worst, drift = stacked(one, own, like, len(read), seat)
    device = vectors.device
    vectors.grad = total(gradients).to(device)
    return Now(worst.amax(0).to(device), total(drift).to(device))


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


def _accumulate(
    model: EditableModel,
    batch: Batch,
    vectors: Tensor,
    active: Tensor,
    rows: Tensor,
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
        loss = (each / rows[requests]).sum()
    else:
        before = batch.before[chosen.cpu()][:, -reply:].to(logits.device).float().log_softmax(-1)
        kl = (before.exp() * (before - log_probs)).sum(-1)
        each = (kl * mask).sum(1) / tokens
        now.drift.index_add_(0, requests, each.detach())
        loss = settings.keep * (each / rows[requests]).sum()
    loss.backward()
