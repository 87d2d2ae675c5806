"""The terms of the one equation for every space in which an update may lie (docs/equation.md)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import Metric, Projector, Spectrum, Whitener
from unlearn.algebra.neurons import Restricted, most_active
from unlearn.algebra.relax import relaxed
from unlearn.algebra.write import Kept, project, write, yielding
from unlearn.edit.null_space import Spared
from unlearn.edit.settings import ClosedForm, Confined, Equality, FewNeurons, GivingWay, Space, Whitened
from unlearn.edit.statistics import Statistics


@dataclass(frozen=True)
class Problem:
    """What one layer is asked to do for one batch."""

    statistics: Statistics
    keys: Tensor
    """(d_in, n)."""
    residuals: Tensor
    """(d_out, n)."""
    kept: Kept | None
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
    kept: Kept | None = None
    """``Z``, where a space has others than the problem."""


def update(problem: Problem, form: ClosedForm) -> tuple[LowRank, int]:
    """The update of one layer, and the dimension of the space in which it was free to write."""
    terms = terms_of(problem, form.space)
    kept = terms.kept or problem.kept
    delta = write(problem.keys, problem.residuals, terms.metric, terms.ridge, kept, terms.absolute)
    if form.project is None:
        return delta, terms.metric.rank
    projector = _projector(problem.statistics, form.project, terms.metric)
    return project(delta, projector), projector.rank


def terms_of(problem: Problem, space: Space) -> Terms:
    """A layer's terms in a space."""
    spectrum = problem.statistics.spectrum
    match space:
        case FewNeurons():
            chosen = most_active(problem.keys, space.neurons)
            inner = Whitener(_among(problem.statistics, chosen), shift=space.shift)
            return Terms(Restricted(chosen, inner), _ridge(problem, space), space.published)
        case Whitened():
            return Terms(spectrum.whitened(space.shift), _ridge(problem, space), space.published)
        case GivingWay():
            return _giving_way(problem, space)
        case Confined():
            return Terms(space.spared.projector(spectrum), _ridge(problem, space), space.published)
        case Equality():
            return Terms(spectrum.whitened(), ridge=0.0)


def _projector(statistics: Statistics, spared: Spared, metric: Metric) -> Metric:
    """``P``; for an update of a few neurons, the null space of their own moments, so that no other is touched."""
    if not isinstance(metric, Restricted):
        return spared.projector(statistics.spectrum)
    return Restricted(metric.neurons, spared.projector(_among(statistics, metric.neurons)))


def _among(statistics: Statistics, neurons: Tensor) -> Spectrum:
    """Spectrum of the moments among some neurons, computed where the keys are; not of experts (`allowed`)."""
    at = neurons.to(statistics.second.device)
    return Spectrum.of(statistics.second[at][:, at].to(neurons.device))


def _ridge(problem: Problem, space: Whitened | Confined) -> float:
    """The ridge of a space, as it is to be taken in this round of writing.

    Relative to the keys, it grows with their weights: where nothing else holds against them, a round that raises them
    would write what the one before it wrote.
    """
    alone = problem.kept is None and not space.published
    return space.ridge / problem.raised if alone else space.ridge


def _giving_way(problem: Problem, space: GivingWay) -> Terms:
    """AlphaEdit+: the null space is widened while that pays, and kept keys yield to keys that they conflict with."""
    spectrum, keys = problem.statistics.spectrum, problem.keys
    assert isinstance(spectrum, Spectrum)  # `allowed` refuses this method for experts
    count = space.spared.count(spectrum)
    base = Projector.null_space(spectrum, count)
    wide = keys.double()
    scale = 1.0 if space.published else float((wide * base.apply(wide)).sum(0).mean())
    ridge = _ridge(problem, space) * scale
    kept = None if problem.kept is None else _yielded(problem.kept.columns, problem)
    # Where no request reaches the null space at all there is no scale to compare a wider one with.
    if space.relax is None or ridge <= 0:
        return Terms(base, ridge, True, kept)
    # As published, the least gain is per direction, ten directions at a time.
    least, step = (space.relax * len(keys), 10) if space.published else (space.relax, None)
    columns = kept.columns if kept else None
    metric = relaxed(keys, problem.residuals, spectrum, count, ridge, least, columns, step)
    return Terms(metric, ridge, True, kept)


def _yielded(kept: Tensor, problem: Problem) -> Kept:
    weights = yielding(kept, problem.keys) * (problem.number + 1)
    return Kept(kept * weights.sqrt().to(kept))
