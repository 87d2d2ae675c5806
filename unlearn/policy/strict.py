"""What every part of a policy is: a strict, frozen document."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A part of a policy; an unknown key is an error."""

    # Inputs are hidden because a policy may hold text that must not reach logs.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
