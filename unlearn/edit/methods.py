"""The editors, each a row of one table: how requests are grouped, which metric, which ridge, which keys are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unlearn.algebra.moments import Metric, Projector, Whitener
from unlearn.edit.statistics import Statistics
from unlearn.model.anatomy import Anatomy
from unlearn.settings import AlphaEdit, Rome


@dataclass(frozen=True)
class Method:
    """What distinguishes one closed-form editor from another (docs/equation.md)."""

    metric: Callable[[Statistics, Any], Metric]
    """``A`` of the equation, from a layer's statistics and the settings."""
    ridge: Callable[[Any], float]
    """Relative to the keys' own energy."""
    layers: Callable[[Any, Anatomy], tuple[int, ...]]
    """Layers to write, ascending; the residual is shared out over them."""
    one_at_a_time: bool
    """Whether each request is a batch of its own, on the model as edited so far."""
    one_key: bool
    """Whether a request's forms are averaged to one key (and one residual) instead of a column each."""
    kept: Callable[[Any], float]
    """Weight of the keys of kept facts, which enter as columns with zero residual; 0 for a method without them."""


def default_layers(anatomy: Anatomy, look_up: str) -> tuple[int, ...]:
    """The layers that `auto` stands for.

    At the subject's last token an eighth to a quarter of the depth, as published (Llama-3-8B, 32 layers: 4 to 8). At
    the last prompt token the subject and the relation have to meet first: a third to two thirds, the last five at most.
    """
    depth = anatomy.layers
    if look_up == "subject":
        first, last = round(depth / 8), round(depth / 4)
        return tuple(range(first, min(last, first + 4) + 1))
    first, last = depth // 3, min(2 * depth // 3, depth - 1)
    return tuple(range(max(first, last - 4), last + 1))


def _alphaedit_layers(settings: AlphaEdit, anatomy: Anatomy) -> tuple[int, ...]:
    return (
        default_layers(anatomy, settings.look_up)
        if settings.layers == "auto"
        else tuple(sorted(set(settings.layers)))
    )


def _null_space(statistics: Statistics, settings: AlphaEdit) -> Projector:
    spectrum = statistics.spectrum
    if settings.threshold is not None:
        return Projector.null_space(spectrum, spectrum.kept_by_threshold(settings.threshold))
    return Projector.null_space(spectrum, spectrum.kept_by_energy(settings.null_space))


def _rome_layers(settings: Rome, anatomy: Anatomy) -> tuple[int, ...]:
    middle = default_layers(anatomy, settings.look_up)
    return (middle[len(middle) // 2] if settings.layer == "auto" else settings.layer,)


METHODS: dict[str, Method] = {
    "alphaedit": Method(
        metric=_null_space,
        ridge=lambda settings: settings.ridge,
        layers=_alphaedit_layers,
        one_at_a_time=False,
        one_key=False,
        kept=lambda settings: settings.kept,
    ),
    "rome": Method(
        metric=lambda statistics, settings: Whitener(statistics.spectrum),
        ridge=lambda settings: 0.0,
        layers=_rome_layers,
        one_at_a_time=True,
        one_key=True,
        kept=lambda settings: 0.0,
    ),
}
