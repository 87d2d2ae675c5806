"""What an algorithm is told, with nothing left open.

A closed form is put together from parts (docs/equation.md), cut from the settings of a method: where it looks, how its
values are found, in which space the update may lie, what is kept, and what comes on top. What is trained takes the
settings as they are; a class here narrows those that may say `auto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import TypeAdapter

from unlearn.edit.null_space import Spared
from unlearn.policy.settings import UltraEdit
from unlearn.policy.settings_base import Count, LookUp, Share
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

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Part = TypeVar("Part", bound="DataclassInstance")


def part(kind: type[Part], numbers: Mapping[str, object]) -> Part:
    """A part, cut from a method's settings.

    Args:
        numbers: settings by name, more than the part has.

    Raises:
        ValidationError: one that the part has is still `auto`: only ``choose`` reads that.
    """
    names = [field.name for field in fields(kind) if field.name in numbers]
    return TypeAdapter(kind).validate_python({name: numbers[name] for name in names})


@dataclass(frozen=True)
class Values:
    """How values are optimised (``solve.values``)."""

    steps: int
    """Most Adam steps."""
    lr: float
    """Adam step relative to the length of the stream."""
    clamp: float
    """Longest value relative to the length of the stream."""
    decay: float
    """Weight of the value's relative length in its loss."""
    keep: float
    """Weight of the KL divergence on kept prompts of the same subject."""
    converged: float
    """The loss, in nats per target token, below which a request stops."""
    published: bool = False
    """Whether step and decay are numbers, not relative to the model."""
    unlikelihood: float = 0.0
    """Weight of the old reply's beginning still being likely."""
    unlikelihood_margin: float = 8.0
    """How unlikely that must become, in nats."""


@dataclass(frozen=True)
class Equality:
    """The metric ``C^-1``, and constraints that are met exactly (ROME)."""


@dataclass(frozen=True)
class Whitened:
    """The metric ``C^-1`` and a ridge (MEMIT, EMMET)."""

    ridge: float
    shift: float
    """Added to every eigenvalue of C, relative to their mean."""
    published: bool
    """Whether the ridge is the number in the equation, instead of relative to the keys' energy."""


@dataclass(frozen=True)
class FewNeurons(Whitened):
    """The same among the most active neurons, from the original weights, in several passes (NSE)."""

    neurons: float
    """Share of the keys' summed activation that the chosen neurons carry."""
    passes: int
    reached: float
    """Length of a residual, relative to the stream, below which a request has got there."""
    hopeless: float | None
    """And above which it is left out."""


@dataclass(frozen=True)
class Confined:
    """The null space of the corpus's keys, and a ridge (AlphaEdit)."""

    spared: Spared
    ridge: float
    published: bool


@dataclass(frozen=True)
class GivingWay(Confined):
    """A null space that is widened while that pays, and kept keys that yield (AlphaEdit+)."""

    relax: float | None


Space = Equality | Whitened | FewNeurons | Confined | GivingWay


@dataclass(frozen=True)
class Threshold:
    """Writing until the target tokens are likely enough, and no harder (``solve.threshold``)."""

    target_probability: float
    """The probability that every target token must reach on the prompts that the edit sees."""
    pace: float
    """What a column's weight is multiplied by once its tokens are likely, but not enough."""
    rounds: int
    """Most rounds of writing."""
    old_answer_ceiling: float | None = None
    """What may be left to the beginnings of the old replies; None: anything."""


@dataclass(frozen=True)
class HardNegatives:
    """Tokens of the corpus that look like a look-up token, and may not move (``solve.hard_negatives``)."""

    hard_negatives: int
    """Among how many they are looked for."""
    hard_negative_weight: float
    """Weight of the error at those that a trial update would move most."""


@dataclass(frozen=True)
class Chunks:
    """Long targets in chunks (``solve.chunks``)."""

    window: int
    """Target tokens per chunk."""
    context: float
    """Weight of the error at all other tokens of the same prompt and target."""


@dataclass(frozen=True)
class Easing:
    """Long values shortened as far as validation phrasings profit (``solve.smoothing``)."""

    smoothing: int
    """Steps between half the way and the whole."""
    far: float
    """Only values longer than this, relative to the stream, are eased."""
    published: bool
    """Whether it is a number instead."""


@dataclass(frozen=True)
class ClosedForm:
    """An update that is solved for."""

    look_up: LookUp
    prefixes: int
    """After how many sampled texts each plain form is written as well."""
    batch: int | None
    """Facts per batch; None for all at once."""
    keys: Literal["forms", "mean"]
    """A column per form of a request, or the mean over its forms."""
    values: Values
    space: Space
    kept: float = 0.0
    """Weight of a kept sibling's or neighbour's error relative to a request's."""
    earlier: float = 0.0
    """Weight of the error at keys of earlier batches and earlier edits."""
    project: Spared | None = None
    """The null space on which the finished update is projected."""
    threshold: Threshold | None = None
    hard_negatives: HardNegatives | None = None
    chunks: Chunks | None = None
    easing: Easing | None = None

    @property
    def rewinds(self) -> bool:
        """Whether values are computed, and residuals aimed, from the original weights, not those edited so far."""
        return isinstance(self.space, FewNeurons)

    @property
    def confined(self) -> Spared | None:
        """What the finished update leaves alone, if it leaves anything alone."""
        return self.space.spared if isinstance(self.space, Confined) else self.project


class Tuning(NullSpaceTuning):
    """An update that is trained inside the null space."""

    look_up: LookUp
    null_space: Share
    steps: Count

    @property
    def spared(self) -> Spared:
        """What the update leaves alone."""
        return Spared(self.null_space)


class Refusing(Lora):
    """LoRA factors that are trained towards refusals."""

    steps: Count


Adapting = Refusing | GradDiff | Npo
"""What trains LoRA factors."""
Baseline = Adapting | FineTune | Rmu | Mend
Algorithm = ClosedForm | UltraEdit | Tuning | Baseline | RepSelect | Guard | Nothing


def retained(settings: Baseline) -> tuple[float, int]:
    """Weight of a baseline's loss on kept prompts, and kept prompts per step; zeros for FT-M, which holds nothing."""
    return (0.0, 0) if isinstance(settings, FineTune) else (settings.keep, settings.kept)
