"""How every picture looks, and how it is written: the same bytes for the same numbers.

Drawn without pyplot and without touching matplotlib's settings: dark on white, colours that the colour-blind can tell
apart (Okabe and Ito, 2008), and a marker and a dash of its own for every line, so that no meaning hangs on a colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unlearn.shown import shown

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

Dash = Literal["-", "--", "-.", ":"]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F6A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":")
INK, FAINT = "#222222", "#D9D9D9"
_STYLE: dict[RcKeyType, object] = {
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


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg, without a date or a version in them."""
    written = []
    with drawing():
        for kind, about in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            path = folder / f"{name}.{kind}"
            figure.savefig(path, dpi=150, format=kind, metadata=about)
            written.append(path)
    return written


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the style of this program for as long as the block lasts."""
    with matplotlib.rc_context(_STYLE):
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.09, w_pad=0.06)  # type: ignore[union-attr, call-arg]
    FigureCanvasAgg(figure)
    return figure


def caption(figure: Figure, title: str) -> None:
    """Write the title of a whole figure, in which nothing is a formula: a model may be called anything."""
    figure.suptitle(shown(title).replace("$", r"\$"), x=0.01, ha="left", fontsize=11)


class Look(TypedDict):
    """How a line is drawn."""

    color: str
    marker: str
    linestyle: Dash


def look_of(number: int) -> Look:
    """Colour, marker and dash of the line of a number; 288 lines differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }


def grid_of(figure: Figure, count: int, columns: int) -> list[Axes]:
    """So many panels, row by row."""
    return [figure.add_subplot(math.ceil(count / columns), columns, i + 1) for i in range(count)]


def remark(axes: Axes, text: str) -> None:
    """Write a small grey text above a panel, to the right."""
    axes.text(
        1.0, 1.02, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5, color="#555555"
    )
