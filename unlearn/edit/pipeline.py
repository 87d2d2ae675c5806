"""From requests to a Patch: statistics, conflicts, forms, values and the write. The model is left bit-identical."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from statistics import median_low

from unlearn.edit import baselines, conflicts, forms, record, smoothing
from unlearn.edit.baselines import BASELINES
from unlearn.edit.batch import Job, made
from unlearn.edit.conflicts import Conflicts
from unlearn.edit.corpus import Corpus
from unlearn.edit.elicit import resolve
from unlearn.edit.methods import METHODS, layers_of
from unlearn.edit.sequence import Sofar
from unlearn.edit.statistics import key_statistics
from unlearn.edit.values import Solved
from unlearn.edit.witnesses import witnesses
from unlearn.errors import PatchError, PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import has_chat_template
from unlearn.model.requests import Fact, Requests
from unlearn.model.thinking import ways
from unlearn.patch import Patch
from unlearn.policy import Policy
from unlearn.policy.settings import AlphaEdit, AnyEdit, Editor, Method, Settings
from unlearn.policy.settings_baselines import Baseline, Lora
from unlearn.policy.settling import settled
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.store import Store

__all__ = ["allowed", "edit", "plan_layers", "resolve", "settings_for"]

log = logging.getLogger("unlearn")

LONGEST_CHUNK = 40
"""Most target tokens that one value leads to (AnyEdit, published)."""


def settings_for(model: EditableModel, policy: Policy) -> Method:
    """A policy's method with every `auto` but that of the layers replaced by what it means for a model."""
    chats = has_chat_template(model.tokenizer)
    asked = [policy.relations[fact.relation].prompts for fact in policy.facts]
    found = settled(policy.method, chats, median_low(map(len, asked)))
    if isinstance(found, AnyEdit) and found.window == "auto":
        above = model.anatomy.layers - 1 - layers_of(found, model.anatomy)[-1]
        return found.model_copy(update={"window": max(1, min(LONGEST_CHUNK, above))})
    if isinstance(found, Lora) and found.steps == "auto":
        in_ways = ways(model.tokenizer)
        rows = sum(
            len(forms.variants(policy, template, in_ways)) for prompts in asked for template in prompts
        )
        return found.model_copy(update={"steps": max(1, forms.turns(rows, len(asked)) // found.batch)})
    if isinstance(found, AlphaEdit) and found.descent == "auto":
        if _size(found, len(policy.facts)) < len(policy.facts) or found.look_up == "subject":
            return found.model_copy(update={"descent": 0})
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
    settings = settings_for(model, policy)
    if not isinstance(settings, Editor):
        return baselines.layers(model, settings)
    layers = layers_of(settings, model.anatomy, trained)
    wrong = [layer for layer in layers if not 0 <= layer < model.anatomy.layers]
    if wrong or not layers:
        raise PolicyError(
            f"method.layers: {model.name} has layers 0 to {model.anatomy.layers - 1}, not {wrong or 'none'}"
        )
    return layers


def allowed(
    model: EditableModel, policy: Policy, earlier: Patch | None, facts: Sequence[Fact] | None = None
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
    settings = policy.method
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
    count = len(policy.facts if facts is None else facts)
    trained = isinstance(settings, AlphaEdit) and settings.descent not in (0, "auto")
    if trained and (earlier is not None or _size(settings, count) < count):
        raise PolicyError(
            "method.descent: trains all facts at once on the unedited model; leave out method.batch and the earlier "
            "edit, or set method.descent to 0"
        )


def _size(settings: Settings, facts: int) -> int:
    """Facts per batch, of so many in all."""
    return (isinstance(settings, Editor) and settings.batch) or facts


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
    requests = requests.under(method=settings)
    allowed(model, requests.policy, earlier, requests.facts)
    if not isinstance(settings, Editor):
        return _baseline(model, requests, settings, progress)
    sofar = Sofar.after(earlier, model)
    job, measured = _prepared(model, requests, settings, sofar, cache, progress)
    size = _size(settings, len(requests.facts))
    batches = [requests.facts[at : at + size] for at in range(0, len(requests.facts), size)]
    solved: list[Solved] = []
    levels: list[float] = []
    for number, batch in enumerate(batches):
        label = f"Values {number + 1}/{len(batches)}" if len(batches) > 1 else "Values"
        found, written, level = made(job, batch, sofar, label)
        sofar = sofar.plus(written)
        solved.append(found)
        levels.append(level)
    sizes, warnings = record.check(model, sofar.factors, settings.largest, job.statistics)
    warnings += _mute(solved, len(requests.facts))
    for sentence in warnings:
        log.warning("%s", sentence)
    notes: dict[str, object] = {
        "weights": sizes,
        "conflicts": {"metric": measured["metric"], "layers": measured["layers"]},
        "warnings": [*measured["warnings"], *warnings],
    }
    if job.method.eased:
        notes["smoothing"] = {"held_back": levels, "own_prompts": smoothing.set_apart(requests)[2]}
    header = record.header(job, sofar, solved, list(map(len, batches)), notes)
    return Patch(sofar.factors, model.fingerprint(list(sofar.factors)), header, sofar.state())


def _prepared(
    model: EditableModel,
    requests: Requests,
    settings: Editor,
    sofar: Sofar,
    cache: Store | None,
    progress: Progress,
) -> tuple[Job, Conflicts]:
    """What all batches share: layers, their statistics, witnesses, and whether the update is trained; and conflicts."""
    policy = requests.policy
    layers, tokens = plan_layers(model, policy), policy.statistics.tokens
    corpus = Corpus.named(policy.statistics.corpus, policy.model)
    statistics = key_statistics(model, layers, corpus, tokens, cache, progress)
    measured = conflicts.measure(model, requests, layers, statistics, settings, sofar)
    conflicts.say(measured)
    steps = measured["descent"]
    if steps:
        layers = plan_layers(model, policy, trained=True)
        more = [layer for layer in layers if layer not in statistics]
        if more:
            statistics |= key_statistics(model, more, corpus, tokens, cache, progress)
    if isinstance(settings, AlphaEdit):
        settings = settings.model_copy(update={"descent": steps})
        requests = requests.under(method=settings)
    seen = {}
    if settings.witnesses and not steps:
        seen = witnesses(model, requests, corpus, layers, settings.witnesses, progress)
    method = METHODS[settings.name]
    job = Job(model, requests, method, settings, layers, statistics, seen, corpus, steps, progress)
    return job, measured


def _mute(solved: Sequence[Solved], facts: int) -> list[str]:
    """A sentence about facts whose target could not be made likely to its end, if there are any."""
    mute = sum(len(found.unreached) for found in solved)
    if not mute:
        return []
    return [
        f"{mute} of {facts} facts have target tokens that could not be made likely, so that the text is not said to "
        "its end: choose a refusal that the model says of its own accord"
    ]


def _baseline(model: EditableModel, requests: Requests, settings: Baseline, progress: Progress) -> Patch:
    """A method that is no editor; the guard against oversized updates is the same."""
    patch = BASELINES[settings.name](model, requests, settings, progress)
    sizes, warnings = record.check(model, patch.factors, settings.largest)
    for sentence in warnings:
        log.warning("%s", sentence)
    found = {name: {**row, **patch.header.get("weights", {}).get(name, {})} for name, row in sizes.items()}
    return replace(patch, header={**patch.header, "weights": found, "warnings": warnings})
