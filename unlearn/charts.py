"""Pictures of what was measured: plain numbers in, figures out, the same bytes for the same numbers.

Drawn without pyplot and without touching matplotlib's settings: dark on white, colours that the colour-blind can tell
apart (Okabe and Ito, 2008), and a marker and a dash of its own for every line, so that no meaning hangs on a colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F6A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", "--", "-.", ":")
INK, FAINT = "#222222", "#D9D9D9"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "unlearn",
    "svg.fonttype": "path",
}


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


@dataclass(frozen=True)
class Cloud:
    """Hidden states of one group of prompts in the plane, before and after an edit."""

    label: str
    before: Sequence[tuple[float, float]]
    after: Sequence[tuple[float, float]]


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg, without a date or a version in them."""
    written = []
    with _drawing():
        for kind, about in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            path = folder / f"{name}.{kind}"
            figure.savefig(path, dpi=150, format=kind, metadata=about)
            written.append(path)
    return written


@contextmanager
def _drawing() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE):
        yield


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.09, w_pad=0.06)  # type: ignore[union-attr, call-arg]
    FigureCanvasAgg(figure)
    return figure


def _look(number: int) -> dict[str, Any]:
    """Colour, marker and dash of the line of a number; 288 lines differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }


def _grid(figure: Figure, count: int, columns: int) -> list[Axes]:
    return [figure.add_subplot(math.ceil(count / columns), columns, i + 1) for i in range(count)]


def _heading(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontweight="bold")
    if panel.better:
        _note(axes, f"{panel.better} is better")


def _note(axes: Axes, text: str) -> None:
    axes.text(
        1.0, 1.02, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5, color="#555555"
    )


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
    with _drawing():
        rows = math.ceil(len(panels) / columns)
        figure = _figure(3.3 * columns, 2.35 * rows + 0.9)
        axes = _grid(figure, len(panels), columns)
        for number, (panel, at) in enumerate(zip(panels, axes, strict=True)):
            _heading(at, panel)
            if panel.reference is not None:
                at.axhline(panel.reference, color="#777777", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
            for i, line in enumerate(panel.lines):
                points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
                look = _look(i)
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
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return figure


def _legend(figure: Figure, panels: Sequence[Panel]) -> None:
    from matplotlib.lines import Line2D

    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    handles: list[Any] = [Line2D([], [], label=label, **_look(i)) for i, label in enumerate(labels)]
    if any(panel.reference is not None for panel in panels):
        handles.append(Line2D([], [], color="#777777", linestyle=(0, (4, 3)), label="unedited model"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)), handlelength=3)


def dots(panels: Sequence[Panel], title: str, columns: int = 4) -> Figure:
    """One panel per measurement, one dot per method with its 95 % interval: for methods at a single point each."""
    with _drawing():
        labels = [line.label for line in panels[0].lines]
        rows = math.ceil(len(panels) / columns)
        figure = _figure(3.1 * columns + 0.6, (0.62 + 0.24 * max(len(labels), 3)) * rows + 0.8)
        for number, (panel, at) in enumerate(zip(panels, _grid(figure, len(panels), columns), strict=True)):
            _heading(at, panel)
            if panel.reference is not None:
                at.axvline(panel.reference, color="#777777", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
            for i, line in enumerate(panel.lines):
                value = line.y[-1] if line.y else None
                look = _look(i)
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
            from matplotlib.lines import Line2D

            mark = Line2D([], [], color="#777777", linestyle=(0, (4, 3)), label="unedited model")
            figure.legend(handles=[mark], loc="outside lower center", handlelength=3)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return figure


def clouds(panels: Mapping[str, tuple[Sequence[Cloud], str]], title: str, columns: int = 3) -> Figure:
    """One panel per method: hidden states before (hollow) and after (filled), and an arrow between their means.

    Args:
        panels: by title, the clouds and a note below the title.
        title: of the figure.
        columns: panels in a row.
    """
    with _drawing():
        columns = min(columns, len(panels))
        rows = math.ceil(len(panels) / columns)
        figure = _figure(max(3.7 * columns + 0.4, 7.0), 3.3 * rows + 0.9)
        handles: dict[str, Any] = {}
        for (name, (groups, note)), at in zip(
            panels.items(), _grid(figure, len(panels), columns), strict=True
        ):
            at.set_title(name, fontweight="bold")
            _note(at, note)
            for i, cloud in enumerate(groups):
                colour, marker = COLOURS[i], MARKERS[i]
                for when, points in (("before", cloud.before), ("after", cloud.after)):
                    x, y = zip(*points, strict=True) if points else ((), ())
                    face = "none" if when == "before" else colour
                    handles[f"{cloud.label}, {when}"] = at.scatter(
                        x, y, s=18, marker=marker, facecolors=face, edgecolors=colour, linewidths=0.8,
                        alpha=0.75, zorder=2 + i,
                    )  # fmt: skip
                if cloud.before and cloud.after:
                    arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
                    at.annotate("", _mean(cloud.after), _mean(cloud.before), arrowprops=arrow, zorder=9)
            at.set_xlabel("first principal component")
            at.set_ylabel("second principal component")
            at.locator_params(nbins=5)
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=4 if columns > 1 else 2
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return figure


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    x, y = zip(*points, strict=True)
    return sum(x) / len(x), sum(y) / len(y)


@dataclass(frozen=True)
class Heat:
    """One heat map: values by (row, layer)."""

    title: str
    values: Sequence[Sequence[float]]
    """NaN where there is nothing."""


def heat_maps(
    maps: Sequence[Heat], rows: Sequence[str], panel: Panel, chosen: Sequence[int], title: str
) -> Figure:
    """Heat maps over tokens and layers side by side, and below them the lines of ``panel`` over the layers.

    Args:
        maps: one after the other, each with a colour scale of its own.
        rows: names of the rows of every map.
        panel: lines over layers.
        chosen: layers to be marked in every part.
        title: of the figure.
    """
    with _drawing():
        figure = _figure(4.0 * len(maps) + 1.2, 5.6)
        grid = figure.add_gridspec(2, len(maps), height_ratios=[1.0, 1.15])
        for number, heat in enumerate(maps):
            at = figure.add_subplot(grid[0, number])
            at.grid(False)
            at.set_facecolor("#EEEEEE")  # where there is no such token
            known = [v for line in heat.values for v in line if not math.isnan(v)]
            top = max([*known, 1e-6])
            picture = at.imshow(heat.values, aspect="auto", cmap="YlGnBu", vmin=min([*known, 0.0]), vmax=top)
            at.set_title(heat.title, fontweight="bold")
            at.set_yticks(range(len(rows)), rows if number == 0 else [""] * len(rows))
            at.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            at.set_xlabel("layer")
            figure.colorbar(picture, ax=at, shrink=0.9).ax.tick_params(labelsize=7)
            if chosen:
                at.axvline(chosen[0] - 0.5, color=COLOURS[1], linewidth=1.4)
                at.axvline(chosen[-1] + 0.5, color=COLOURS[1], linewidth=1.4)
        at = figure.add_subplot(grid[1, :])
        at.set_title(panel.title, fontweight="bold")
        if chosen:
            at.axvspan(
                chosen[0] - 0.5,
                chosen[-1] + 0.5,
                color=COLOURS[5],
                alpha=0.18,
                linewidth=0,
                label="proposed layers",
            )
        for i, line in enumerate(panel.lines):
            look = _look(i)
            at.plot(
                line.x, [math.nan if y is None else y for y in line.y], label=line.label, markersize=4, **look
            )
            if line.low and line.high:
                low, high = ([math.nan if v is None else v for v in ends] for ends in (line.low, line.high))
                at.fill_between(line.x, low, high, color=look["color"], alpha=0.12, linewidth=0)
        at.set_xlabel("layer")
        at.set_ylabel("average indirect effect")
        at.xaxis.set_major_locator(MaxNLocator(16, integer=True))
        at.set_xlim(-0.5, max(len(line.x) for line in panel.lines) - 0.5)
        at.legend(loc="best", framealpha=0.85, frameon=True, edgecolor=FAINT)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return figure
