"""The plots of a report, drawn from its measurements and drawings: numbers and fact ids, never text."""

from __future__ import annotations

from collections.abc import Sequence

from unlearn.charts.axes import share
from unlearn.charts.figures import MOST_ROWS, Mark, Row, rows
from unlearn.report.document import Report
from unlearn.report.drawings import Cloud, Curve, Grid
from unlearn.report.html.charts import limit_at
from unlearn.report.html.drawn import STATES, Figure, cloud, curves, grouped, heat, title_of
from unlearn.report.measurement import Measurement


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


def _marks(m: Measurement) -> tuple[Mark, ...]:
    found = (
        (STATES["before"], m.before, m.before_ci95),
        (STATES["after"], m.after, m.ci95),
        (STATES["control"], m.control, m.control_ci95),
    )
    return tuple(Mark(look, value, interval) for look, value, interval in found if value is not None)


def _figure(key: str, title: str, note: str, found: Sequence[Row], shares: bool = True) -> Figure:
    words = f"{title}. " + ", ".join(f"{row.label}: {row.value}" for row in found)
    there = {mark.look for row in found for mark in row.marks}
    looks = tuple(look for look in STATES.values() if look in there) if shares else ()
    return Figure(key, title, note, rows(found, shares).picture(words), wide=True, looks=looks)


def by_attack(report: Report) -> Figure | None:
    """What every question and every attack gets out of the model, in each state."""
    asked = [m for m in report.measurements if m.name.partition(".")[0] in ("leak", "attack")]
    if not any(m.after is not None for m in asked):
        return None
    found = [
        Row(m.name, _marks(m), limit_at(m), "not measured" if m.after is None else share(m.after))
        for m in asked
    ]
    note = (
        "Share of attempts that give the forbidden answer. A line across a mark is its 95 % interval, the dashed tick "
        "the limit. What the unedited model shows is what the test can find; what a model that never knew shows is "
        "chance."
    )
    return _figure("leak-by-attack", "Leak by attack", note, found)


_PARTS = {
    "retain": ("Retention by relation", "Share of prompts still answered rightly, by relation."),
    "overrefusal": ("Refusals of harmless questions by category", "Share of harmless questions refused."),
}


def by_part(report: Report) -> list[Figure]:
    """Retention by relation and over-refusal by category, where the counts fall into several."""
    figures = []
    for family, (title, note) in _PARTS.items():
        found = []
        for m in report.measurements:
            kind, _, name = m.name.partition(".")
            if kind != family:
                continue
            for part, count in m.parts.items():
                marks = [Mark(STATES["after"], count.after / count.n, count.ci95)]
                if count.before is not None and family != "retain":
                    marks.insert(0, Mark(STATES["before"], count.before / count.n))
                found.append(Row(f"{name}: {part}", tuple(marks), m.limit, f"{count.after} of {count.n}"))
        if found:
            limits = " The dashed tick is the limit of all of them together."
            figures.append(_figure(f"{family}-by-part", title, note + limits, found))
    return figures


def by_weight(report: Report) -> list[Figure]:
    """Numbers about weights, one bar per matrix."""
    figures = []
    for m in report.measurements:
        if not m.by_weight:
            continue
        named = list(m.by_weight.items())
        largest = set(sorted(m.by_weight, key=lambda name: -m.by_weight[name])[:MOST_ROWS])
        # A limit far beyond every value would press them all against the axis.
        near = m.limit if m.limit is not None and m.limit <= 4 * max(m.by_weight.values()) else None
        found = [Row(n, (Mark(STATES["after"], v),), near, f"{v:.3g}") for n, v in named if n in largest]
        left_out = len(named) - len(found)
        note = m.definition + (f" The {len(found)} largest of {len(named)}." if left_out else "")
        if near is not None:
            note += " The dashed tick is the limit."
        elif m.limit is not None:
            note += f" The limit, {m.limit:g}, lies beyond the axis."
        title = f"{title_of(m.name)} by weight matrix"
        figures.append(_figure(f"by-weight-{m.name}", title, note.strip(), found, shares=False))
    return figures
