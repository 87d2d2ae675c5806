"""The small chart beside each measurement: bars before and after, whiskers, the limit and the allowed side of it."""

from __future__ import annotations

from markupsafe import Markup

from unlearn.charts.svg import number, tag
from unlearn.measurements import row_of
from unlearn.report.measurement import Measurement
from unlearn.report.words import show, show_interval, show_limit

#: Width of a chart in SVG units.
WIDTH = 200.0


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


def chart(m: Measurement) -> Markup:
    """The chart of a measurement; nothing for one that was not made."""
    if m.after is None:
        return Markup("")
    low, high = axis(m)

    def at(value: float) -> float:
        return round(WIDTH * min(1.0, max(0.0, (value - low) / (high - low))), 2)

    bars = [("before", m.before, m.before_ci95), ("after", m.after, m.ci95)]
    shown = [(name, value, interval) for name, value, interval in bars if value is not None]
    height, edge = 10 + 13 * len(shown), limit_at(m)
    parts = [tag("rect", class_="track", x=0, y=1, width=WIDTH, height=height - 2, rx=3)]
    if edge is not None:
        start, end = (0.0, at(edge)) if m.rule in ("at most", "rise at most") else (at(edge), WIDTH)
        parts.append(tag("rect", class_="band", x=start, y=1, width=end - start, height=height - 2, rx=3))
    for y, (name, value, interval) in zip((6, 19), shown, strict=False):
        start, end = sorted((at(_origin(m)), at(value)))
        width = min(max(end - start, 1.5), WIDTH - start)
        parts.append(tag("rect", class_=name, x=start, y=y, width=width, height=10, rx=1.5))
        if interval is not None:
            left, right = map(at, interval)
            ends = f"M{left} {y + 5}H{right}M{left} {y + 2}v6M{right} {y + 2}v6"
            parts.append(tag("path", class_="whisker", fill="none", d=ends))
    if edge is not None:
        parts.append(tag("path", class_="limit", d=f"M{at(edge)} -1V{height + 1}"))
    box = f"0 0 {number(WIDTH)} {height}"
    return tag("svg", *parts, viewBox=box, width=WIDTH, height=height, role="img", aria_label=_in_words(m))


def _in_words(m: Measurement) -> str:
    """The same for a screen reader."""
    return ", ".join(
        [
            *([f"before {show(m.before, m.unit)}"] if m.before is not None else []),
            f"after {show(m.after, m.unit)}",
            *([f"95 % interval {show_interval(m.ci95, m.unit)}"] if m.ci95 else []),
            *([f"limit {show_limit(m)}"] if m.limit is not None else []),
        ]
    )
