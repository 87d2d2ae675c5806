"""The small chart beside each measurement: bars before and after, whiskers, the limit and the allowed side of it."""

from __future__ import annotations

from dataclasses import dataclass

from unlearn.measurements import row_of
from unlearn.report.measurement import Measurement
from unlearn.report.words import show, show_interval, show_limit

#: Width of a chart in SVG units.
WIDTH = 200.0


@dataclass(frozen=True)
class Bar:
    """One bar and its whisker, in SVG units from the left."""

    label: str
    x: float
    width: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Chart:
    """Bars of one measurement on one axis, the limit, and the allowed side of it."""

    bars: tuple[Bar, ...]
    limit: float | None
    allowed: tuple[float, float] | None
    """Start and width of the allowed band."""
    words: str
    """The same for a screen reader."""


def axis(m: Measurement) -> tuple[float, float]:
    """The axis of a measurement's chart: shares use the whole range from 0 to 1, the rest what it takes."""
    if m.unit == "share":
        return 0.0, 1.0
    edge = limit_at(m)
    values = [v for v in (m.before, m.after, edge, *(m.ci95 or ()), *(m.before_ci95 or ())) if v is not None]
    origin = _origin(m)
    reach = max((abs(v - origin) for v in values), default=0.0) * 1.2 or 1.0
    low = origin - reach if min(values, default=origin) < origin else origin
    return low, origin + reach


def _origin(m: Measurement) -> float:
    row = row_of(m.name)
    return row.unchanged if row else 0.0


def limit_at(m: Measurement) -> float | None:
    """Where the limit lies on the axis; limits on a change lie that far from the value before."""
    if m.limit is None or m.rule.startswith("at "):
        return m.limit
    if m.before is None:
        return None
    return m.before - m.limit if m.rule == "drop at most" else m.before + m.limit


def chart(m: Measurement) -> Chart | None:
    """The chart of a measurement; None for one that was not made."""
    if m.after is None:
        return None
    low, high = axis(m)
    origin = _origin(m)

    def at(value: float) -> float:
        return round(WIDTH * min(1.0, max(0.0, (value - low) / (high - low))), 2)

    bars = []
    for label, value, interval in (("before", m.before, m.before_ci95), ("after", m.after, m.ci95)):
        if value is None:
            continue
        start, end = sorted((at(origin), at(value)))
        whisker = (at(interval[0]), at(interval[1])) if interval else (None, None)
        bars.append(Bar(label, start, round(end - start, 2), *whisker))
    edge = limit_at(m)
    position = None if edge is None else at(edge)
    below = m.rule in ("at most", "rise at most")
    allowed = (
        None if position is None else ((0.0, position) if below else (position, round(WIDTH - position, 2)))
    )
    words = f"before {show(m.before, m.unit)}, " if m.before is not None else ""
    words += f"after {show(m.after, m.unit)}"
    if m.ci95:
        words += f", 95 % interval {show_interval(m.ci95, m.unit)}"
    return Chart(
        tuple(bars), position, allowed, words + (f", limit {show_limit(m)}" if m.limit is not None else "")
    )
