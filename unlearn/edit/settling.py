"""What the `auto` of a method's settings stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from unlearn.policy.settings import Editor, NullSpaceTuning, Settings
from unlearn.policy.settings_base import Auto

RULES: Mapping[str, Mapping[str, float | None]] = {
    "last": {"steps": 60, "lr": 0.05, "decay": 0.02, "converged": 0.001, "ridge": 0.7, "kept": 30.0,
             "null_space": 0.97, "hold": 0.7, "remnant": 0.0004, "pace": 1.5, "rounds": 14, "suppress": 0.1,
             "witnesses": 30_000},
    "subject": {"steps": 100, "lr": 0.1, "decay": 0.002, "converged": 0.02, "ridge": 0.1, "kept": 0.5,
                "null_space": 0.8, "hold": 0.95, "remnant": None, "pace": 3.0, "rounds": 8, "suppress": 0.0,
                "witnesses": 20_000},
    "both": {"steps": 60, "lr": 0.05, "decay": 0.02, "converged": 0.001, "ridge": 0.3, "kept": 30.0,
             "null_space": 0.8, "hold": 0.7, "remnant": None, "pace": 3.0, "rounds": 14, "suppress": 0.0,
             "witnesses": 0},
}  # fmt: skip
"""What `auto` stands for, by where values are written (docs/methods/alphaedit.md); a chat model's `both` goes with
`last`."""
SEVERAL = 3
"""Prompts of a relation from which on a value at the last token is taught what they have in common."""

AnySettings = TypeVar("AnySettings", bound=Settings)
Value = TypeVar("Value")


def settled(settings: AnySettings, chat: bool, forms: int = 1) -> AnySettings:
    """Replace every `auto` but that of the layers by what it stands for.

    Args:
        settings: of any method; those without an `auto` come back as they are.
        chat: whether the model has a chat template.
        forms: prompts that the edit sees of the relation with the fewest.
    """
    method: Settings = settings
    change = _rule(method, chat, forms) if isinstance(method, Editor | NullSpaceTuning) else {}
    return settings.model_copy(update=change)


def _rule(settings: Editor | NullSpaceTuning, chat: bool, forms: int) -> dict[str, object]:
    look_up: str = settings.look_up
    found: dict[str, object] = {}
    if look_up == "auto":
        found["look_up"] = look_up = "last" if chat else "both" if forms >= SEVERAL else "subject"
    rule = RULES["subject" if look_up == "subject" else "last" if chat or look_up == "last" else "both"]
    if isinstance(settings, NullSpaceTuning):
        rule = {"null_space": rule["null_space"]}
    elif settings.keys == "mean":
        rule = {**rule, "hold": None}
    asked = settings.model_dump()
    return found | {name: value for name, value in rule.items() if asked.get(name) == "auto"}


def decided(value: Value | Auto) -> Value:
    """The value of a setting that is no `auto` any more.

    Raises:
        ValueError: it still is; whoever computes with settings gets settled ones.
    """
    if value == "auto":
        raise ValueError("a setting is still `auto`: settle the settings first")
    return value  # type: ignore[return-value]
