"""From requests to a Patch: statistics, conflicts, forms, values and the write. The model is left bit-identical."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Any

import torch
from torch import Tensor

from unlearn.edit import baselines, conflicts, forms, record, smoothing, values
from unlearn.edit.baselines import BASELINES
from unlearn.edit.chunks import optimise_chunks, surroundings
from unlearn.edit.corpus import Corpus
from unlearn.edit.descent import descend
from unlearn.edit.elicit import resolve
from unlearn.edit.holding import BEGINS, reached, write_until_held
from unlearn.edit.methods import METHODS, Method, layers_of, null_space
from unlearn.edit.sequence import Sofar, Written
from unlearn.edit.statistics import Statistics, key_statistics
from unlearn.edit.values import Solved
from unlearn.edit.witnesses import witnesses
from unlearn.edit.writing import Columns, at_start, distinct, lent, values_at, write_layers
from unlearn.errors import PatchError, PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import has_chat_template
from unlearn.model.requests import Fact, Requests
from unlearn.model.thinking import ways
from unlearn.patch import Patch
from unlearn.policy import Policy
from unlearn.policy.settings import settled
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.store import Store

__all__ = ["allowed", "edit", "plan_layers", "resolve", "settings_for"]

log = logging.getLogger("unlearn")

LONGEST_CHUNK = 40
"""Most target tokens that one value leads to (AnyEdit, published)."""


def settings_for(model: EditableModel, policy: Policy) -> Any:
    """A policy's method with every `auto` but that of the layers replaced by what it means for a model."""
    chats = has_chat_template(model.tokenizer)
    asked = [policy.relations[fact.relation].prompts for fact in policy.facts]
    found: Any = settled(policy.method, chats, median_low(map(len, asked)))
    if getattr(found, "window", None) == "auto":
        above = model.anatomy.layers - 1 - layers_of(found, model.anatomy)[-1]
        found = found.model_copy(update={"window": max(1, min(LONGEST_CHUNK, above))})
    if getattr(found, "steps", None) == "auto":
        in_ways = ways(model.tokenizer)
        rows = sum(
            len(forms.variants(policy, template, in_ways)) for prompts in asked for template in prompts
        )
        found = found.model_copy(update={"steps": max(1, forms.turns(rows, len(asked)) // found.batch)})
    if getattr(found, "descent", None) == "auto":
        if _size(found, policy.facts) < len(policy.facts) or found.look_up == "subject":
            found = found.model_copy(update={"descent": 0})
    return found


def plan_layers(model: EditableModel, policy: Policy, trained: bool = False) -> tuple[int, ...]:
    """The layers that a policy's method will write; none for one that leaves the weights alone.

    Args:
        model: to be edited.
        policy: with its method.
        trained: whether the update is trained instead of solved for (``conflicts.measure``: ``descent``).

    Raises:
        PolicyError: a layer that the model does not have.
    """
    if policy.method.name not in METHODS:
        return baselines.layers(model, policy.method)
    layers = layers_of(settings_for(model, policy), model.anatomy, trained)
    wrong = [layer for layer in layers if not 0 <= layer < model.anatomy.layers]
    if wrong or not layers:
        raise PolicyError(
            f"method.layers: {model.name} has layers 0 to {model.anatomy.layers - 1}, not {wrong or 'none'}"
        )
    return layers


def allowed(
    model: EditableModel, policy: Policy, earlier: Patch | None, facts: Sequence[Any] | None = None
) -> None:
    """Refuse what an edit cannot do, before anything long begins.

    Args:
        model: unedited.
        policy: its method's settings in force (``settings_for``).
        earlier: a patch to build on.
        facts: what is written; all of the policy's unless they are given.

    Raises:
        ModelError: the earlier patch was made for another model.
        PatchError: it is one that nothing can be built on.
        PolicyError: settings that need all facts at once on the unedited model, or a relation's `look_up` for a method
            that writes no values, or only in one place.
    """
    settings: Any = policy.method
    apart = [name for name, relation in policy.relations.items() if relation.look_up]
    if apart and (settings.name not in METHODS or METHODS[settings.name].chunked):
        raise PolicyError(
            f"relations.{apart[0]}.look_up: {settings.name} does not look up by relation; leave it out"
        )
    if earlier is not None:
        if settings.name in BASELINES:
            raise PolicyError(
                f"method.name: {settings.name} cannot build on an earlier patch; use an editor "
                f"({', '.join(sorted(METHODS))})"
            )
        if earlier.header.get("system"):
            raise PatchError(
                "an edit cannot build on an in-context guard, which changes no weights; start from the model"
            )
        model.accepts(earlier)
    written = policy.facts if facts is None else facts
    trained = getattr(settings, "descent", 0) not in (0, "auto")
    if trained and (earlier is not None or _size(settings, written) < len(written)):
        raise PolicyError(
            "method.descent: trains all facts at once on the unedited model; leave out method.batch and the earlier "
            "edit, or set method.descent to 0"
        )


def _size(settings: Any, facts: Sequence[Any]) -> int:
    """Facts per batch."""
    return settings.batch or len(facts)


def edit(
    model: EditableModel,
    requests: Requests,
    cache: Store | None = None,
    progress: Progress = NO_PROGRESS,
    earlier: Patch | None = None,
) -> Patch:
    """Compute the edit of a policy.

    Args:
        model: unedited, whatever came earlier; unchanged on return, bit for bit.
        requests: the policy with its answers (``resolve``).
        cache: where key statistics are kept.
        progress: where to show it.
        earlier: a patch of the same model to build on. Its keys are kept as far as the method keeps earlier ones.

    Returns:
        The patch: the sum of the earlier one and the new one. Applied to the unedited model it is the edit.

    Raises:
        ModelError: non-finite values, or an earlier patch that was made for another model.
        PatchError: an update longer than ``method.largest`` allows.
        PolicyError: layers that the model does not have, or a baseline on top of an earlier patch.

    Examples:
        >>> import unlearn
        >>> policy = unlearn.load_policy("examples/forget.yaml")
        >>> model = unlearn.load_model(policy.model)
        >>> patch = unlearn.edit(model, unlearn.resolve(model, policy))
        >>> patch.header["policy"]
        'first-steps'
    """
    settings = settings_for(model, requests.policy)
    requests = replace(requests, policy=requests.policy.model_copy(update={"method": settings}))
    allowed(model, requests.policy, earlier, requests.facts)
    if settings.name in BASELINES:
        return _baseline(model, requests, progress)
    layers = plan_layers(model, requests.policy)
    corpus = Corpus.named(requests.policy.statistics.corpus, requests.policy.model)
    size = _size(settings, requests.facts)
    statistics = key_statistics(model, layers, corpus, requests.policy.statistics.tokens, cache, progress)
    sofar = Sofar.after(earlier, model)
    measured = conflicts.measure(model, requests, layers, statistics, settings, sofar)
    conflicts.say(measured)
    steps: int = measured["descent"]
    if steps:
        layers = plan_layers(model, requests.policy, trained=True)
        more = [layer for layer in layers if layer not in statistics]
        if more:
            tokens = requests.policy.statistics.tokens
            statistics |= key_statistics(model, more, corpus, tokens, cache, progress)
    if hasattr(settings, "descent"):
        settings = settings.model_copy(update={"descent": steps})
        requests = replace(requests, policy=requests.policy.model_copy(update={"method": settings}))
    seen = (
        witnesses(model, requests, corpus, layers, settings.witnesses, progress)
        if settings.witnesses and not steps
        else {}
    )
    job = _Job(model, requests, METHODS[settings.name], layers, statistics, seen, corpus, steps, progress)
    batches = [requests.facts[at : at + size] for at in range(0, len(requests.facts), size)]
    solved: list[Solved] = []
    levels: list[float] = []
    for number, batch in enumerate(batches):
        label = f"Values {number + 1}/{len(batches)}" if len(batches) > 1 else "Values"
        values_found, written, level = _batch(job, batch, sofar, label)
        sofar = sofar.plus(written)
        solved.append(values_found)
        levels.append(level)
    sizes, warnings = record.check(model, sofar.factors, settings.largest, statistics)
    mute = sum(len(found.unreached) for found in solved)
    if mute:
        warnings.append(
            f"{mute} of {len(requests.facts)} facts have target tokens that could not be made likely, so that the text "
            "is not said to its end: choose a refusal that the model says of its own accord"
        )
    for sentence in warnings:
        log.warning("%s", sentence)
    notes: dict[str, Any] = {
        "weights": sizes,
        "conflicts": {key: measured[key] for key in ("metric", "layers")},
        "warnings": [*measured["warnings"], *warnings],
    }
    if job.method.eased:
        notes["smoothing"] = {"held_back": levels, "own_prompts": smoothing.set_apart(requests)[2]}
    header = record.header(model, requests, layers, statistics, sofar, solved, list(map(len, batches)), notes)
    return Patch(sofar.factors, model.fingerprint(list(sofar.factors)), header, sofar.state())


@dataclass(frozen=True)
class _Job:
    """What all batches of an edit share."""

    model: EditableModel
    requests: Requests
    method: Method
    layers: Sequence[int]
    statistics: Mapping[int, Statistics]
    seen: Mapping[int, Tensor]
    """Per layer keys of corpus tokens (`edit.witnesses`)."""
    corpus: Corpus
    descent: int
    """Steps of training in place of the closed form; 0 for the closed form."""
    progress: Progress


def _batch(job: _Job, facts: Sequence[Fact], sofar: Sofar, label: str) -> tuple[Solved, Written, float]:
    """Optimise the values of some facts on the model as edited so far, and write them layer by layer."""
    model, method = job.model, job.method
    settings: Any = job.requests.policy.method
    if job.descent:
        return _trained(job, settings)
    last, keeps = job.layers[-1], settings.kept > 0
    window = settings.window if method.chunked else 1
    requests, apart, _ = (
        smoothing.set_apart(job.requests) if method.eased else (job.requests, job.requests, False)
    )
    with model.patched((Sofar() if method.rewinds else sofar).deltas()):
        laid = forms.build(model, requests, facts, settings.look_up, keeps, window, settings.prefixes)
        if method.chunked:
            solved = optimise_chunks(model, laid, len(facts), last, settings, window, job.progress, label)
        else:
            solved = values.optimise(model, laid, len(facts), last, settings, job.progress, label)
    columns = Columns.of(laid, model.device)
    gains = solved.vectors[columns.vectors].T  # (d_model, columns)
    context = surroundings(laid) if method.chunked else ()

    places = [(laid.kept, settings.kept), (context, getattr(settings, "context", 0.0))]
    start = at_start(model, job.layers, columns, sofar)
    still = lent(model, start.keys, places, sofar)
    seen = {layer: distinct(keys, start.keys[layer]) for layer, keys in job.seen.items()}

    def writer(gained: Tensor) -> Callable[[Columns, Written | None], Written]:
        wanted = values_at(model, method, columns, gained, last, start)

        def once(weighted: Columns, former: Written | None = None) -> Written:
            given = job.layers, job.statistics, sofar, weighted, start, wanted, still, seen, job.progress
            return write_layers(model, method, settings, *given, former)

        return once

    level = 0.0
    if method.eased:
        lengths = start.stream[last].norm(dim=0)
        lengths = torch.ones_like(lengths) if settings.absolute else lengths
        tries = smoothing.tries(gains, lengths, settings.far, settings.smoothing)
        rows = smoothing.rows_of(model, apart, facts) if len(tries) > 1 else []
        best: smoothing.Score | None = None
        for each, gained in tries.items() if rows else ():
            with model.patched(sofar.plus(writer(gained)(columns, None)).deltas()):
                got = smoothing.score(model, rows)
            if best is None or got.better(best):
                best, level, gains = got, each, gained
    if settings.hold is None:
        return solved, writer(gains)(columns, None), level
    with model.patched((Sofar() if method.rewinds else sofar).deltas()):
        reach = reached(model, columns, gains, last)
    unreached = sorted(set(columns.requests[reach < BEGINS].tolist()))
    written = write_until_held(model, columns, sofar, settings, writer(gains), reach)
    return replace(solved, unreached=tuple(unreached)), written, level


def _trained(job: _Job, settings: Any) -> tuple[Solved, Written, float]:
    """All facts at once, by descent; the keys are those that later edits keep, as for the closed form."""
    model, facts = job.model, job.requests.facts
    keeps = settings.kept > 0
    laid = forms.build(model, job.requests, facts, settings.look_up, keeps, 1, settings.prefixes)
    factors, solved = descend(
        model, job.requests, laid, job.statistics, job.corpus, settings, job.descent, job.progress
    )
    columns = Columns.of(laid, model.device)
    start = at_start(model, job.layers, columns, Sofar())
    keys = {layer: found * columns.weights.sqrt() for layer, found in start.keys.items()}
    ranks = {layer: null_space(job.statistics[layer], settings).rank for layer in job.layers}
    return solved, Written(factors, keys, ranks), 0.0


def _baseline(model: EditableModel, requests: Requests, progress: Progress) -> Patch:
    """A method that is no editor; the guard against oversized updates is the same."""
    settings: Any = requests.policy.method
    patch = BASELINES[settings.name](model, requests, settings, progress)
    sizes, warnings = record.check(model, patch.factors, settings.largest)
    for sentence in warnings:
        log.warning("%s", sentence)
    found = {name: {**row, **patch.header.get("weights", {}).get(name, {})} for name, row in sizes.items()}
    return replace(patch, header={**patch.header, "weights": found, "warnings": warnings})
