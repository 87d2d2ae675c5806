"""The four kinds of figure: lines over one another, marks in rows, points in the plane, and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from unlearn.charts.axes import Axis, along, axis_of, frame, magnitudes
from unlearn.charts.svg import Look, Place, line, picture, polygon, shape, shortened, tag, text

MOST_ROWS = 60
"""Rows of a heat map or a list of weights; the ones with the largest values are shown."""


class Drawn(NamedTuple):
    """A figure and its size, in SVG units."""

    width: float
    height: float
    svg: Markup

    def picture(self, words: str) -> Markup:
        """The figure as a drawing of its own, with what it shows in words."""
        return picture(self.width, self.height, words, self.svg)


@dataclass(frozen=True)
class Line:
    """A series over x; all sequences have the length of x, and None stands where nothing was measured."""

    look: Look
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    """Lower end of an interval or range per point; empty for none."""
    high: Sequence[float | None] = ()


def lines(
    series: Sequence[Line],
    x_label: str,
    y_label: str = "",
    shares: bool = False,
    size: tuple[float, float] = (520, 316),
    reference: float | None = None,
    marked: tuple[float, float] | None = None,
) -> Drawn:
    """Lines over one another; what is no share and spans over two powers of ten is drawn by its magnitude.

    Args:
        reference: a y at which a dashed line is drawn.
        marked: a range of x with a background of its own.
    """
    width, height = size
    xs = [x for one in series for x in one.x]
    ys = [y for one in series for y in (*one.y, *one.low, *one.high, reference) if y is not None]
    x = along([*xs, *(marked or ())] or [0.0, 1.0], 64, width - 30)
    top, bottom = 34 if y_label else 12, height - 50
    y = axis_of(ys, bottom, top, True) if shares else magnitudes(ys or [0.0, 1.0], bottom, top)
    parts = []
    if marked is not None:
        left, right = x.at(marked[0]), x.at(marked[1])
        parts.append(tag("rect", x=left, y=top, width=right - left, height=bottom - top, class_="band"))
    parts.append(frame(x, y, x_label, y_label))
    if reference is not None:
        parts.append(line((x.start, y.at(reference)), (x.end, y.at(reference)), "limit"))
    parts += [_line(one, x, y) for one in series]
    if not any(y is not None for one in series for y in one.y):
        parts.append(text(((x.start + x.end) / 2, (top + bottom) / 2), "not measured", "t label", "middle"))
    return Drawn(width, height, Markup("").join(parts))


def _line(one: Line, x: Axis, y: Axis) -> Markup:
    ends = [
        (x.at(at), y.at(low), y.at(high))
        for at, low, high in zip(one.x, one.low, one.high, strict=False)
        if low is not None and high is not None
    ]
    around = [(at, low) for at, low, _ in ends] + [(at, high) for at, _, high in reversed(ends)]
    places = [(x.at(a), y.at(b)) for a, b in zip(one.x, one.y, strict=True) if b is not None]
    parts = [polygon(around, f"range {one.look.css}")] if ends else []
    if places:
        parts.append(polygon(places, f"curve {one.look.css}", "polyline"))
    return Markup("").join(parts + [shape(place, one.look.shape, one.look.css) for place in places])


class Mark(NamedTuple):
    """A value in a row, and its interval."""

    look: Look
    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """A line of a figure with one axis."""

    label: str
    marks: tuple[Mark, ...]
    limit: float | None = None
    """Where a dashed tick is drawn."""
    value: str = ""
    """In words, at the end of the row."""


def rows(found: Sequence[Row], shares: bool = True, width: float = 1040) -> Drawn:
    """Rows under each other on one axis: a mark per series with its interval, and a tick at the limit.

    What is no share and spans over two powers of ten is drawn by its magnitude.
    """
    left = min(330.0, 24 + 7.0 * max(len(row.label) for row in found))
    values = [m.value for row in found for m in row.marks] + [r.limit for r in found if r.limit is not None]
    end, most = width - 112, 6 if width > 600 else 4
    points = [0.0, *values]
    ends = [place for row in found for m in row.marks if m.interval is not None for place in m.interval]
    x = axis_of([*points, *ends], left, end, True) if shares else magnitudes(points, left, end, most)
    pitch = max(24.0, 12.0 * max(len(row.marks) for row in found) + 8)
    bottom = 10 + pitch * len(found)
    parts = [line((x.at(t), 6), (x.at(t), bottom), "rule") for t in x.ticks]
    parts += [text((x.at(t), bottom + 16), x.shown(t), anchor="middle") for t in x.ticks]
    parts += [_row(row, x, 10 + pitch * (i + 0.5), pitch, width) for i, row in enumerate(found)]
    return Drawn(width, bottom + 26, Markup("").join(parts))


def _row(row: Row, x: Axis, middle: float, pitch: float, width: float) -> Markup:
    parts = [text((x.start - 12, middle + 4), shortened(row.label, 45), anchor="end")]
    if row.limit is not None:
        at, reach = x.at(row.limit), pitch / 2 - 3
        parts.append(line((at, middle - reach), (at, middle + reach), "limit"))
    for j, (look, value, interval) in enumerate(row.marks):
        y = middle + 12 * (j - (len(row.marks) - 1) / 2)
        parts.append(line((x.at(0.0), y), (x.at(value), y), f"stem {look.css}"))
        if interval is not None:
            parts.append(line((x.at(interval[0]), y), (x.at(interval[1]), y), "whisker"))
        parts.append(shape((x.at(value), y), look.shape, look.css))
    parts.append(text((width - 98, middle + 4), row.value, "t strong"))
    return Markup("").join(parts)


@dataclass(frozen=True)
class Group:
    """Points of the plane before an edit (drawn hollow) and after it (filled)."""

    look: Look
    before: Sequence[Place]
    after: Sequence[Place]


def cloud(
    groups: Sequence[Group], x_label: str, y_label: str, size: tuple[float, float] = (520, 376)
) -> Drawn:
    """Points in the plane by group, and an arrow from the mean before to the mean after."""
    width, height = size
    points = [place for group in groups for place in (*group.before, *group.after)]
    x = axis_of([p[0] for p in points] or [0.0, 1.0], 64, width - 30)
    y = axis_of([p[1] for p in points] or [0.0, 1.0], height - 50, 34)
    parts = [frame(x, y, x_label, y_label)]
    for group in groups:
        means = []
        for fill, found in (("hollow", group.before), ("filled", group.after)):
            places = [(x.at(a), y.at(b)) for a, b in found]
            css = f"point {group.look.css} {fill}"
            parts += [shape(place, group.look.shape, css, 3.4) for place in places]
            if places:
                means.append(
                    (sum(a for a, _ in places) / len(places), sum(b for _, b in places) / len(places))
                )
        if len(means) == 2:
            parts.append(_arrow(*means))
    return Drawn(width, height, Markup("").join(parts))


def _arrow(start: Place, end: Place) -> Markup:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = (dx * dx + dy * dy) ** 0.5
    if length < 3:
        return Markup("")
    ux, uy = dx / length, dy / length
    left, right = ((end[0] - 8 * ux - 4 * s * uy, end[1] - 8 * uy + 4 * s * ux) for s in (1, -1))
    return line(start, end, "arrow") + polygon([left, end, right], "tip")


@dataclass(frozen=True)
class Heat:
    """Values by row and column, from none of the colour at 0 to all of it at `full`."""

    title: str
    columns: Sequence[str]
    values: Mapping[str, Sequence[float | None]]
    """By row; None where there is nothing."""
    full: float = 1.0


def heat(
    maps: Sequence[Heat], rows: Sequence[str], x_label: str, marked: tuple[int, int] | None = None
) -> Drawn:
    """Heat maps of the same rows beside each other.

    Args:
        maps: from left to right.
        rows: the names of the rows, downwards.
        x_label: below every map.
        marked: the first and the last of columns that are framed.
    """
    left = min(200.0, 16 + 6.6 * max((len(row) for row in rows), default=1))
    room = (1040 - left - 28 * (len(maps) - 1)) / len(maps)
    cell = min(30.0, room / max(1, max(len(one.columns) for one in maps)))
    high = 12.0 if len(rows) > 30 else 15.0
    bottom = 40 + high * len(rows)
    parts = [
        text((left - 8, 42 + high * (i + 0.78)), shortened(row, 28), "t small", "end")
        for i, row in enumerate(rows)
    ]
    start = left
    for one in maps:
        parts += [text((start, 24), one.title, "t strong"), _cells(one, rows, start, cell, high)]
        every = max(1, round(26 / cell)) if cell < 26 else 1
        parts += [
            text((start + cell * (j + 0.5), bottom + 14), column, "t small", "middle")
            for j, column in enumerate(one.columns)
            if j % every == 0
        ]
        if marked is not None:
            wide = cell * (marked[1] - marked[0] + 1)
            place = {"x": start + cell * marked[0], "y": 40.0, "width": wide, "height": bottom - 40}
            parts.append(tag("rect", class_="frame", **place))
        parts.append(text((start, bottom + 32), x_label, "t label"))
        start += cell * len(one.columns) + 28
    return Drawn(max(start, 420), bottom + 40, Markup("").join(parts))


def _cells(one: Heat, rows: Sequence[str], start: float, cell: float, high: float) -> Markup:
    parts = []
    for i, row in enumerate(rows):
        for j, value in enumerate(one.values.get(row, ())):
            if value is None:
                continue
            place = {"x": start + cell * j, "y": 40 + high * i, "width": cell - 1, "height": high - 1}
            parts.append(tag("rect", class_="cell empty", **place))
            if value > 0:
                parts.append(tag("rect", class_="cell", fill_opacity=min(1.0, value / one.full), **place))
    return Markup("").join(parts)
