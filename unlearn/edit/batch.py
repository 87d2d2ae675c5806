"""One batch of an edit: its values are optimised on the model as edited so far, and written layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.edit import forms, smoothing, values
from unlearn.edit.chunks import optimise_chunks, surroundings
from unlearn.edit.corpus import Corpus
from unlearn.edit.descent import descend
from unlearn.edit.forms import Forms
from unlearn.edit.holding import BEGINS, reached, write_until_held
from unlearn.edit.methods import Method, null_space
from unlearn.edit.sequence import Sofar, Written
from unlearn.edit.statistics import Statistics
from unlearn.edit.taught import taught
from unlearn.edit.values import Solved
from unlearn.edit.writing import Columns, Task, at_start, distinct, lent, values_at, write_layers
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Fact, Requests
from unlearn.policy.settings import AlphaEditPlus, AnyEdit, Editor
from unlearn.policy.settling import decided
from unlearn.progress import Progress


@dataclass(frozen=True)
class Job:
    """What all batches of an edit share."""

    model: EditableModel
    requests: Requests
    method: Method
    settings: Editor
    """Without any `auto` but that of the layers."""
    layers: Sequence[int]
    statistics: Mapping[int, Statistics]
    seen: Mapping[int, Tensor]
    """Per layer keys of corpus tokens (`edit.witnesses`)."""
    corpus: Corpus
    descent: int
    """Steps of training in place of the closed form; 0 for the closed form."""
    progress: Progress


def made(job: Job, facts: Sequence[Fact], sofar: Sofar, label: str) -> tuple[Solved, Written, float]:
    """Optimise the values of some facts on the model as edited so far, and write them layer by layer.

    Returns:
        The values, what was written, and up to which share of their way long values were eased (0: not at all).
    """
    if job.descent:
        return _trained(job)
    model, method, settings, last = job.model, job.method, job.settings, job.layers[-1]
    laid, solved = _solved(job, facts, sofar, label)
    columns = Columns.of(laid, model.device)
    gains = solved.vectors[columns.vectors].T  # (d_model, columns)
    places = [(laid.kept, settings.kept)]
    if isinstance(settings, AnyEdit):
        places.append((surroundings(laid), settings.context))
    start = at_start(model, job.layers, columns, sofar)
    still = lent(model, start.keys, places, sofar)
    seen = {layer: distinct(keys, start.keys[layer]) for layer, keys in job.seen.items()}

    def writer(gained: Tensor) -> Callable[[Columns, Written | None], Written]:
        wanted = values_at(model, method, columns, gained, last, start)
        task = Task(
            model, method, settings, job.layers, job.statistics, sofar, start, wanted, still, seen
        )  # fmt: skip
        return lambda weighted, former: write_layers(task, weighted, job.progress, former)

    def once(gained: Tensor) -> Sofar:
        return sofar.plus(writer(gained)(columns, None))

    level = 0.0
    if isinstance(settings, AlphaEditPlus):
        level, gains = _eased(job, settings, facts, (gains, start.stream[last]), once)
    if settings.hold is None:
        return solved, writer(gains)(columns, None), level
    with model.patched((Sofar() if method.rewinds else sofar).deltas()):
        reach = reached(model, columns, gains, last)
    unreached = sorted(set(columns.requests[reach < BEGINS].tolist()))
    written = write_until_held(model, columns, sofar, settings, writer(gains), reach)
    return replace(solved, unreached=tuple(unreached)), written, level


def _solved(job: Job, facts: Sequence[Fact], sofar: Sofar, label: str) -> tuple[Forms, Solved]:
    """The forms of some facts, and their values."""
    model, method, settings, last = job.model, job.method, job.settings, job.layers[-1]
    window = decided(settings.window) if isinstance(settings, AnyEdit) else 1
    requests = smoothing.set_apart(job.requests)[0] if method.eased else job.requests
    with model.patched((Sofar() if method.rewinds else sofar).deltas()):
        laid = forms.build(
            model, requests, facts, settings.look_up, settings.kept > 0, window, settings.prefixes
        )
        if isinstance(settings, AnyEdit):
            solved = optimise_chunks(model, laid, len(facts), last, settings, window, job.progress, label)
        else:
            solved = values.optimise(model, laid, len(facts), last, settings, job.progress, label)
    return laid, solved


def _eased(
    job: Job,
    settings: AlphaEditPlus,
    facts: Sequence[Fact],
    full: tuple[Tensor, Tensor],
    once: Callable[[Tensor], Sofar],
) -> tuple[float, Tensor]:
    """How far long values go, and what is left of them: the best of several, by validation phrasings.

    Args:
        job: the edit.
        settings: its settings.
        facts: of the batch.
        full: the values whole, and the stream that they are added to, both (d_model, columns).
        once: writes values, and gives the update with them.
    """
    gains, stream = full
    lengths = stream.norm(dim=0)
    lengths = torch.ones_like(lengths) if settings.absolute else lengths
    tries = smoothing.tries(gains, lengths, settings.far, settings.smoothing)
    apart = smoothing.set_apart(job.requests)[1]
    rows = smoothing.rows_of(job.model, apart, facts) if len(tries) > 1 else []
    best: smoothing.Score | None = None
    level = 0.0
    for each, gained in tries.items() if rows else ():
        with job.model.patched(once(gained).deltas()):
            got = smoothing.score(job.model, rows)
        if best is None or got.better(best):
            best, level, gains = got, each, gained
    return level, gains


def _trained(job: Job) -> tuple[Solved, Written, float]:
    """All facts at once, by descent; the keys are those that later edits keep, as for the closed form."""
    model, facts, settings = job.model, job.requests.facts, job.settings
    laid = forms.build(model, job.requests, facts, settings.look_up, settings.kept > 0, 1, settings.prefixes)
    rows = taught(model, job.requests, laid, job.corpus, job.descent)
    factors, solved = descend(model, rows, job.statistics, settings, job.descent, job.progress)
    columns = Columns.of(laid, model.device)
    start = at_start(model, job.layers, columns, Sofar())
    keys = {layer: found * columns.weights.sqrt() for layer, found in start.keys.items()}
    ranks = {layer: null_space(job.statistics[layer], settings).rank for layer in job.layers}
    return solved, Written(factors, keys, ranks), 0.0
