"""Pieces of inline SVG: escaped tags, axes with round ticks, and marks that differ in shape as well as in colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from unlearn.report.drawings import State

STATES: tuple[State, ...] = ("before", "after", "control")
STATE_WORDS = {"before": "unedited", "after": "candidate", "control": "never knew (control)"}
SHAPES = ("circle", "square", "triangle", "diamond")
SHAPE = {"before": "circle", "after": "square", "control": "diamond"}
MOST_ROWS = 60
"""Rows of a heat map or a list of weights; the ones with the largest values are shown."""


@dataclass(frozen=True)
class Figure:
    """A plot with its words."""

    key: str
    title: str
    note: str
    svg: Markup
    wide: bool = False
    legend: tuple[tuple[Markup, str], ...] = ()


def number(value: float) -> str:
    """A coordinate, to a hundredth of a unit."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def tag(name: str, *inside: Markup | str, **attributes: str | float | None) -> Markup:
    """An element; text and attribute values are escaped, `class_` and `stroke_width` lose their underscores.

    Args:
        name: of the element.
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


def text(at: tuple[float, float], words: str, class_: str = "t", anchor: str = "start") -> Markup:
    """Words at a place."""
    return tag("text", words, x=at[0], y=at[1], class_=class_, text_anchor=anchor)


def line(start: tuple[float, float], end: tuple[float, float], class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def picture(width: float, height: float, words: str, *inside: Markup) -> Markup:
    """A whole drawing, with what it shows in words for those who cannot see it."""
    box = f"0 0 {number(width)} {number(height)}"
    return tag(
        "svg", *inside, viewBox=box, width=width, height=height, role="img", class_="plot", aria_label=words
    )


def shape(at: tuple[float, float], kind: str, class_: str, size: float = 4.0) -> Markup:
    """A mark of a kind from `SHAPES`."""
    x, y = at
    if kind == "circle":
        return tag("circle", cx=x, cy=y, r=size, class_=class_)
    r = size * 1.15
    corners = {
        "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
        "triangle": ((0.0, -1.1), (1.0, 0.8), (-1.0, 0.8)),
        "diamond": ((0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)),
    }[kind]
    points = " ".join(f"{number(x + r * dx)},{number(y + r * dy)}" for dx, dy in corners)
    return tag("polygon", points=points, class_=class_)


def key(mark: Markup) -> Markup:
    """A mark for a legend."""
    return tag("svg", mark, width=16, height=14, aria_hidden="true")


def legend(states: Iterable[str]) -> tuple[tuple[Markup, str], ...]:
    """The marks of states, with their names."""
    there = set(states)
    return tuple((key(shape((8, 7), SHAPE[s], s)), STATE_WORDS[s]) for s in STATES if s in there)


def share(value: float) -> str:
    """A share as a percentage, without a needless decimal."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


@dataclass(frozen=True)
class Axis:
    """From values to coordinates."""

    low: float
    high: float
    start: float
    """Coordinate of `low`."""
    end: float
    """Coordinate of `high`."""
    ticks: tuple[float, ...]
    shown: Callable[[float], str]

    def at(self, value: float) -> float:
        """The coordinate of a value; one outside the axis lies at its end."""
        part = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, part))


def ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Round numbers from at or below `low` to at or above `high`, at most about `most`."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-11):
        # All one value, as far as an axis can tell: room around it.
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    raw = (high - low) / max(1, most - 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * f for f in (1.0, 2.0, 5.0, 10.0) if size * f >= raw * 0.999)
    first, last = math.floor(low / step + 1e-12), math.ceil(high / step - 1e-12)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def axis_of(values: Sequence[float], start: float, end: float, shares: bool = False) -> Axis:
    """An axis that holds all values; shares from 0 to 100 %, or to the first of 10, 20 and 40 % that holds them."""
    if shares:
        top = next((t for t in (0.1, 0.2, 0.4) if max(values, default=1.0) <= t), 1.0)
        return Axis(0.0, top, start, end, tuple(top * i / 4 for i in range(5)), share)
    found = ticks(min(values, default=0.0), max(values, default=1.0))
    return Axis(found[0], found[-1], start, end, found, lambda v: f"{v:g}")


def are_shares(values: Sequence[float]) -> bool:
    """Whether numbers could all be shares of one."""
    return bool(values) and all(0.0 <= v <= 1.0 for v in values)


def shortened(words: str, most: int) -> str:
    """The end of a long name, which tells weights apart better than its beginning."""
    return words if len(words) <= most else "…" + words[-(most - 1) :]


def frame(x: Axis, y: Axis, x_label: str, y_label: str) -> Markup:
    """Grid lines, ticks and labels of a plane; the y axis runs upwards."""
    parts = [line((x.start, y.at(t)), (x.end, y.at(t)), "rule") for t in y.ticks]
    parts += [text((x.start - 8, y.at(t) + 4), y.shown(t), anchor="end") for t in y.ticks]
    parts += [line((x.at(t), y.start), (x.at(t), y.start + 4), "tick") for t in x.ticks]
    parts += [text((x.at(t), y.start + 18), x.shown(t), anchor="middle") for t in x.ticks]
    parts.append(line((x.start, y.start), (x.end, y.start), "axis"))
    parts.append(text(((x.start + x.end) / 2, y.start + 38), x_label, "t label", "middle"))
    parts.append(text((8, y.end - 12), y_label, "t label"))
    return Markup("").join(parts)
