"""How a series is drawn, so that no meaning hangs on a colour alone: a shape, and a class of `plot.css`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from markupsafe import Markup

from unlearn.charts.svg import Shape, shape, tag

COLOURS = 8
_SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True)
class Look:
    """How one series is drawn, and what it is called."""

    label: str
    shape: Shape
    css: str
    """Its class in `plot.css`: colour, fill and dashes."""


def look_of(number: int, label: str) -> Look:
    """The look of the series of a number; 32 differ."""
    kind = (number + number // COLOURS) % len(_SHAPES)
    return Look(label, _SHAPES[kind], f"s{number % COLOURS} d{kind}")


def key(looks: Iterable[Look]) -> tuple[tuple[Markup, str], ...]:
    """A legend: each look's mark and label, once."""
    return tuple(
        (tag("svg", shape((8, 7), look.shape, look.css), width=16, height=14, aria_hidden="true"), look.label)
        for look in dict.fromkeys(looks)
    )
