"""Hidden states in the plane, before and after an edit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from unlearn.charts.style import COLOURS, INK, MARKERS, blank, caption, drawing, grid_of, remark


@dataclass(frozen=True)
class Cloud:
    """Hidden states of one group of prompts in the plane, before and after an edit."""

    label: str
    before: Sequence[tuple[float, float]]
    after: Sequence[tuple[float, float]]


def clouds(panels: Mapping[str, tuple[Sequence[Cloud], str]], title: str, columns: int = 3) -> Figure:
    """One panel per method: hidden states before (hollow) and after (filled), and an arrow between their means.

    Args:
        panels: by title, the clouds and a note below the title.
        title: of the figure.
        columns: panels in a row.
    """
    with drawing():
        columns = min(columns, len(panels))
        rows = math.ceil(len(panels) / columns)
        figure = blank(max(3.7 * columns + 0.4, 7.0), 3.3 * rows + 0.9)
        handles: dict[str, PathCollection] = {}
        for (name, (groups, note)), at in zip(
            panels.items(), grid_of(figure, len(panels), columns), strict=True
        ):
            at.set_title(name, fontweight="bold")
            remark(at, note)
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
        caption(figure, title)
        return figure


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    x, y = zip(*points, strict=True)
    return sum(x) / len(x), sum(y) / len(y)
