"""The plots that attacks and the audit draw themselves: lines, heat maps and clouds of points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from markupsafe import Markup

from unlearn.charts import figures
from unlearn.charts.axes import share
from unlearn.charts.svg import Look, key, look_of
from unlearn.measurements import row_of
from unlearn.report.drawings import OLDEST, Cloud, Curve, Grid, State

T = TypeVar("T", Curve, Grid, Cloud)
STATES: dict[State, Look] = {
    "before": Look("unedited", "circle", "before"),
    "after": Look("candidate", "square", "after"),
    "control": Look("never knew (control)", "diamond", "control"),
}
_TITLES = {OLDEST: "Retention of the oldest edits"}


@dataclass(frozen=True)
class Figure:
    """A plot with its words."""

    key: str
    title: str
    note: str
    svg: Markup
    wide: bool = False
    looks: tuple[Look, ...] = ()

    @property
    def legend(self) -> tuple[tuple[Markup, str], ...]:
        """A mark and its name per series."""
        return key(self.looks)


def grouped(drawings: Iterable[T]) -> list[list[T]]:
    """Drawings of one name together, in the order of the states."""
    groups: dict[str, list[T]] = {}
    for drawing in drawings:
        groups.setdefault(drawing.name, []).append(drawing)
    order = list(STATES)
    return [sorted(group, key=lambda d: order.index(d.state)) for group in groups.values()]


def title_of(name: str) -> str:
    """The title of a measurement's plot."""
    row = row_of(name)
    return row.title if row and row.title else _TITLES.get(name, name)


def curves(same: Sequence[Curve]) -> Figure:
    """Lines over one another, such as relearning over steps."""
    first, looks = same[0], [STATES[c.state] for c in same]
    row = row_of(first.name)
    shares = all(0.0 <= y <= 1.0 for c in same for y in c.y) and (row is None or row.unit == "share")
    series = [figures.Line(look, c.x, c.y) for look, c in zip(looks, same, strict=True)]
    said = "; ".join(f"{look.label}: {_reach(c.y)}" for look, c in zip(looks, same, strict=True))
    plain = f"{title_of(first.name)} by {first.x_label}"
    title = "Relearning: " + first.name if "relearn" in first.name else plain
    note = f"{first.y_label[:1].upper()}{first.y_label[1:]} over {first.x_label}."
    drawn = figures.lines(series, first.x_label, first.y_label, shares)
    return Figure(
        f"curve-{first.name}", title, note, drawn.picture(f"{title}. {note} {said}"), looks=tuple(looks)
    )


def _reach(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}" if values else "nothing"


def heat(same: Sequence[Grid]) -> Figure:
    """Heat maps beside each other, one per state: facts by layer."""
    first = same[0]
    strength = {row: 0.0 for row in first.rows}
    for grid in same:
        for row, values in zip(grid.rows, grid.values, strict=True):
            strength[row] = max(strength.get(row, 0.0), *values, 0.0)
    kept = set(sorted(strength, key=lambda row: -strength[row])[: figures.MOST_ROWS])
    rows = [row for row in strength if row in kept]
    maps = [
        figures.Heat(STATES[g.state].label, g.columns, dict(zip(g.rows, g.values, strict=True))) for g in same
    ]
    title = title_of(first.name)
    said = "; ".join(f"{STATES[g.state].label}: {_mean(g)} on average" for g in same)
    words = f"{title}. {first.value_label} by fact and {first.x_label}. {said}"
    left_out = len(strength) - len(rows)
    some = f" The {len(rows)} facts with the highest values of {len(strength)}." if left_out else ""
    note = f"{first.value_label}, by fact and {first.x_label}; empty is 0, full is 1.{some}"
    drawn = figures.heat(maps, rows, first.x_label)
    return Figure(f"heat-{first.name}", title, note, drawn.picture(words), wide=True)


def _mean(grid: Grid) -> str:
    values = [v for row in grid.values for v in row]
    return share(sum(values) / len(values)) if values else "nothing"


def cloud(same: Sequence[Cloud]) -> Figure:
    """Points in the plane by group, before the edit and after it."""
    first = same[0]
    names = dict.fromkeys(name for c in same for name in c.points)

    def points(name: str, state: State) -> list[tuple[float, float]]:
        return [place for c in same if c.state == state for place in c.points.get(name, ())]

    groups = [
        figures.Group(look_of(i, name), points(name, "before"), points(name, "after"))
        for i, name in enumerate(names)
    ]
    title = title_of(first.name)
    said = "; ".join(f"{g.look.label}: {len(g.before) + len(g.after)} points" for g in groups)
    note = (
        "Each mark is a prompt: hollow on the unedited model, filled on the candidate; arrows join the means."
    )
    drawn = figures.cloud(groups, first.x_label, first.y_label)
    looks = tuple(group.look for group in groups)
    return Figure(f"cloud-{first.name}", title, note, drawn.picture(f"{title}. {said}"), looks=looks)
