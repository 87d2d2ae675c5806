"""What `unlearn apply --tune` searches: the settings that a method has, their ranges, and windows of layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn.errors import PolicyError
from unlearn.files import JsonObject
from unlearn.policy.settings_base import Settings

if TYPE_CHECKING:
    import optuna

    from unlearn.model.editable import EditableModel

RANGES: Mapping[str, tuple[float, float, bool]] = {
    "ridge": (0.02, 5.0, True),
    "null_space": (0.5, 0.995, False),
    "clamp": (0.5, 4.0, True),
    "lr": (0.01, 0.3, True),
    "decay": (0.0005, 0.1, True),
    "kept": (0.3, 100.0, True),
    "target_probability": (0.3, 0.95, False),
    "old_answer_ceiling": (1e-5, 1e-2, True),
}
"""Least and most of what is searched where it is any number, and whether the scale is logarithmic."""
FACTORS: Mapping[str, int] = {"rank": 8, "steps": 3, "kept": 4}
"""What is searched where it is a whole number: from the method's own divided by this to it times this, by ratios."""
FEWEST, MOST = 1, 5
"""How many layers in a row are tried."""


@dataclass(frozen=True)
class Span:
    """What is tried of one setting: numbers that its field takes."""

    least: float
    most: float
    log: bool
    whole: bool = False

    def nearest(self, value: float) -> float:
        """The number of the span that is nearest to a value."""
        return min(max(value, self.least), self.most)

    def drawn(self, trial: optuna.Trial, name: str) -> float:
        """A trial's number: a whole one where the field wants it, else one of four digits."""
        if self.whole:
            return int(trial.suggest_int(name, int(self.least), int(self.most), log=self.log))
        return self.nearest(float(f"{trial.suggest_float(name, self.least, self.most, log=self.log):.4g}"))


def searched(settings: Settings) -> dict[str, Span]:
    """What is tried of each setting; one that the method lacks, or that is switched off with null or 0, is left alone.

    Args:
        settings: of the method, without an `auto` (``choose.settle``).
    """
    fields, values = type(settings).model_json_schema()["properties"], settings.model_dump()
    return {
        name: _span(name, _number(fields[name]), values[name])
        for name in dict.fromkeys([*RANGES, *FACTORS])
        if name in fields and values[name]
    }


def _number(field: JsonObject) -> JsonObject:
    """The part of a field's JSON schema that says which numbers it takes."""
    return next(kind for kind in field.get("anyOf", [field]) if kind.get("type") in ("integer", "number"))


def _span(name: str, field: JsonObject, own: float) -> Span:
    whole = field["type"] == "integer"
    if whole:
        least, most, log = max(1, own // FACTORS[name]), own * FACTORS[name], True
    else:
        least, most, log = RANGES[name]
    above, below = field.get("exclusiveMinimum", -math.inf), field.get("exclusiveMaximum", math.inf)
    # Between whole numbers as between any others: the next one is at least this far away.
    least = max(
        least, field.get("minimum", -math.inf), above + 1 if whole else math.nextafter(above, math.inf)
    )
    most = min(most, field.get("maximum", math.inf), below - 1 if whole else math.nextafter(below, -math.inf))
    return Span(least, most, log, whole)


def _windows(model: EditableModel) -> list[tuple[int, ...]]:
    depth = model.anatomy.layers
    most = min(MOST, depth)
    return [tuple(range(a, a + n)) for n in range(FEWEST, most + 1) for a in range(depth - n + 1)]


def start(model: EditableModel, settings: Settings, layers: tuple[int, ...]) -> dict[str, object]:
    """The policy's own settings as a point of the search space, so that the sampler learns from them.

    Args:
        settings: without an `auto`.

    Raises:
        PolicyError: the method has no setting that could be searched.
    """
    values = settings.model_dump()
    point: dict[str, object] = {name: span.nearest(values[name]) for name, span in searched(settings).items()}
    if "layers" in values:
        if layers in _windows(model):
            point["layers"] = _written(layers)
    elif not point:
        raise PolicyError(f"method.name: {settings.name} has no setting that could be searched")
    return point


def suggest(trial: optuna.Trial, model: EditableModel, settings: Settings) -> dict[str, object]:
    """A trial's point of the search space, as changes to the method's settings.

    Args:
        settings: the policy's own, without an `auto`.
    """
    found: dict[str, object] = {name: span.drawn(trial, name) for name, span in searched(settings).items()}
    if "layers" in type(settings).model_fields:
        windows = {_written(window): window for window in _windows(model)}
        found["layers"] = list(windows[trial.suggest_categorical("layers", list(windows))])
    return found


def _written(layers: Sequence[int]) -> str:
    return f"{layers[0]}-{layers[-1]}"
