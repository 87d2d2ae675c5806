"""The loop of every training: it goes down, ends where it is told to, and says what went wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from unlearn.errors import ModelError
from unlearn.model.training import CLIP, Rated, anneal
from unlearn.progress import NO_PROGRESS


def bowl(scale: float = 1.0) -> tuple[list[Rated], Callable[[], float]]:
    """A point that is to reach the origin, and the slope there."""
    point = torch.full((2,), 4.0, requires_grad=True)

    def slope() -> float:
        loss = scale * point.square().sum()
        loss.backward()
        return float(loss.detach())

    return [{"params": [point], "lr": 0.5}], slope


def test_it_goes_down_in_shorter_and_shorter_steps() -> None:
    trained, slope = bowl()
    (point,) = trained[0]["params"]
    places = [point.detach().clone()]

    def look() -> bool:
        places.append(point.detach().clone())
        return False

    assert anneal(trained, slope, 8, NO_PROGRESS, "Training", look) is False
    lengths = [float((b - a).norm()) for a, b in zip(places, places[1:], strict=False)]
    assert len(lengths) == 8 and lengths == sorted(lengths, reverse=True) and lengths[-1] < lengths[0] / 4
    assert float(point.detach().norm()) < float(places[0].norm())


def test_it_stops_where_it_is_enough() -> None:
    trained, slope = bowl()
    asked: list[int] = []

    def enough() -> bool:
        asked.append(0)
        return len(asked) == 3

    assert anneal(trained, slope, 8, NO_PROGRESS, "Training", enough) is True
    assert len(asked) == 3


def test_gradients_are_clipped() -> None:
    trained, slope = bowl(scale=1e6)
    anneal(trained, slope, 1, NO_PROGRESS, "Training")
    gradient = trained[0]["params"][0].grad
    assert gradient is not None and float(gradient.norm()) == pytest.approx(CLIP)


@pytest.mark.parametrize(("gives", "named"), [(math.nan, "the loss"), (1.0, "the gradient")])
def test_what_is_not_finite_is_said(gives: float, named: str) -> None:
    point = torch.zeros(2, requires_grad=True)

    def slope() -> float:
        point.grad = torch.tensor([math.inf, 0.0])
        return gives

    trained: list[Rated] = [{"params": [point], "lr": 0.5}]
    with pytest.raises(ModelError, match=f"^Training: {named} is not finite"):
        anneal(trained, slope, 3, NO_PROGRESS, "Training")
    assert not point.detach().any()  # no step was taken
