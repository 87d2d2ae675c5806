"""What a report's plots show: plain numbers by state of the model, never text."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unlearn.report.measurement import Document

OLDEST = "edit.oldest"
"""A curve that belongs to no measurement: how much of its first batch an edit keeps while later ones are written."""
State = Literal["before", "after", "control"]


class Curve(Document):
    """A line of a plot: curves of one measurement are drawn together, one line per state."""

    kind: Literal["curve"] = "curve"
    name: str
    """The measurement that it belongs to, such as "attack.relearn_text"; or `OLDEST`."""
    state: State = "after"
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"the curve {self.name} has {len(self.x)} places but {len(self.y)} values")
        return self


class Grid(Document):
    """A heat map: one row per fact id, one column per layer or step."""

    kind: Literal["grid"] = "grid"
    name: str
    state: State = "after"
    x_label: str
    value_label: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    """By row, from 0 to 1."""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if len(self.values) != len(self.rows) or any(len(row) != len(self.columns) for row in self.values):
            raise ValueError(f"the grid {self.name} needs one value per row and column")
        return self


class Cloud(Document):
    """Points of a plane, by group."""

    kind: Literal["cloud"] = "cloud"
    name: str
    state: State = "after"
    x_label: str
    y_label: str
    points: dict[str, tuple[tuple[float, float], ...]]


Drawing = Annotated[Curve | Grid | Cloud, Field(discriminator="kind")]
