"""RepSelect: one gradient, without what it shares with everything else, as far as kept replies allow."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import cycle

import torch
from torch import Tensor

from unlearn.algebra.damping import damped
from unlearn.edit.train.lessons import lessons
from unlearn.edit.train.loop import History, Losses, Trained
from unlearn.edit.train.lora import something
from unlearn.edit.train.replied import Replied, per_token
from unlearn.errors import ModelError
from unlearn.model.adapters import Adapter, dense, linears
from unlearn.model.editable import EditableModel
from unlearn.model.factors import lora
from unlearn.model.narrow import quick_passes
from unlearn.model.requests import Requests
from unlearn.model.training import anneal, relative
from unlearn.policy.settings_trained import RepSelect
from unlearn.progress import NO_PROGRESS, Progress

FINEST = 1 / 16
"""Of the way so far: a step that had to become shorter than this ends the way."""


def rep_select(
    model: EditableModel, requests: Requests, settings: RepSelect, progress: Progress = NO_PROGRESS
) -> Trained:
    """Ascend on the model's own forbidden replies, along one selective gradient (docs/methods/rep_select.md).

    Raises:
        ModelError: a loss or the gradient is not finite.
        PolicyError: the model says nothing to any forbidden prompt.
    """
    learned = something(model, lessons(model, requests, own=True, kept=settings.kept), "RepSelect")
    enough = settings.enough * math.log(int(model.model.config.get_text_config().vocab_size))
    with quick_passes(model, 0, learned.longest), dense(model, linears(model, "mlp")) as update:
        rows = Replied(model, learned)
        weights = [weight for group in update.groups for weight in group["params"]]
        _slope(model, rows, settings, update, requests.policy.seed, progress)
        directions = [_selective(weight, settings.components) for weight in weights]
        size = math.hypot(*(g["scale"] * w.numel() ** 0.5 for g in update.groups for w in g["params"]))
        unit = size / max(math.hypot(*(float(way.norm()) for way in directions)), 1e-30)
        history = _ascend(rows, settings, update, [unit * way for way in directions], enough, progress)
        return Trained(update.factors(), history)


def _selective(weight: Tensor, share: float) -> Tensor:
    """The gradient that a weight has got, its leading components damped: as many as a share of the narrower side."""
    assert weight.grad is not None
    if not torch.isfinite(weight.grad).all():
        raise ModelError("RepSelect: the gradient is not finite; try a larger dtype")
    return damped(weight.grad, max(1, round(share * min(weight.shape))))


def _slope(
    model: EditableModel,
    rows: Replied,
    settings: RepSelect,
    update: Adapter,
    seed: int,
    progress: Progress,
) -> None:
    """Give every weight its gradient of the forbidden replies' loss, once an adversary has made them likelier."""
    shuffled = random.Random(f"eliciting/{seed}").sample(rows.forget, len(rows.forget))
    turns = cycle(_split(shuffled, settings.batch))
    likely = rows.step(per_token, keep=0.0)
    with lora(model, linears(model, "mlp"), settings.rank, seed) as adversary:
        steps = settings.elicit * -(-len(rows.forget) // settings.batch)
        if steps:
            with update.off():
                rates = relative(adversary, settings.lora_lr)
                anneal(rates, lambda: likely(next(turns), ()).forget, steps, progress, "Eliciting")
        with torch.enable_grad():
            likely(rows.forget, ())


@torch.no_grad()
def _ascend(
    rows: Replied,
    settings: RepSelect,
    update: Adapter,
    directions: Sequence[Tensor],
    enough: float,
    progress: Progress,
) -> History:
    """Step along the directions, while kept replies diverge by no more than the budget; too long a step is halved."""
    weights = [weight for group in update.groups for weight in group["params"]]

    def at(length: float) -> Losses:
        for weight, way in zip(weights, directions, strict=True):
            weight.copy_(length * way)
        return rows.means(lambda said: -per_token(said).clamp(max=enough), rows.forget, rows.kept)

    length, step = 0.0, settings.lr
    reached = at(0.0)
    first = reached.forget
    taken, converged = 0, False
    with progress.step("RepSelect", total=settings.steps) as bar:
        for _ in range(settings.steps):
            now = at(length + step)
            if now.keep <= settings.budget:
                length, reached, taken = length + step, now, taken + 1
            else:
                step /= 2
            bar.advance()
            converged = -reached.forget >= 0.95 * enough
            if converged or step < FINEST * length:
                break
    at(length)
    return History(taken, first, *reached, converged)


def _split(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]
