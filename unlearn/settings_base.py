"""What the settings of every method share: strict, frozen documents, and the guard against oversized updates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1)]
Layer = Annotated[int, Field(ge=0)]
"""Number of a block, from 0."""


class Settings(BaseModel):
    """Settings of one method."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    largest: float | None = Field(default=None, gt=0)
    """Refuse an update longer than this many times its weight; null refuses only what is not finite."""
