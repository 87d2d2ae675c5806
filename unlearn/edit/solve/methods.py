"""The editors, each a row of one table with a pure function that gives the terms of the equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import Metric, Projector, Spectrum, Whitener
from unlearn.algebra.neurons import Restricted, most_active
from unlearn.algebra.relax import relaxed
from unlearn.algebra.write import project, write, yielding
from unlearn.edit.null_space import Spared
from unlearn.edit.settling import decided
from unlearn.edit.statistics import Statistics
from unlearn.policy.settings import (
    AlphaEditPlus,
    Editor,
    Emmet,
    Memit,
    MemitSequential,
    Nse,
    NullSpace,
)


@dataclass(frozen=True)
class Problem:
    """What one layer is asked to do for one batch."""

    statistics: Statistics
    keys: Tensor
    """(d_in, n)."""
    residuals: Tensor
    """(d_out, n)."""
    kept: Tensor | None
    """(d_in, m), keys with zero residual, each times the root of its weight."""
    number: int
    """How many layers of this pass were written before."""
    raised: float = 1.0
    """By how much the columns' weights were raised since the first round of writing, on average."""


@dataclass(frozen=True)
class Terms:
    """The terms of the equation besides keys and residuals."""

    metric: Metric
    """``A``."""
    ridge: float
    absolute: bool = False
    """Whether the ridge is the number in the equation, instead of relative to the keys' energy."""
    weights: Tensor | None = None
    """(m,), further weights of the kept keys."""


@dataclass(frozen=True)
class Method:
    """What distinguishes one closed-form editor from another (docs/equation.md)."""

    terms: Callable[[Problem, Editor], Terms]
    """A layer's problem and the settings to the terms of the equation."""
    confined: bool = False
    """Whether the metric is the null space's projector, instead of ``C^-1``."""
    rewinds: bool = False
    """Whether values are computed, and residuals aimed, from the original weights, not the weights edited so far."""
    chunked: bool = False
    """Whether long targets are written in chunks, each at the token before it."""
    eased: bool = False
    """Whether long values are shortened as far as validation phrasings profit from it."""


def update(method: Method, problem: Problem, settings: Editor) -> tuple[LowRank, int]:
    """The update of one layer, and the dimension of the space in which it was free to write."""
    terms = method.terms(problem, settings)
    delta = write(
        problem.keys,
        problem.residuals,
        terms.metric,
        terms.ridge,
        problem.kept,
        terms.weights,
        terms.absolute,
    )
    if settings.project == "null_space":
        projector = _projector(problem.statistics, settings, terms.metric)
        return project(delta, projector), projector.rank
    return delta, terms.metric.rank


def spared(settings: Editor) -> Spared:
    """What the null space leaves out, by the settings' relative or absolute rule."""
    return Spared(settings.null_space, settings.threshold)


def _projector(statistics: Statistics, settings: Editor, metric: Metric) -> Metric:
    """``P``; for an update of a few neurons, the null space of their own moments, so that no other is touched."""
    if not isinstance(metric, Restricted):
        return spared(settings).projector(statistics.spectrum)
    return Restricted(metric.neurons, spared(settings).projector(_among(statistics, metric.neurons)))


def _among(statistics: Statistics, neurons: Tensor) -> Spectrum:
    """Spectrum of the moments among some neurons, computed where the keys are."""
    at = neurons.to(statistics.second.device)
    return Spectrum.of(statistics.second[at][:, at].to(neurons.device))


def _ridge(problem: Problem, settings: Editor, ridge: float) -> float:
    """The ridge of the settings, as it is to be taken in this round of writing.

    Relative to the keys, it grows with their weights: where nothing else holds against them, a round that raises them
    would write what the one before it wrote.
    """
    alone = problem.kept is None and not settings.absolute
    return ridge / problem.raised if alone else ridge


def _equality(problem: Problem, settings: Editor) -> Terms:
    return Terms(Whitener(problem.statistics.spectrum), ridge=0.0)


def _whitened(problem: Problem, settings: Editor) -> Terms:
    assert isinstance(settings, Memit | MemitSequential | Emmet)
    metric = Whitener(problem.statistics.spectrum, shift=settings.shift)
    return Terms(metric, _ridge(problem, settings, settings.ridge), settings.absolute)


def _confined(problem: Problem, settings: Editor) -> Terms:
    assert isinstance(settings, NullSpace)
    ridge = _ridge(problem, settings, decided(settings.ridge))
    return Terms(spared(settings).projector(problem.statistics.spectrum), ridge, settings.absolute)


def _giving_way(problem: Problem, settings: Editor) -> Terms:
    """AlphaEdit+: the null space is widened while that pays, and kept keys yield to keys that they conflict with."""
    assert isinstance(settings, AlphaEditPlus)
    spectrum, keys = problem.statistics.spectrum, problem.keys
    count = spared(settings).count(spectrum)
    base = Projector.null_space(spectrum, count)
    wide = keys.double()
    scale = 1.0 if settings.absolute else float((wide * base.apply(wide)).sum(0).mean())
    ridge = _ridge(problem, settings, decided(settings.ridge)) * scale
    weights = None
    if problem.kept is not None:
        weights = yielding(problem.kept, keys) * (problem.number + 1)
    # Where no request reaches the null space at all there is no scale to compare a wider one with.
    if settings.relax is None or ridge <= 0:
        return Terms(base, ridge, True, weights)
    # As published, the least gain is per direction, ten directions at a time.
    least, step = (settings.relax * len(keys), 10) if settings.absolute else (settings.relax, None)
    metric = relaxed(keys, problem.residuals, spectrum, count, ridge, least, problem.kept, weights, step)
    return Terms(metric, ridge, True, weights)


def _few_neurons(problem: Problem, settings: Editor) -> Terms:
    assert isinstance(settings, Nse)
    chosen = most_active(problem.keys, settings.neurons)
    inner = Whitener(_among(problem.statistics, chosen), shift=settings.shift)
    return Terms(Restricted(chosen, inner), _ridge(problem, settings, settings.ridge), settings.absolute)


METHODS: dict[str, Method] = {
    "rome": Method(_equality),
    "memit": Method(_whitened),
    "memit_seq": Method(_whitened),
    "emmet": Method(_whitened),
    "alphaedit": Method(_confined, confined=True),
    "alphaedit_plus": Method(_giving_way, confined=True, eased=True),
    "nse": Method(_few_neurons, rewinds=True),
    "anyedit": Method(_confined, confined=True, chunked=True),
}
"""Batches, kept and earlier keys, layers and passes are settings of their own (`unlearn.policy.settings`)."""
