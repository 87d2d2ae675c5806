"""A plot of a report with its words, and how the three states of a model are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from unlearn.charts import Look, key
from unlearn.report.drawings import State

STATES: dict[State, Look] = {
    "before": Look("unedited", "circle", "before"),
    "after": Look("candidate", "square", "after"),
    "control": Look("never knew (control)", "diamond", "control"),
}


@dataclass(frozen=True)
class Figure:
    """A plot with its words."""

    key: str
    title: str
    note: str
    svg: Markup
    wide: bool = False
    looks: tuple[Look, ...] = ()

    @property
    def legend(self) -> tuple[tuple[Markup, str], ...]:
        """A mark and its name per series."""
        return key(self.looks)
