"""Pictures of what was measured: plain numbers in, figures out, the same bytes for the same numbers."""

from __future__ import annotations

from unlearn.charts.clouds import Cloud, clouds
from unlearn.charts.heat import Heat, heat_maps
from unlearn.charts.lines import Line, Panel, curves, dots
from unlearn.charts.style import save

__all__ = ["Cloud", "Heat", "Line", "Panel", "clouds", "curves", "dots", "heat_maps", "save"]
