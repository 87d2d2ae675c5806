"""What the `auto` of a method's settings stands for, and the algorithm that settled ones describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from unlearn.edit.null_space import Spared
from unlearn.edit.settings import (
    Algorithm,
    Chunks,
    ClosedForm,
    Confined,
    Easing,
    Equality,
    FewNeurons,
    GivingWay,
    HardNegatives,
    Refusing,
    Space,
    Threshold,
    Tuning,
    Values,
    Whitened,
    part,
)
from unlearn.policy.presets import THRESHOLDS
from unlearn.policy.settings import AlphaEditPlus, AnyEdit, Editor, Memit, Nse, NullSpace, UltraEdit
from unlearn.policy.settings_base import Settings
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

RULES: Mapping[str, Mapping[str, float | None]] = {
    "last": {"steps": 60, "lr": 0.05, "decay": 0.02, "converged": 0.001, "ridge": 0.7, "kept": 30.0,
             "null_space": 0.97, "target_probability": 0.7, "old_answer_ceiling": 0.0004, "pace": 1.5,
             "rounds": 14, "unlikelihood": 0.1, "hard_negatives": 30_000},
    "subject": {"steps": 100, "lr": 0.1, "decay": 0.002, "converged": 0.02, "ridge": 0.1, "kept": 0.5,
                "null_space": 0.8, "target_probability": 0.95, "old_answer_ceiling": None, "pace": 3.0,
                "rounds": 8, "unlikelihood": 0.0, "hard_negatives": 20_000},
    "both": {"steps": 60, "lr": 0.05, "decay": 0.02, "converged": 0.001, "ridge": 0.3, "kept": 30.0,
             "null_space": 0.8, "target_probability": 0.7, "old_answer_ceiling": None, "pace": 3.0,
             "rounds": 14, "unlikelihood": 0.0, "hard_negatives": 0},
}  # fmt: skip
"""What `auto` stands for, by where values are written (docs/methods/alphaedit.md); a chat model's `both` goes with
`last`."""
TRAINED = 0.9
"""The share of the corpus's energy that a trained update at the last token leaves alone."""
SEVERAL = 3
"""Prompts of a relation from which on a value at the last token is taught what they have in common."""

AnySettings = TypeVar("AnySettings", bound=Settings)


def settled(settings: AnySettings, chat: bool, forms: int = 1) -> AnySettings:
    """Replace every `auto` that follows from where values are written.

    Args:
        settings: of any method; those without such an `auto` come back as they are.
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
        rule = {"null_space": TRAINED if chat or look_up == "last" else rule["null_space"]}
    elif settings.keys == "mean":
        rule = {**rule, "target_probability": None}
    asked = settings.model_dump()
    return found | {name: value for name, value in rule.items() if asked.get(name) == "auto"}


def algorithm(settings: Settings) -> Algorithm:
    """What settled settings of a method describe.

    Raises:
        ValidationError: something but the layers is still `auto`.
    """
    match settings:
        case Editor():
            return _closed_form(settings, settings.model_dump())
        case NullSpaceTuning():
            return Tuning.model_validate(settings.model_dump())
        case Lora():
            return Refusing.model_validate(settings.model_dump())
        case UltraEdit() | FineTune() | GradDiff() | Npo() | RepSelect() | Rmu() | Mend() | Guard():
            return settings
    return Nothing()


def _closed_form(settings: Editor, numbers: Mapping[str, object]) -> ClosedForm:
    parts: dict[str, object] = {
        "values": part(Values, numbers),
        "space": _space(settings, numbers),
        "threshold": None if numbers.get("target_probability") is None else part(Threshold, numbers),
        "hard_negatives": part(HardNegatives, numbers) if numbers.get("hard_negatives") else None,
        "chunks": part(Chunks, numbers) if isinstance(settings, AnyEdit) else None,
        "easing": part(Easing, numbers) if isinstance(settings, AlphaEditPlus) else None,
        "project": part(Spared, {"energy": numbers["project"]}) if numbers.get("project") else None,
    }
    return part(ClosedForm, {**numbers, **parts})


def _space(settings: Editor, numbers: Mapping[str, object]) -> Space:
    match settings:
        case Nse():
            return part(FewNeurons, numbers)
        case Memit():
            return part(Whitened, numbers)
        case AlphaEditPlus():
            return part(GivingWay, {**numbers, "spared": _spared(numbers)})
        case NullSpace():
            return part(Confined, {**numbers, "spared": _spared(numbers)})
    return Equality()


def _spared(numbers: Mapping[str, object]) -> Spared:
    threshold = THRESHOLDS.get(str(numbers["name"])) if numbers.get("published") else None
    return part(Spared, {"energy": numbers["null_space"], "threshold": threshold})
