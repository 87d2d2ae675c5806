"""What a trace has found: heat maps over tokens and layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unlearn.charts.lines import Panel
from unlearn.charts.style import COLOURS, FAINT, blank, caption, drawing, look_of


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
    with drawing():
        figure = blank(4.0 * len(maps) + 1.2, 5.6)
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
            look = look_of(i)
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
        caption(figure, title)
        return figure
