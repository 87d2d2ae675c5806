"""Baselines that are not closed-form editors, for an honest comparison: one row and one function each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unlearn.edit.baselines import rmu as _rmu
from unlearn.edit.baselines.fine_tune import chosen_layer, ft_m
from unlearn.edit.baselines.guard import guard, nothing
from unlearn.edit.baselines.lora import lora
from unlearn.edit.baselines.preference import grad_diff, npo
from unlearn.model.adapters import linears
from unlearn.model.editable import EditableModel
from unlearn.patch import Patch
from unlearn.policy.settings_base import Settings
from unlearn.policy.settings_baselines import FineTune, GradDiff, Lora, Npo, Rmu

BASELINES: Mapping[str, Callable[..., Patch]] = {
    "ft_m": ft_m,
    "lora": lora,
    "grad_diff": grad_diff,
    "npo": npo,
    "rmu": _rmu.rmu,
    "guard": guard,
    "none": nothing,
}
"""Name to ``function(model, requests, settings, progress) -> Patch``; the model is bit-identical on return."""


def layers(model: EditableModel, settings: Settings) -> tuple[int, ...]:
    """The layers that a baseline changes; none for those that leave the weights alone.

    Raises:
        PolicyError: a layer that the model does not have.
    """
    if isinstance(settings, FineTune):
        return (chosen_layer(model, settings),)
    if isinstance(settings, Rmu):
        return tuple(_rmu.layers(model, settings))
    return tuple(range(model.anatomy.layers)) if isinstance(settings, Lora | GradDiff | Npo) else ()


def weights(model: EditableModel, settings: Settings) -> list[str]:
    """Names of the weights that a baseline changes."""
    if isinstance(settings, Lora | GradDiff | Npo):
        return linears(model, settings.targets)
    return [model.anatomy.weight_name(layer) for layer in layers(model, settings)]
