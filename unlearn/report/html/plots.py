"""The plots of a report as inline SVG, drawn from its measurements and drawings: numbers and fact ids, never text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unlearn.report.document import Interval, Measurement, Report, State
from unlearn.report.drawings import Cloud, Curve, Grid
from unlearn.report.html.charts import limit_at
from unlearn.report.html.drawn import cloud, curves, grouped, heat, title_of
from unlearn.report.html.svg import (
    MOST_ROWS,
    SHAPE,
    Figure,
    axis_of,
    legend,
    line,
    picture,
    shape,
    share,
    shortened,
    text,
)


@dataclass(frozen=True)
class Row:
    """A line of a plot with one axis."""

    label: str
    marks: tuple[tuple[State, float, Interval | None], ...]
    limit: float | None = None
    value: str = ""


def figures(report: Report) -> list[Figure]:
    """Every plot for which the report has numbers, in the order of the page."""
    found = [
        by_attack(report),
        *by_part(report),
        *(curves(same) for same in grouped(d for d in report.drawings if isinstance(d, Curve))),
        *(cloud(same) for same in grouped(d for d in report.drawings if isinstance(d, Cloud))),
        *(heat(same) for same in grouped(d for d in report.drawings if isinstance(d, Grid))),
        *by_weight(report),
    ]
    return [figure for figure in found if figure is not None]


def rows_plot(rows: Sequence[Row], words: str, width: float = 1040.0, shares: bool = True) -> Markup:
    """Rows under each other on one axis: a mark per state with its interval, and a tick at the limit."""
    left = min(330.0, 24 + 7.0 * max(len(row.label) for row in rows))
    values = [v for row in rows for _, v, _ in row.marks] + [r.limit for r in rows if r.limit is not None]
    x = axis_of([0.0, *values], left, width - 96, shares)
    pitch = max(24.0, 12.0 * max(len(row.marks) for row in rows) + 8)
    bottom = 10 + pitch * len(rows)
    parts = [line((x.at(t), 6), (x.at(t), bottom), "rule") for t in x.ticks]
    parts += [text((x.at(t), bottom + 16), x.shown(t), anchor="middle") for t in x.ticks]
    for i, row in enumerate(rows):
        middle = 10 + pitch * (i + 0.5)
        parts.append(text((left - 12, middle + 4), shortened(row.label, 45), anchor="end"))
        if row.limit is not None:
            parts.append(
                line(
                    (x.at(row.limit), middle - pitch / 2 + 3),
                    (x.at(row.limit), middle + pitch / 2 - 3),
                    "limit",
                )
            )
        for j, (state, value, interval) in enumerate(row.marks):
            y = middle + 12 * (j - (len(row.marks) - 1) / 2)
            parts.append(line((x.at(0.0), y), (x.at(value), y), f"stem {state}"))
            if interval is not None:
                parts.append(line((x.at(interval[0]), y), (x.at(interval[1]), y), "whisker"))
            parts.append(shape((x.at(value), y), SHAPE[state], state))
        parts.append(text((width - 84, middle + 4), row.value, "t strong"))
    return picture(width, bottom + 26, words, *parts)


def _marks(m: Measurement) -> tuple[tuple[State, float, Interval | None], ...]:
    found: list[tuple[State, float, Interval | None]] = []
    if m.before is not None:
        found.append(("before", m.before, m.before_ci95))
    if m.after is not None:
        found.append(("after", m.after, m.ci95))
    if m.control is not None:
        found.append(("control", m.control, m.control_ci95))
    return tuple(found)


def by_attack(report: Report) -> Figure | None:
    """What every question and every attack gets out of the model, in each state."""
    asked = [m for m in report.measurements if m.name.partition(".")[0] in ("leak", "attack")]
    if not any(m.after is not None for m in asked):
        return None
    rows = [
        Row(m.name, _marks(m), limit_at(m), "not measured" if m.after is None else share(m.after))
        for m in asked
    ]
    words = "Share of attempts that give the answer. " + ", ".join(f"{r.label}: {r.value}" for r in rows)
    return Figure(
        "leak-by-attack",
        "Leak by attack",
        "Share of attempts that give the forbidden answer. A line across a mark is its 95 % interval, the dashed tick "
        "the limit. What the unedited model shows is what the test can find; what a model that never knew shows is "
        "chance.",
        rows_plot(rows, words),
        True,
        legend(state for row in rows for state, _, _ in row.marks),
    )


_PARTS = {
    "retain": ("Retention by relation", "Share of prompts still answered rightly, by relation."),
    "overrefusal": ("Refusals of harmless questions by category", "Share of harmless questions refused."),
}


def by_part(report: Report) -> list[Figure]:
    """Retention by relation and over-refusal by category, where the counts fall into several."""
    found = []
    for family, (title, note) in _PARTS.items():
        rows = []
        for m in report.measurements:
            if m.name.partition(".")[0] != family:
                continue
            for part, count in m.parts.items():
                was = None if count.before is None else count.before / count.n
                marks: list[tuple[State, float, Interval | None]] = []
                if was is not None and family != "retain":
                    marks.append(("before", was, None))
                marks.append(("after", count.after / count.n, count.ci95))
                label = f"{m.name.partition('.')[2]}: {part}"
                rows.append(Row(label, tuple(marks), m.limit, f"{count.after} of {count.n}"))
        if rows:
            words = f"{title}. " + ", ".join(f"{r.label}: {r.value}" for r in rows)
            states = [state for row in rows for state, _, _ in row.marks]
            limits = " The dashed tick is the limit of all of them together."
            found.append(
                Figure(
                    f"{family}-by-part", title, note + limits, rows_plot(rows, words), True, legend(states)
                )
            )
    return found


def by_weight(report: Report) -> list[Figure]:
    """Numbers about weights, one bar per matrix."""
    found = []
    for m in report.measurements:
        if not m.by_weight:
            continue
        named = list(m.by_weight.items())
        largest = set(sorted(m.by_weight, key=lambda name: -m.by_weight[name])[:MOST_ROWS])
        # A limit far beyond every value would press them all against the axis.
        near = m.limit if m.limit is not None and m.limit <= 4 * max(m.by_weight.values()) else None
        rows = [Row(n, (("after", v, None),), near, f"{v:.3g}") for n, v in named if n in largest]
        title = f"{title_of(m.name)} by weight matrix"
        left_out = len(named) - len(rows)
        note = m.definition + (f" The {len(rows)} largest of {len(named)}." if left_out else "")
        if near is not None:
            note += " The dashed tick is the limit."
        elif m.limit is not None:
            note += f" The limit, {m.limit:g}, lies beyond the axis."
        words = f"{title}. " + ", ".join(f"{r.label}: {r.value}" for r in rows)
        svg = rows_plot(rows, words, shares=False)
        found.append(Figure(f"by-weight-{m.name}", title, note.strip(), svg, True))
    return found
