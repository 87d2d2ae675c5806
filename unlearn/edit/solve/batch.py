"""The closed form, batch by batch: values are optimised on the model as edited so far, and written layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.edit import forms
from unlearn.edit.columns import Columns, at_start
from unlearn.edit.forms import Forms
from unlearn.edit.hearing import BEGINS
from unlearn.edit.plan import Made, Plan
from unlearn.edit.sequence import Reached, Sofar, Written
from unlearn.edit.settling import decided
from unlearn.edit.solve import smoothing, values
from unlearn.edit.solve.chunks import optimise_chunks, surroundings
from unlearn.edit.solve.holding import reached, write_until_held
from unlearn.edit.solve.methods import METHODS, Method
from unlearn.edit.solve.values import Solved
from unlearn.edit.solve.witnesses import witnesses
from unlearn.edit.solve.writing import Task, distinct, lent, values_at, write_layers
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Fact, Requests
from unlearn.policy.settings import AlphaEditPlus, AnyEdit, Editor
from unlearn.progress import Progress


@dataclass(frozen=True)
class Job:
    """What all batches of an edit share."""

    model: EditableModel
    requests: Requests
    plan: Plan
    settings: Editor
    """The plan's."""
    seen: Mapping[int, Tensor]
    """Per layer keys of corpus tokens (`solve.witnesses`)."""
    progress: Progress

    @property
    def method(self) -> Method:
        """The row of the table."""
        return METHODS[self.settings.name]


def solve(plan: Plan, model: EditableModel, requests: Requests, earlier: Sofar, progress: Progress) -> Made:
    """Solve for the update that a plan asks for, batch by batch.

    Args:
        plan: of an editor.
        model: unedited; unchanged on return.
        requests: the policy with its answers.
        earlier: the edit to build on.
        progress: where to show it.
    """
    settings = plan.settings
    assert isinstance(settings, Editor)
    seen = {}
    if settings.witnesses:
        seen = witnesses(model, requests, plan.corpus, plan.layers, settings.witnesses, progress)
    job = Job(model, requests, plan, settings, seen, progress)
    size = settings.batch or len(requests.facts)
    batches = [requests.facts[at : at + size] for at in range(0, len(requests.facts), size)]
    sofar, got, levels = earlier, list[Reached](), list[float]()
    for number, facts in enumerate(batches, 1):
        label = f"Values {number}/{len(batches)}" if len(batches) > 1 else "Values"
        got_there, written, level = _made(job, facts, sofar, label)
        sofar = sofar.plus(written)
        got.append(got_there)
        levels.append(level)
    notes: dict[str, object] = {}
    if job.method.eased:
        notes["smoothing"] = {"held_back": levels, "own_prompts": smoothing.set_apart(requests)[2]}
    return Made(sofar, got, notes)


def _made(job: Job, facts: Sequence[Fact], sofar: Sofar, label: str) -> tuple[Reached, Written, float]:
    """Optimise the values of some facts on the model as edited so far, and write them layer by layer.

    Returns:
        How far the values got, what was written, and up to which share of their way long values were eased (0: not at
        all).
    """
    model, method, settings, last = job.model, job.method, job.settings, job.plan.layers[-1]
    laid, solved = _solved(job, facts, sofar, label)
    columns = Columns.of(laid, model.device)
    gains = solved.vectors[columns.vectors].T  # (d_model, columns)
    places = [(laid.kept, settings.kept)]
    if isinstance(settings, AnyEdit):
        places.append((surroundings(laid), settings.context))
    start = at_start(model, job.plan.layers, columns, sofar)
    still = lent(model, start.keys, places, sofar)
    seen = {layer: distinct(keys, start.keys[layer]) for layer, keys in job.seen.items()}

    def writer(gained: Tensor) -> Callable[[Columns, Written | None], Written]:
        wanted = values_at(model, method, columns, gained, last, start)
        task = Task(
            model, method, settings, job.plan.layers, job.plan.statistics, sofar, start, wanted, still, seen
        )  # fmt: skip
        return lambda weighted, former: write_layers(task, weighted, job.progress, former)

    def once(gained: Tensor) -> Sofar:
        return sofar.plus(writer(gained)(columns, None))

    level = 0.0
    if isinstance(settings, AlphaEditPlus):
        level, gains = _eased(job, settings, facts, (gains, start.stream[last]), once)
    if settings.hold is None:
        return solved.reached, writer(gains)(columns, None), level
    with model.patched((Sofar() if method.rewinds else sofar).deltas()):
        reach = reached(model, columns, gains, last)
    unreached = sorted(set(columns.requests[reach < BEGINS].tolist()))
    written = write_until_held(model, columns, sofar, settings, writer(gains), reach)
    return replace(solved.reached, unreached=tuple(unreached)), written, level


def _solved(job: Job, facts: Sequence[Fact], sofar: Sofar, label: str) -> tuple[Forms, Solved]:
    """The forms of some facts, and their values."""
    model, method, settings, last = job.model, job.method, job.settings, job.plan.layers[-1]
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
