"""Pictures of what was measured, as SVG: plain numbers in, the same letters out every time."""

from __future__ import annotations

from unlearn.charts.axes import share
from unlearn.charts.figures import MOST_ROWS, Drawn, Group, Heat, Line, Mark, Row, cloud, heat, lines, rows
from unlearn.charts.sheet import Panel, sheet, style
from unlearn.charts.svg import Look, key, look_of

__all__ = [
    "MOST_ROWS",
    "Drawn",
    "Group",
    "Heat",
    "Line",
    "Look",
    "Mark",
    "Panel",
    "Row",
    "cloud",
    "heat",
    "key",
    "lines",
    "look_of",
    "rows",
    "share",
    "sheet",
    "style",
]
