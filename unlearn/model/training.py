"""The loop of every training: steps down a loss at rates that change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import TypedDict

import torch
from torch import Tensor

from unlearn.errors import ModelError
from unlearn.model.adapters import Adapter
from unlearn.progress import Progress

CLIP = 1.0
"""Longest gradient, over all that is trained: one batch must not throw the training off."""


class Rated(TypedDict):
    """Parameters with the length of Adam's first steps."""

    params: Sequence[Tensor]
    lr: float


def descend(
    slope: Callable[[], float],
    optimiser: torch.optim.Optimizer,
    rate: Callable[[int], float],
    steps: int,
    progress: Progress,
    label: str,
    enough: Callable[[], bool] = lambda: False,
) -> bool:
    """Take steps down a loss.

    Args:
        slope: adds the gradients of the next step's loss, and gives the loss.
        optimiser: of what is trained.
        rate: by which the optimiser's rates are multiplied, by step.
        steps: at most.
        progress: where to show it.
        label: what to call it.
        enough: asked after every step whether to stop.

    Returns:
        Whether it stopped before the last step.

    Raises:
        ModelError: the loss is not finite.
    """
    changing = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    with progress.step(label, total=steps) as bar, torch.enable_grad():
        for _ in range(steps):
            optimiser.zero_grad()
            if not isfinite(slope()):
                raise ModelError(f"{label}: the loss is not finite; try a larger dtype or smaller steps")
            optimiser.step()
            changing.step()
            bar.advance()
            if enough():
                return True
    return False


def anneal(
    trained: Sequence[Rated],
    slope: Callable[[], float],
    steps: int,
    progress: Progress,
    label: str,
    enough: Callable[[], bool] = lambda: False,
) -> bool:
    """``descend`` by Adam, its rates falling linearly to zero, its gradients clipped.

    To zero: at a constant rate whatever is held drifts on after the rest has converged.

    Raises:
        ModelError: the loss is not finite, or its gradient.
    """

    def clip(*_: object) -> None:
        length = torch.nn.utils.clip_grad_norm_([p for group in trained for p in group["params"]], CLIP)
        if not torch.isfinite(length):
            raise ModelError(f"{label}: the gradient is not finite; try a larger dtype or smaller steps")

    optimiser = torch.optim.Adam([dict(group) for group in trained])
    optimiser.register_step_pre_hook(clip)
    return descend(slope, optimiser, lambda step: 1 - step / steps, steps, progress, label, enough)


def relative(adapter: Adapter, lr: float) -> list[Rated]:
    """What an adapter trains, each at a rate relative to the weights that it is added to."""
    return [{"params": group["params"], "lr": lr * group["scale"]} for group in adapter.groups]
