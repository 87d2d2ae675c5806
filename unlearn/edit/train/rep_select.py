"""RepSelect: one gradient, without what it shares with everything else, as far as kept replies allow."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import cycle

import torch
from torch import Tensor

from unlearn.algebra.damping import damped
from unlearn.edit.train.lessons import Lesson, Lessons, lessons
from unlearn.edit.train.loop import History, Trained, keep_loss
from unlearn.edit.train.lora import something
from unlearn.errors import ModelError
from unlearn.model.adapters import Adapter, dense, linears, lora
from unlearn.model.editable import EditableModel
from unlearn.model.forward import replies
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
    with dense(model, linears(model, "mlp")) as update:
        weights = [weight for group in update.groups for weight in group["params"]]
        with quick_passes(model, 0, learned.longest):
            _slope(model, learned.forget, settings, update, requests.policy.seed, progress)
        directions = [_selective(weight, settings.components) for weight in weights]
        size = math.hypot(*(g["scale"] * w.numel() ** 0.5 for g in update.groups for w in g["params"]))
        unit = size / max(math.hypot(*(float(way.norm()) for way in directions)), 1e-30)
        ways = [unit * way for way in directions]
        with quick_passes(model, 0, learned.longest):
            history = _ascend(model, learned, settings, update, ways, progress)
        return Trained(update.factors(), history)


def _selective(weight: Tensor, share: float) -> Tensor:
    """The gradient that a weight has got, its leading components damped: as many as a share of the narrower side."""
    assert weight.grad is not None
    if not torch.isfinite(weight.grad).all():
        raise ModelError("RepSelect: the gradient is not finite; try a larger dtype")
    return damped(weight.grad, max(1, round(share * min(weight.shape))))


def _slope(
    model: EditableModel,
    rows: Sequence[Lesson],
    settings: RepSelect,
    update: Adapter,
    seed: int,
    progress: Progress,
) -> None:
    """Give every weight its gradient of the forbidden replies' loss, once an adversary has made them likelier."""
    shuffled = random.Random(f"eliciting/{seed}").sample(rows, len(rows))
    turns = cycle(_split(shuffled, settings.batch))

    def slope() -> float:
        loss = replies(model, next(turns)).nll().mean()
        loss.backward()
        return loss.item()

    with lora(model, linears(model, "mlp"), settings.rank, seed) as adversary:
        steps = settings.elicit * -(-len(rows) // settings.batch)
        if steps:
            with update.off():
                anneal(relative(adversary, settings.lora_lr), slope, steps, progress, "Eliciting")
        with torch.enable_grad():
            for some in _split(rows, settings.batch):
                (replies(model, some).nll().sum() / len(rows)).backward()


@torch.no_grad()
def _ascend(
    model: EditableModel,
    learned: Lessons,
    settings: RepSelect,
    update: Adapter,
    directions: Sequence[Tensor],
    progress: Progress,
) -> History:
    """Step along the directions, while kept replies diverge by no more than the budget; too long a step is halved."""
    enough = settings.enough * math.log(int(model.model.config.get_text_config().vocab_size))
    weights = [weight for group in update.groups for weight in group["params"]]

    def at(length: float) -> tuple[float, float]:
        for weight, way in zip(weights, directions, strict=True):
            weight.copy_(length * way)
        said = [
            replies(model, rows).nll().clamp(max=enough) for rows in _split(learned.forget, settings.batch)
        ]
        held = [
            keep_loss(model, update, rows, "kl") * len(rows) for rows in _split(learned.kept, settings.batch)
        ]
        return -float(torch.cat(said).mean()), float(sum(held)) / max(len(learned.kept), 1)

    length, step = 0.0, settings.lr
    first, _ = reached = at(0.0)
    taken, converged = 0, False
    with progress.step("RepSelect", total=settings.steps) as bar:
        for _ in range(settings.steps):
            forget, keep = at(length + step)
            if keep <= settings.budget:
                length, reached, taken = length + step, (forget, keep), taken + 1
            else:
                step /= 2
            bar.advance()
            converged = -reached[0] >= 0.95 * enough
            if converged or step < FINEST * length:
                break
    at(length)
    return History(taken, first, *reached, converged)


def _split(rows: Sequence[Lesson], size: int) -> list[Sequence[Lesson]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]
