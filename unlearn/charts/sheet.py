"""Several figures on one sheet: an SVG file that needs nothing else, in the colours of the reader's scheme."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from unlearn.charts.figures import Drawn
from unlearn.charts.svg import Look, picture, shape, tag, text
from unlearn.shown import shown_lines

_EDGE, _HEAD, _TITLE, _KEY = 16.0, 44.0, 24.0, 22.0


class Panel(NamedTuple):
    """One figure of a sheet."""

    title: str
    drawn: Drawn
    remark: str = ""


@cache
def style() -> str:
    """The style sheet of all figures."""
    return (Path(__file__).resolve().parent / "plot.css").read_text(encoding="utf-8")


def sheet(
    title: str, panels: Sequence[Panel], columns: int, looks: Sequence[Look] = (), note: str = ""
) -> str:
    """Write figures row by row, and below them the legend and a note.

    Args:
        title: of the sheet; letters that would hide or turn others are shown as what they are.
    """
    columns = min(columns, len(panels))
    wide = max(panel.drawn.width for panel in panels)
    width = 2 * _EDGE + columns * wide
    parts = [text((_EDGE, 28), title, "t title")]
    y = _HEAD
    for first in range(0, len(panels), columns):
        row = panels[first : first + columns]
        parts += [_panel(panel, _EDGE + i * wide, y, wide) for i, panel in enumerate(row)]
        y += _TITLE + max(panel.drawn.height for panel in row)
    y += _KEY
    x = _EDGE
    for look in dict.fromkeys(looks):
        step = 36 + 7.0 * len(look.label)
        if x + step > width and x > _EDGE:
            x, y = _EDGE, y + _KEY
        parts += [shape((x + 8, y - 4), look.shape, look.css), text((x + 20, y), look.label)]
        x += step
    if note:
        y += _KEY
        parts.append(text((_EDGE, y), note, "t label"))
    paper = tag("rect", width=width, height=y + _KEY, class_="paper")
    words = ". ".join(filter(None, (title, "; ".join(panel.title for panel in panels), note)))
    drawn = picture(
        width, y + _KEY, words, tag("style", Markup(style())), paper, *parts, xmlns="http://www.w3.org/2000/svg"
    )  # fmt: skip
    return shown_lines(str(drawn)) + "\n"


def _panel(panel: Panel, x: float, y: float, wide: float) -> Markup:
    remark = text((wide - 34, 16), panel.remark, "t small label", "end")
    figure = tag("g", panel.drawn.svg, transform=f"translate(0 {_TITLE:g})")
    return tag(
        "g", text((8, 16), panel.title, "t strong"), remark, figure, transform=f"translate({x:g} {y:g})"
    )
