"""The closed form, batch by batch: values are optimised on the model as edited so far, and written layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.edit import forms
from unlearn.edit.columns import Columns
from unlearn.edit.course import Course
from unlearn.edit.forms import Forms
from unlearn.edit.plan import Made, Plan
from unlearn.edit.probabilities import BEGINS
from unlearn.edit.sequence import Reached, Sofar, Written
from unlearn.edit.settings import ClosedForm, Easing
from unlearn.edit.solve import smoothing, values
from unlearn.edit.solve.chunks import optimise_chunks, surroundings
from unlearn.edit.solve.hard_negatives import corpus_keys
from unlearn.edit.solve.threshold import reached, write_until_likely
from unlearn.edit.solve.values import Solved
from unlearn.edit.solve.writing import Task, distinct, lent, write_layers
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.requests import Fact, Requests
from unlearn.model.upper import Upper
from unlearn.progress import Progress


@dataclass(frozen=True)
class Job:
    """What all batches of an edit share."""

    model: EditableModel
    requests: Requests
    plan: Plan
    form: ClosedForm
    """The plan's."""
    seen: Mapping[int, Tensor]
    """Per layer keys of corpus tokens (`solve.hard_negatives`)."""
    progress: Progress


def solve(plan: Plan, model: EditableModel, requests: Requests, earlier: Sofar, progress: Progress) -> Made:
    """Solve for the update that a plan asks for, batch by batch.

    Args:
        model: unedited; unchanged on return.
        earlier: the edit to build on.
    """
    form = plan.algorithm
    assert isinstance(form, ClosedForm)
    seen = {}
    if form.hard_negatives:
        seen = corpus_keys(
            model, requests, plan.corpus, plan.layers, form.hard_negatives.hard_negatives, progress
        )
    job = Job(model, requests, plan, form, seen, progress)
    size = form.batch or len(requests.facts)
    batches = [requests.facts[at : at + size] for at in range(0, len(requests.facts), size)]
    course = Course.of(model, requests, plan.layers, batches, earlier)
    sofar, got, levels = course.begun(earlier), list[Reached](), list[float]()
    for number, facts in enumerate(batches, 1):
        label = f"Values {number}/{len(batches)}" if len(batches) > 1 else "Values"
        got_there, written, level = _made(job, facts, sofar, label)
        sofar = course.after(number, sofar.plus(written))
        got.append(got_there)
        levels.append(level)
    notes: dict[str, object] = {}
    if form.easing:
        notes["smoothing"] = {"held_back": levels, "own_prompts": smoothing.set_apart(requests)[2]}
    return Made(sofar, got, notes)


def _made(job: Job, facts: Sequence[Fact], sofar: Sofar, label: str) -> tuple[Reached, Written, float]:
    """Optimise the values of some facts on the model as edited so far, and write them layer by layer.

    Returns:
        How far the values got, what was written, and up to which share of their way long values were eased (0: not at
        all).
    """
    model, form, last = job.model, job.form, job.plan.layers[-1]
    laid, solved = _solved(job, facts, sofar, label)
    columns = Columns.of(laid, model.device)
    gains = solved.vectors[columns.vectors].T  # (d_model, columns)
    places = [(laid.kept, form.kept)]
    if form.chunks:
        places.append((surroundings(laid), form.chunks.context))
    with model.patched(sofar.deltas()):
        upper = Upper(model, columns.ids, min(job.plan.layers))
        start = upper.read(columns.positions, job.plan.layers, [last])
    from_ = start.stream[last]  # what gains count from
    if form.rewinds and sofar.factors:
        from_ = read(model, columns.ids, columns.positions, stream_layers=[last]).stream[last]
    still = lent(model, start.keys, places, sofar)
    seen = {layer: distinct(keys, start.keys[layer]) for layer, keys in job.seen.items()}

    def writer(gained: Tensor) -> Callable[[Columns, Written | None], Written]:
        plan = job.plan
        task = Task(
            model, form, plan.layers, plan.statistics, sofar, upper, start, from_ + gained, still, seen
        )
        return lambda weighted, former: write_layers(task, weighted, job.progress, former)

    def once(gained: Tensor) -> Sofar:
        return sofar.plus(writer(gained)(columns, None))

    level = 0.0
    if form.easing:
        level, gains = _eased(job, form.easing, facts, (gains, start.stream[last]), once)
    if form.threshold is None:
        return solved.reached, writer(gains)(columns, None), level
    with model.patched((Sofar() if form.rewinds else sofar).deltas()):
        reach = reached(model, columns, gains, last)
    unreached = sorted(set(columns.requests[reach < BEGINS].tolist()))
    written = write_until_likely(model, columns, upper, sofar, form.threshold, writer(gains), reach)
    return replace(solved.reached, unreached=tuple(unreached)), written, level


def _solved(job: Job, facts: Sequence[Fact], sofar: Sofar, label: str) -> tuple[Forms, Solved]:
    """The forms of some facts, and their values."""
    model, form, last = job.model, job.form, job.plan.layers[-1]
    window = form.chunks.window if form.chunks else 1
    requests = smoothing.set_apart(job.requests)[0] if form.easing else job.requests
    with model.patched((Sofar() if form.rewinds else sofar).deltas()):
        laid = forms.build(model, requests, facts, form.look_up, form.kept > 0, window, form.prefixes)
        how = (len(facts), last, form.values)
        if form.chunks:
            solved = optimise_chunks(model, laid, *how, window, job.progress, label)
        else:
            solved = values.optimise(model, laid, *how, job.progress, label)
    return laid, solved


def _eased(
    job: Job,
    easing: Easing,
    facts: Sequence[Fact],
    full: tuple[Tensor, Tensor],
    once: Callable[[Tensor], Sofar],
) -> tuple[float, Tensor]:
    """How far long values go, and what is left of them: the best of several, by validation phrasings.

    Args:
        easing: how far is far, and how many tries.
        facts: of the batch.
        full: the values whole, and the stream that they are added to, both (d_model, columns).
        once: writes values, and gives the update with them.
    """
    gains, stream = full
    lengths = stream.norm(dim=0)
    lengths = torch.ones_like(lengths) if easing.published else lengths
    tries = smoothing.tries(gains, lengths, easing.far, easing.smoothing)
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
