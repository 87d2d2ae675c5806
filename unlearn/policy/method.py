"""Every method that a policy may name, and `auto`, which chooses."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from unlearn.policy.settings import AlphaEdit, AlphaEditPlus, AnyEdit, Editor, Memit, Nse, Rome, UltraEdit
from unlearn.policy.settings_base import Auto, Layers, LookUp, Settings
from unlearn.policy.settings_trained import (
    FineTune,
    GradDiff,
    Guard,
    Lora,
    Mend,
    Nothing,
    Npo,
    NullSpaceTuning,
    RepSelect,
    Rmu,
)


class Automatic(Settings):
    """`alphaedit`, or `null_space_tuning` where the keys do not distinguish requests from neighbours."""

    name: Literal["auto"] = "auto"
    layers: Auto | Layers = "auto"
    """Layers to write, ascending; `auto` takes those of the method that is chosen."""
    look_up: Auto | LookUp = "auto"
    """At the subject's last token, the last prompt token and the target's, or both; `auto`: as for `alphaedit`."""


CHOICES = ("alphaedit", "null_space_tuning")
"""What `auto` chooses from."""

Kind = (
    Automatic
    | AlphaEdit
    | AlphaEditPlus
    | AnyEdit
    | Memit
    | Nse
    | NullSpaceTuning
    | Rome
    | UltraEdit
    | FineTune
    | Lora
    | GradDiff
    | Npo
    | Rmu
    | Mend
    | RepSelect
    | Guard
    | Nothing
)
"""The settings of every method."""


def _named(method: object) -> object:
    """A method by its name alone is one with its defaults."""
    return {"name": method} if isinstance(method, str) else method


def names_of(kind: type[Settings]) -> tuple[str, ...]:
    """The names that these settings may have."""
    return tuple(map(str, get_args(kind.model_fields["name"].annotation)))


METHOD_NAMES: tuple[str, ...] = tuple(name for kind in get_args(Kind) for name in names_of(kind))
"""Every name that `method.name` takes."""
SEQUENTIAL: tuple[str, ...] = tuple(
    name
    for kind in get_args(Kind)
    if issubclass(kind, Editor | UltraEdit | Automatic)
    for name in names_of(kind)
)
"""Those that can build on an earlier edit."""

Method = Annotated[
    Annotated[Kind, Field(discriminator="name")],
    BeforeValidator(_named, json_schema_input_type=Annotated[Kind, Field(discriminator="name")] | str),
]
