"""The pictures of `unlearn compare`: one SVG file each, without any text of the policy."""

from __future__ import annotations

from collections.abc import Sequence

from unlearn.charts.figures import Drawn, Group, Line, Mark, Row, cloud, lines, rows
from unlearn.charts.sheet import Panel, sheet
from unlearn.charts.svg import Look, look_of
from unlearn.compare.document import Comparison, Point
from unlearn.compare.table import Column, cell, columns, spread_of

SIZE = (330, 250)


def measurements(found: Comparison) -> str:
    """Curves over the number of facts, or one mark per method where there is one step."""
    looks = [look_of(i, method) for i, method in enumerate(m for m in found.methods if found.edits(m))]
    drawn = _marks if found.steps == 1 else _curves
    panels = [
        Panel(column.title, drawn(found, column, looks), f"{column.better} is better")
        for column in columns(found)
    ]
    several = len(found.seeds) > 1
    about = f"{_named(found)}: {found.facts} facts"
    dashed = "The dashed line is the unedited model"
    if found.steps == 1:
        spread = "range over seeds" if several else "95 % interval"
        return sheet(
            f"{about}, written at once", panels, 3, note=f"{dashed}; a line across a mark, the {spread}."
        )
    around = f"; a coloured range spans the {len(found.seeds)} seeds" if several else ""
    return sheet(f"{about} in {found.steps} steps", panels, 4, looks, f"{dashed}{around}.")


def _reference(found: Comparison, column: Column) -> float | None:
    return max(found.points, key=lambda p: p.edits).before(column.name)


def _range(points: Sequence[Point], name: str) -> tuple[float, float] | None:
    """From the lowest to the highest value of several seeds; of one, its 95 % interval."""
    if len(points) == 1:
        return points[0].interval(name)
    known = [v for p in points if (v := p.value(name)) is not None]
    return (min(known), max(known)) if known else None


def _marks(found: Comparison, column: Column, looks: Sequence[Look]) -> Drawn:
    reference = _reference(found, column)
    shown = []
    for look in looks:
        points = found.at(look.label, found.edits(look.label)[-1])
        value, _ = spread_of(points, column.name)
        mark = () if value is None else (Mark(look, value, _range(points, column.name)),)
        said = "not measured" if value is None else cell(column, value) + " %" * column.percent
        shown.append(Row(look.label, mark, reference, said))
    return rows(shown, column.percent, 430)


def _curves(found: Comparison, column: Column, looks: Sequence[Look]) -> Drawn:
    shown = []
    for look in looks:
        edits = found.edits(look.label)
        groups = [found.at(look.label, count) for count in edits]
        values = [spread_of(group, column.name)[0] for group in groups]
        ends = [_range(group, column.name) if len(found.seeds) > 1 else None for group in groups]
        low, high = ([None if end is None else end[i] for end in ends] for i in (0, 1))
        shown.append(Line(look, edits, values, low, high))
    return lines(shown, "facts written", "", column.percent, SIZE, _reference(found, column))


def hidden_states(found: Comparison) -> str | None:
    """Hidden states before and after, per method at its last step with the first seed; None if there are none."""
    panels: list[Panel] = []
    looks: list[Look] = []
    for method in found.methods:
        drawn = [p for p in found.points if p.method == method and p.states]
        if not drawn:
            continue
        before, after = max(drawn, key=lambda p: (p.edits, -found.seeds.index(p.seed))).states
        groups = [
            Group(look_of(i, f"{name} prompts"), before.points[name], after.points[name])
            for i, name in enumerate(before.points)
        ]
        looks += [group.look for group in groups]
        panels.append(Panel(method, cloud(groups, before.x_label, before.y_label, (380, 320))))
    if not panels:
        return None
    note = "Hollow before the edit, filled after it; arrows join the means."
    return sheet(f"Hidden states at the last prompt token, {_named(found)}", panels, 3, looks, note)


def _named(found: Comparison) -> str:
    # Of a folder or a hub id the last part: a title has one line.
    return f"{found.policy} on {found.model.rstrip('/').rpartition('/')[2]}"
