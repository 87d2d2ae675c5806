"""What `unlearn apply --tune` searches: the settings that a method has, their ranges, and windows of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unlearn.errors import PolicyError
from unlearn.policy import Policy

if TYPE_CHECKING:
    import optuna

    from unlearn.model.editable import EditableModel

Range = tuple[float, float, bool]
"""Least, most, and whether the scale is logarithmic."""
RANGES: Mapping[str, Range] = {
    "ridge": (0.02, 5.0, True),
    "null_space": (0.5, 0.995, False),
    "clamp": (0.5, 4.0, True),
    "lr": (0.01, 0.3, True),
    "decay": (0.0005, 0.1, True),
    "kept": (0.3, 100.0, True),
    "hold": (0.3, 0.95, False),
    "remnant": (1e-5, 1e-2, True),
    "rank": (2, 64, True),
    "steps": (20, 200, True),
    "weight": (0.1, 10.0, True),
}
"""What is searched, for methods that have it and whose policy does not switch it off."""
WHOLE = ("rank", "steps", "descent")
FEWEST, MOST = 1, 5
"""How many layers in a row are tried."""


def searched(own: Any, trained: int = 0) -> dict[str, Range]:
    """The ranges that apply: a setting that the method lacks, or that is switched off with null or 0, is left alone.

    Where the policy's own settings train the update, what is solved for has no part in it.
    """
    if trained:
        return {"null_space": RANGES["null_space"], "descent": (max(1, trained // 2), 2 * trained, True)}
    found = {}
    for name, limits in RANGES.items():
        value = getattr(own, name, None)
        if name in type(own).model_fields and value is not None and value != 0:
            found[name] = limits
    return found


def _windows(model: EditableModel) -> list[tuple[int, ...]]:
    depth = model.anatomy.layers
    most = min(MOST, depth)
    return [tuple(range(a, a + n)) for n in range(FEWEST, most + 1) for a in range(depth - n + 1)]


def start(model: EditableModel, policy: Policy) -> dict[str, Any]:
    """The policy's own settings as a point of the search space, so that the sampler learns from them."""
    from unlearn.edit.pipeline import plan_layers, settings_for

    own, settings = policy.method, settings_for(model, policy)
    point: dict[str, Any] = {}
    for name, (least, most, _) in searched(own).items():
        value = min(max(float(getattr(settings, name)), least), most)
        point[name] = int(value) if name in WHOLE else value
    if "layers" in type(own).model_fields:
        layers = tuple(plan_layers(model, policy))
        if layers in _windows(model):
            point["layers"] = _written(layers)
    return point


def suggest(trial: optuna.Trial, model: EditableModel, own: Any, trained: int) -> dict[str, Any]:
    """A trial's point of the search space, as changes to the method's settings.

    Args:
        trial: which draws it.
        model: whose layers there are.
        own: the policy's own settings.
        trained: steps by which these train the update, 0 where they do not.

    Raises:
        PolicyError: the method has no such setting.
    """
    found: dict[str, Any] = {}
    for name, (least, most, log_scale) in searched(own, trained).items():
        if name in WHOLE:
            found[name] = trial.suggest_int(name, int(least), int(most), log=log_scale)
        else:
            found[name] = float(f"{trial.suggest_float(name, least, most, log=log_scale):.4g}")
    if "layers" in type(own).model_fields:
        windows = {_written(window): window for window in _windows(model)}
        found["layers"] = list(windows[trial.suggest_categorical("layers", list(windows))])
    if not found:
        raise PolicyError(f"method.name: {own.name} has no setting that could be searched")
    return found


def _written(layers: Sequence[int]) -> str:
    return f"{layers[0]}-{layers[-1]}"
