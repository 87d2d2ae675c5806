"""Measurements of several methods: curves over the facts written, or a dot for each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from unlearn.charts.style import blank, caption, drawing, grid_of, look_of, remark


@dataclass(frozen=True)
class Line:
    """One method in one panel; x and y have the same length."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    """None where it was not measured."""
    low: Sequence[float | None] = ()
    """Lower end of an interval or range per point; empty for none."""
    high: Sequence[float | None] = ()


@dataclass(frozen=True)
class Panel:
    """One measurement of all methods."""

    title: str
    lines: Sequence[Line]
    better: str = ""
    """"higher" or "lower", or nothing."""
    percent: bool = False
    """Whether values are shares of one."""
    reference: float | None = None
    """The unedited model's value."""


def _heading(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontweight="bold")
    if panel.better:
        remark(axes, f"{panel.better} is better")


def _values(panel: Panel) -> list[float]:
    found = [y for line in panel.lines for y in line.y if y is not None]
    return found + ([panel.reference] if panel.reference is not None else [])


def _scale(axes: Axes, panel: Panel, which: str) -> None:
    """Shares from 0 to 100 %; what spans more than two powers of ten on a logarithmic axis that has a zero."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    limits = axes.set_ylim if which == "y" else axes.set_xlim
    if panel.percent:
        limits(-0.04, 1.04)
        axis.set_major_formatter(PercentFormatter(1.0))
        return
    sizes = [abs(v) for v in _values(panel) if v]
    if sizes and max(sizes) > 100 * min(sizes):
        floor = 10.0 ** math.floor(math.log10(max(min(sizes), max(sizes) * 1e-5)))
        (axes.set_yscale if which == "y" else axes.set_xscale)("symlog", linthresh=floor, linscale=0.5)
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    else:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.6g}"))


def curves(panels: Sequence[Panel], xlabel: str, title: str, columns: int = 4) -> Figure:
    """One panel per measurement, one line per method; the unedited model is a grey dashed line."""
    with drawing():
        rows = math.ceil(len(panels) / columns)
        figure = blank(3.3 * columns, 2.35 * rows + 0.9)
        axes = grid_of(figure, len(panels), columns)
        for number, (panel, at) in enumerate(zip(panels, axes, strict=True)):
            _heading(at, panel)
            if panel.reference is not None:
                at.axhline(panel.reference, color="#777777", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
            for i, line in enumerate(panel.lines):
                points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
                look = look_of(i)
                if points:
                    x, y = zip(*points, strict=True)
                    at.plot(x, y, label=line.label, markersize=4, linewidth=1.4, alpha=0.9, **look)
                band = [
                    (x, a, b)
                    for x, a, b in zip(line.x, line.low, line.high, strict=False)
                    if a is not None and b is not None
                ]
                if band:
                    x, a, b = zip(*band, strict=True)
                    at.fill_between(x, a, b, color=look["color"], alpha=0.12, linewidth=0)
            _scale(at, panel, "y")
            at.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if not any(y is not None for line in panel.lines for y in line.y):
                at.text(0.5, 0.5, "not measured", transform=at.transAxes, ha="center", color="#777777")
                at.set_xticks([])
            if number + columns >= len(panels):
                at.set_xlabel(xlabel)
        _legend(figure, panels)
        caption(figure, title)
        return figure


def _legend(figure: Figure, panels: Sequence[Panel]) -> None:
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    handles = [Line2D([], [], label=label, **look_of(i)) for i, label in enumerate(labels)]
    if any(panel.reference is not None for panel in panels):
        handles.append(Line2D([], [], color="#777777", linestyle=(0, (4, 3)), label="unedited model"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)), handlelength=3)


def dots(panels: Sequence[Panel], title: str, columns: int = 4) -> Figure:
    """One panel per measurement, one dot per method with its 95 % interval: for methods at a single point each."""
    with drawing():
        labels = [line.label for line in panels[0].lines]
        rows = math.ceil(len(panels) / columns)
        figure = blank(3.1 * columns + 0.6, (0.62 + 0.24 * max(len(labels), 3)) * rows + 0.8)
        for number, (panel, at) in enumerate(zip(panels, grid_of(figure, len(panels), columns), strict=True)):
            _heading(at, panel)
            if panel.reference is not None:
                at.axvline(panel.reference, color="#777777", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
            for i, line in enumerate(panel.lines):
                value = line.y[-1] if line.y else None
                look = look_of(i)
                if value is None:
                    at.text(
                        0.02, i, "not measured", transform=at.get_yaxis_transform(), va="center", fontsize=7
                    )
                    continue
                low, high = (line.low or [None])[-1], (line.high or [None])[-1]
                if low is not None and high is not None:
                    at.plot([low, high], [i, i], color=look["color"], linewidth=1.4, alpha=0.6)
                at.plot([value], [i], color=look["color"], marker=look["marker"], markersize=6, linestyle="")
            at.set_yticks(range(len(labels)), labels if number % columns == 0 else [""] * len(labels))
            at.set_ylim(len(labels) - 0.5, -0.5)
            at.tick_params(axis="y", length=0)
            _scale(at, panel, "x")
        if any(panel.reference is not None for panel in panels):
            mark = Line2D([], [], color="#777777", linestyle=(0, (4, 3)), label="unedited model")
            figure.legend(handles=[mark], loc="outside lower center", handlelength=3)
        caption(figure, title)
        return figure
