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
from unlearn.edit.statistics import Statistics
from unlearn.model.anatomy import Anatomy
from unlearn.policy.settings import (
    AlphaEditPlus,
    Editor,
    Emmet,
    Layered,
    Memit,
    MemitSequential,
    Nse,
    NullSpace,
    Rome,
)
from unlearn.policy.settling import decided


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


def solve(method: Method, problem: Problem, settings: Editor) -> tuple[LowRank, int]:
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


def kept_directions(spectrum: Spectrum, settings: Editor) -> int:
    """How many leading directions of the corpus the null space leaves out."""
    if settings.threshold is not None:
        return spectrum.kept_by_threshold(settings.threshold)
    return spectrum.kept_by_energy(settings.null_space)


def null_space(statistics: Statistics, settings: Editor) -> Projector:
    """``P`` of a layer, by the settings' relative or absolute rule."""
    spectrum = statistics.spectrum
    return Projector.null_space(spectrum, kept_directions(spectrum, settings))


def _projector(statistics: Statistics, settings: Editor, metric: Metric) -> Metric:
    """``P``; for an update of a few neurons, the null space of their own moments, so that no other is touched."""
    if not isinstance(metric, Restricted):
        return null_space(statistics, settings)
    spectrum = _among(statistics, metric.neurons)
    return Restricted(metric.neurons, Projector.null_space(spectrum, kept_directions(spectrum, settings)))


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
    return Terms(null_space(problem.statistics, settings), ridge, settings.absolute)


def _giving_way(problem: Problem, settings: Editor) -> Terms:
    """AlphaEdit+: the null space is widened while that pays, and kept keys yield to keys that they conflict with."""
    assert isinstance(settings, AlphaEditPlus)
    spectrum, keys = problem.statistics.spectrum, problem.keys
    count = kept_directions(spectrum, settings)
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


FEWEST = 4
"""Layers that share a residual at the subject's token; a shallow model's share of the depth would be one or two."""


def default_layers(anatomy: Anatomy, look_up: str) -> tuple[int, ...]:
    """The layers that `auto` stands for.

    At the subject's last token the family's published share of the depth (Llama-3-8B, 32 layers: 4 to 8), widened in a
    shallow model to four layers, so that none has to carry much. At the last prompt token the subject and the relation
    have to meet first: a third to two thirds, the last five at most.
    """
    depth = anatomy.layers
    if look_up == "subject":
        first, last = (round(depth * share) for share in anatomy.family.early)
        down = True
        while last - first < min(FEWEST, depth - 1) - 1:
            first, last = (first - 1, last) if (down and first) or last + 2 >= depth else (first, last + 1)
            down = not down
        return tuple(range(first, min(last, first + 4) + 1))
    first, last = depth // 3, min(2 * depth // 3, depth - 1)
    return tuple(range(max(first, last - 4), last + 1))


def layers_of(settings: Editor, anatomy: Anatomy, trained: bool = False) -> tuple[int, ...]:
    """The layers that an editor's settings ask for, ascending; the residual is shared out over them.

    Args:
        settings: of an editor, ``look_up`` settled.
        anatomy: of the model.
        trained: whether the update is trained instead of solved for. Then what is looked up at both tokens takes the
            layers of both, which reach more phrasings; solved for, they lost neighbours (docs/benchmarks.md).
    """
    asked = _asked(settings)
    if asked is not None:
        return tuple(sorted(set(asked)))
    middle = default_layers(anatomy, settings.look_up)
    if trained and settings.look_up == "both":
        middle = tuple(sorted({*middle, *default_layers(anatomy, "subject")}))
    return (middle[len(middle) // 2],) if isinstance(settings, Rome) else middle


def _asked(settings: Editor) -> tuple[int, ...] | None:
    """The layers that a policy names; None for `auto`."""
    if isinstance(settings, Rome):
        return None if settings.layer == "auto" else (settings.layer,)
    assert isinstance(settings, Layered)
    return None if settings.layers == "auto" else settings.layers
