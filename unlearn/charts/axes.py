"""Axes: from values to coordinates, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from unlearn.charts.svg import line, text


def share(value: float) -> str:
    """A share as a percentage, without a needless decimal."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def _itself(value: float) -> float:
    return value


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
    scale: Callable[[float], float] = _itself
    """What is laid out evenly: the value itself, or what stands for its order of magnitude."""

    def at(self, value: float) -> float:
        """The coordinate of a value; one outside the axis lies at its end."""
        low, high = self.scale(self.low), self.scale(self.high)
        part = (self.scale(value) - low) / (high - low)
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


def axis_of(values: Sequence[float], start: float, end: float, shares: bool = False, most: int = 6) -> Axis:
    """An axis that holds all values; shares from 0 to 100 %, or to the first of 10, 20 and 40 % that holds them."""
    if shares:
        top = next((t for t in (0.1, 0.2, 0.4) if max(values, default=1.0) <= t), 1.0)
        return Axis(0.0, top, start, end, tuple(top * i / 4 for i in range(5)), share)
    found = ticks(min(values, default=0.0), max(values, default=1.0), most)
    return Axis(found[0], found[-1], start, end, found, "{:g}".format)


def along(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis from the first to the last of the values, for what runs in steps: ticks lie between them."""
    whole = axis_of(values, start, end)
    low, high = min(values), max(values)
    if low == high:
        return whole
    return replace(whole, low=low, high=high, ticks=tuple(t for t in whole.ticks if low <= t <= high))


def magnitudes(values: Sequence[float], start: float, end: float, most: int = 6) -> Axis:
    """An axis for values that are no shares: by order of magnitude, from 0, where they span more than two of them."""
    sizes = [abs(v) for v in values if v]
    if not sizes or max(sizes) <= 100 * min(sizes) or min(values) < 0:
        return axis_of(values, start, end, most=most)
    top = math.ceil(math.log10(max(sizes)))
    floor = max(math.floor(math.log10(min(sizes))), top - 5)
    step = math.ceil((top - floor) / (most - 2))
    powers = [10.0**i for i in range(top, floor - 1, -step)]
    return Axis(
        0.0, powers[0], start, end, (0.0, *reversed(powers)), "{:g}".format, lambda v: math.asinh(v / 10**floor)
    )  # fmt: skip


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
