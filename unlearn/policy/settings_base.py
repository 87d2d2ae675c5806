"""What the settings of every method share: strict, frozen documents, and the guard against oversized updates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from unlearn.policy.strict import Strict

T = TypeVar("T")

Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1)]
Layer = Annotated[int, Field(ge=0)]
"""Number of a block, from 0."""
Layers = Annotated[tuple[Layer, ...], Field(min_length=1)]
LookUp = Literal["subject", "last", "both"]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Chance = Annotated[float, Field(gt=0, lt=1)]
MOST = 1_000_000
"""Of anything that a method or an audit counts: more would never end, or fit nowhere."""


def countable(value: T) -> T:
    """Check that a field's value, or each of several, is no number beyond `MOST`; for validators of pydantic."""
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(number, int) and number > MOST for number in numbers):
        raise PydanticCustomError("countable", f"expected at most {MOST:,}")
    return value


class Settings(Strict):
    """Settings of one method."""

    if TYPE_CHECKING:
        name: str
        """What a policy calls the method; every method has a field of its own for it."""

    largest: float | None = Field(default=None, gt=0)
    """Refuse an update longer than this many times its weight; null refuses only what is not finite."""

    @field_validator("*")
    @classmethod
    def _countable(cls, value: T) -> T:
        return countable(value)
