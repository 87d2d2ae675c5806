"""Pieces of SVG: escaped tags, lines, words and marks, and how a series is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from markupsafe import Markup, escape

Shape = Literal["circle", "square", "triangle", "diamond"]
Place = tuple[float, float]

_CORNERS = {
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": ((0.0, -1.1), (1.0, 0.8), (-1.0, 0.8)),
    "diamond": ((0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)),
}


def number(value: float) -> str:
    """A coordinate, to a hundredth of a unit."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def tag(name: str, *inside: Markup | str, **attributes: str | float | None) -> Markup:
    """An element; text and attribute values are escaped, `class_` and `stroke_width` lose their underscores.

    Args:
        inside: its content; strings are text, Markup is markup.
        attributes: those that are None are left out.
    """
    said = Markup("")
    for key, value in attributes.items():
        if value is not None:
            shown = value if isinstance(value, str) else number(value)
            said += Markup(' {}="{}"').format(Markup(key.rstrip("_").replace("_", "-")), shown)
    body = Markup("").join(part if isinstance(part, Markup) else escape(part) for part in inside)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), said, body)


def text(at: Place, words: str, class_: str = "t", anchor: str = "start") -> Markup:
    """Words at a place."""
    return tag("text", words, x=at[0], y=at[1], class_=class_, text_anchor=anchor)


def line(start: Place, end: Place, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def polygon(corners: list[Place], class_: str, name: str = "polygon") -> Markup:
    """A filled shape, or with the name "polyline" a line of several pieces."""
    return tag(name, points=" ".join(f"{number(x)},{number(y)}" for x, y in corners), class_=class_)


def shape(at: Place, kind: Shape, class_: str, size: float = 4.0) -> Markup:
    """A mark."""
    x, y = at
    if kind == "circle":
        return tag("circle", cx=x, cy=y, r=size, class_=class_)
    r = size * 1.15
    return polygon([(x + r * dx, y + r * dy) for dx, dy in _CORNERS[kind]], class_)


def picture(width: float, height: float, words: str, *inside: Markup, **attributes: str) -> Markup:
    """A whole drawing, with what it shows in words for those who cannot see it."""
    box = f"0 0 {number(width)} {number(height)}"
    return tag(
        "svg", *inside, viewBox=box, width=width, height=height, role="img", class_="plot", aria_label=words,
        **attributes,
    )  # fmt: skip


def shortened(words: str, most: int) -> str:
    """The end of a long name, which tells weights apart better than its beginning."""
    return words if len(words) <= most else "…" + words[-(most - 1) :]


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
