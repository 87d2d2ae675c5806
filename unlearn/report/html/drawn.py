"""The plots that attacks and the audit draw themselves: lines, heat maps and clouds of points, as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from markupsafe import Markup

from unlearn.measurements import row_of
from unlearn.report.drawings import Cloud, Curve, Grid
from unlearn.report.html.svg import (
    MOST_ROWS,
    SHAPE,
    SHAPES,
    STATE_WORDS,
    STATES,
    Figure,
    are_shares,
    axis_of,
    frame,
    key,
    legend,
    line,
    picture,
    shape,
    share,
    shortened,
    tag,
    text,
)

T = TypeVar("T", Curve, Grid, Cloud)


def grouped(drawings: Iterable[T]) -> list[list[T]]:
    """Drawings of one name together, in the order of the states."""
    groups: dict[str, list[T]] = {}
    for drawing in drawings:
        groups.setdefault(drawing.name, []).append(drawing)
    return [sorted(group, key=lambda d: STATES.index(d.state)) for group in groups.values()]


def _reach(values: Iterable[float]) -> str:
    found = list(values)
    return "nothing" if not found else f"{min(found):.3g} to {max(found):.3g}"


def curves(same: Sequence[Curve]) -> Figure:
    """Lines over one another, such as relearning over steps."""
    ys, xs = [y for c in same for y in c.y], [x for c in same for x in c.x]
    x = axis_of(xs or [0.0, 1.0], 64, 490)
    y = axis_of(ys or [0.0, 1.0], 266, 34, are_shares(ys))
    parts = [frame(x, y, same[0].x_label, same[0].y_label)]
    for c in same:
        places = [(x.at(a), y.at(b)) for a, b in zip(c.x, c.y, strict=True)]
        path = " ".join(f"{a:.2f},{b:.2f}" for a, b in places)
        parts.append(tag("polyline", points=path, class_=f"curve {c.state}"))
        parts += [shape(place, SHAPE[c.state], c.state) for place in places]
    said = "; ".join(f"{STATE_WORDS[c.state]}: {_reach(c.y)}" for c in same)
    title = "Relearning: " + same[0].name if "relearn" in same[0].name else same[0].name
    words = f"{title}. {same[0].y_label} over {same[0].x_label}. {said}"
    note = f"{same[0].y_label} over {same[0].x_label}."
    svg = picture(520, 316, words, *parts)
    return Figure(f"curve-{same[0].name}", title, note, svg, legend=legend(c.state for c in same))


def heat(same: Sequence[Grid]) -> Figure:
    """Heat maps beside each other, one per state: facts by layer."""
    first = same[0]
    strength = {row: 0.0 for row in first.rows}
    for grid in same:
        for row, values in zip(grid.rows, grid.values, strict=True):
            strength[row] = max(strength.get(row, 0.0), *values, 0.0)
    kept = set(sorted(strength, key=lambda row: -strength[row])[:MOST_ROWS])
    rows = [row for row in strength if row in kept]
    left = min(200.0, 16 + 6.6 * max((len(row) for row in rows), default=1))
    room = (1040 - left - 28 * (len(same) - 1)) / len(same)
    cell = min(30.0, room / max(1, max(len(g.columns) for g in same)))
    high = 12.0 if len(rows) > 30 else 15.0
    parts = [
        text((left - 8, 42 + high * (i + 0.78)), shortened(r, 28), "t small", "end")
        for i, r in enumerate(rows)
    ]
    start = left
    for grid in same:
        parts.append(text((start, 24), STATE_WORDS[grid.state], "t strong"))
        values_of = dict(zip(grid.rows, grid.values, strict=True))
        for i, row in enumerate(rows):
            for j, value in enumerate(values_of.get(row, ())):
                at = {"x": start + cell * j, "y": 40 + high * i, "width": cell - 1, "height": high - 1}
                full = min(1.0, max(0.0, value))
                parts.append(tag("rect", class_="cell empty", **at))
                if full > 0:
                    parts.append(tag("rect", class_="cell", fill_opacity=full, **at))
        bottom = 40 + high * len(rows)
        every = max(1, round(26 / cell)) if cell < 26 else 1
        for j, column in enumerate(grid.columns):
            if j % every == 0:
                parts.append(text((start + cell * (j + 0.5), bottom + 14), column, "t small", "middle"))
        parts.append(text((start, bottom + 32), grid.x_label, "t label"))
        start += cell * len(grid.columns) + 28
    title = title_of(first.name)
    said = "; ".join(f"{STATE_WORDS[g.state]}: {_mean(g)} on average" for g in same)
    words = f"{title}. {first.value_label} by fact and {first.x_label}. {said}"
    left_out = len(strength) - len(rows)
    some = f" The {len(rows)} facts with the highest values of {len(strength)}." if left_out else ""
    note = f"{first.value_label}, by fact and {first.x_label}; empty is 0, full is 1.{some}"
    svg = picture(max(start, 420), 40 + high * len(rows) + 40, words, *parts)
    return Figure(f"heat-{first.name}", title, note, svg, True)


def _mean(grid: Grid) -> str:
    values = [v for row in grid.values for v in row]
    return share(sum(values) / len(values)) if values else "nothing"


def title_of(name: str) -> str:
    """The title of a measurement's plot."""
    row = row_of(name)
    return row.title if row and row.title else name


def cloud(same: Sequence[Cloud]) -> Figure:
    """Points in a plane by group, hollow before and filled after, and an arrow from mean to mean."""
    groups = list(dict.fromkeys(group for c in same for group in c.points))
    points = [p for c in same for group in c.points.values() for p in group]
    x = axis_of([p[0] for p in points] or [0.0, 1.0], 64, 490)
    y = axis_of([p[1] for p in points] or [0.0, 1.0], 326, 34)
    parts = [frame(x, y, same[0].x_label, same[0].y_label)]
    for i, group in enumerate(groups):
        kind, means = SHAPES[i % len(SHAPES)], []
        for c in same:
            places = [(x.at(a), y.at(b)) for a, b in c.points.get(group, ())]
            fill = "hollow" if c.state == "before" else "filled"
            parts += [shape(place, kind, f"point g{i % 4} {fill}", 3.4) for place in places]
            if places and c.state in ("before", "after"):
                means.append(_centre(places))
        if len(means) == 2:
            parts.append(_arrow(*means))
    title = title_of(same[0].name)
    said = "; ".join(f"{group}: {sum(len(c.points.get(group, ())) for c in same)} points" for group in groups)
    note = (
        "Each mark is a prompt: hollow on the unedited model, filled on the candidate; arrows join the means."
    )
    marks = tuple(
        (key(shape((8, 7), SHAPES[i % len(SHAPES)], f"point g{i % 4} filled", 3.4)), group)
        for i, group in enumerate(groups)
    )
    svg = picture(520, 376, f"{title}. {said}", *parts)
    return Figure(f"cloud-{same[0].name}", title, note, svg, legend=marks)


def _centre(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(p[0] for p in places) / len(places), sum(p[1] for p in places) / len(places)


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> Markup:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = (dx * dx + dy * dy) ** 0.5
    if length < 3:
        return Markup("")
    ux, uy = dx / length, dy / length
    tip = [(end[0] - 8 * ux - 4 * s * uy, end[1] - 8 * uy + 4 * s * ux) for s in (1, -1)]
    corners = " ".join(f"{a:.2f},{b:.2f}" for a, b in (tip[0], end, tip[1]))
    return line(start, end, "arrow") + tag("polygon", points=corners, class_="tip")
