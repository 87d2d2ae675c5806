"""`unlearn apply --dry-run`: what would be done, where, and about how long it would take. Nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from unlearn.commands.plan_shown import table
from unlearn.commands.said import say
from unlearn.files import JsonObject
from unlearn.policy import EMBEDDED, Policy, is_question, listed_in

if TYPE_CHECKING:
    from unlearn.edit.plan import Plan
    from unlearn.model.editable import EditableModel
    from unlearn.model.prompts import Prompt
    from unlearn.model.requests import Fact, Requests
    from unlearn.patch import Patch

ROWLESS = ("guard", "none")
"""Methods that read no prompt with its refusal."""


def tell_plan(
    policy: Policy,
    model: EditableModel,
    as_json: bool,
    earlier: Patch | None = None,
    show_text: bool = False,
    rate: float | None = None,
) -> int:
    """Print the plan on stdout.

    Args:
        as_json: print JSON, which never holds an answer.
    """
    found = plan(policy, model, earlier, show_text and not as_json, rate)
    say(json.dumps(found, indent=2) if as_json else table(policy, found))
    return 0


def plan(
    policy: Policy,
    model: EditableModel,
    earlier: Patch | None = None,
    show_text: bool = False,
    rate: float | None = None,
) -> JsonObject:
    """Lay out the edit and the audit of a policy, with estimates from two short timed runs of the model.

    The model is asked for the answers that the policy does not give; `show_text` puts them beside their facts' ids. An
    outline is neither asked nor run: what takes its weights is said in sentences, and times are arithmetic at a rate.

    Args:
        rate: FLOP/s to reckon times with; else an outline's is measured on this machine.

    Raises:
        PolicyError: the policy asks for layers that the model does not have, for neighbours that nobody knows, or for
            what an edit cannot do.
        ModelError: a subject has no tokens in one of its prompts, a prompt is longer than the model's context, or the
            earlier patch was made for another model.
        PatchError: nothing can be built on the earlier patch.
    """
    from unlearn.edit.allowed import allowed
    from unlearn.edit.choose import candidates
    from unlearn.edit.requests.named import with_neighbours
    from unlearn.edit.requests.resolve import guessed, neighbours, outline
    from unlearn.edit.sequence import Sofar
    from unlearn.edit.statistics import Source
    from unlearn.model.outline import Outline
    from unlearn.store import Store, cache_folder

    allowed(model, policy, earlier)
    bare, stated = isinstance(model, Outline), policy
    policy = with_neighbours(model, policy)
    asked_of, keep = outline(policy), policy.keep
    prompts = look_ups(model, asked_of, policy.method.name not in ROWLESS)
    # What a cache has of a model is found by its weights.
    source = Source.of(policy, model, None if bare else Store.existing(cache_folder()), reads=False)
    plans = candidates(model, asked_of, source, Sofar.after(earlier, model))
    protected, tested = neighbours(policy)
    lengths = [row["tokens"] for fact in prompts for row in fact["prompts"]]
    elicited, asked = _generations(policy, protected, tested)
    first, *others = _outlooks(model, plans, asked_of, lengths, elicited, rate)
    named = not bare and policy is not stated
    return {
        **_about(model),
        **first,
        **({"otherwise": others[0]} if others else {}),
        **({"needs_weights": _unknown(stated, plans[0])} if bare else {}),
        "facts": prompts,
        "answers": [] if bare else [_guess(fact, show_text) for fact in guessed(model, policy)],
        "siblings": len(policy.sibling_pairs),
        "neighbours_protected": sum(map(len, protected.values())),
        "neighbours_tested": sum(map(len, tested.values())),
        **({"named": [*listed_in(keep.neighbours), *listed_in(keep.held_out_neighbours)]} if named else {}),
        "generations": {"before_the_edit": elicited, "per_audit": asked},
    }


def _about(model: EditableModel) -> JsonObject:
    from unlearn.model.offload import numbers

    return {
        "model": model.name,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "parameters": numbers(model.model),
    }


def _outlooks(
    model: EditableModel,
    plans: Sequence[Plan],
    requests: Requests,
    lengths: Sequence[int],
    asked: int,
    rate: float | None,
) -> list[JsonObject]:
    """What each plan writes, and about what it takes."""
    from unlearn.audit.suite import load_suite
    from unlearn.commands import forecast
    from unlearn.model.outline import Outline

    size, suite = forecast.Size.of(lengths, asked), load_suite(requests.policy.audit.suite)
    if rate is None and isinstance(model, Outline):
        rate = forecast.rate_of(model, model.dtype)
    cost = forecast.at_speed(model, requests) if rate is None else forecast.at_rate(model, rate)
    found = []
    for chosen in plans:
        flop = forecast.costs(model, chosen, requests, size, forecast.arithmetic(model))
        seconds = forecast.costs(model, chosen, requests, size, cost)
        steps = forecast.memory(chosen, model, suite, lengths, asked)
        host, disk = forecast.statistics(chosen, model)
        found.append(
            {
                "method": chosen.name,
                "reasons": dict(chosen.reasons),
                "layers": list(chosen.layers),
                "weights": weights(model, chosen),
                "conflicts": chosen.conflicts,
                "memory_bytes": {"device": max(steps.values()), "host_statistics": host, "steps": steps},
                "disk_bytes": {"statistics": disk},
                "flop": {name: round(count) for name, count in flop.items()},
                "seconds": {name: round(took, 1) for name, took in seconds.items()},
                **({} if rate is None else {"rate": rate}),
            }
        )
    return found


def _unknown(policy: Policy, chosen: Plan) -> list[str]:
    """What takes a model's weights to be known, and is not known of an outline; a sentence each."""
    from unlearn.edit.requests.named import WANTED

    found = [
        "how quickly it runs needs the weights: times are the arithmetic at a rate of products, the least it takes"
    ]
    if chosen.reads_corpus:
        found.append(
            "conflicts between the facts need the weights: they are measured at keys; so does what the cache has"
        )
    open_answers = sum(not fact.answer for fact in policy.facts)
    if open_answers:
        found.append(
            f"{open_answers} of {len(policy.facts)} facts state no answer: the model is asked for it before the edit, "
            "as counted"
        )
    if policy.keep.neighbours == "auto" and policy.model != EMBEDDED:
        found.append(
            f"neighbours are named by the model: {WANTED} per relation, the most that are taken, are counted"
        )
    return found


def _generations(
    policy: Policy, protected: Mapping[str, Sequence[str]], tested: Mapping[str, Sequence[str]]
) -> tuple[int, int]:
    """Replies that are asked for before the edit, and by one audit, given the neighbours by relation."""
    from unlearn.audit.suite import load_suite

    suite = load_suite(policy.audit.suite)
    samples = suite.samples if suite.asks("sampled") else 0
    seen = {name: len(relation.prompts) for name, relation in policy.relations.items()}
    held_out = {name: len(relation.held_out) for name, relation in policy.relations.items()}
    forgotten = [fact.relation for fact in policy.facts]
    siblings = [name for _, name in policy.sibling_pairs]
    elicited = sum(seen[name] for name in (*forgotten, *siblings))
    elicited += sum((len(protected[name]) + len(tested[name])) * seen[name] for name in protected)
    asked = sum(seen[name] + (1 + samples) * held_out[name] for name in forgotten)
    asked += sum(held_out[name] for name in siblings)
    asked += sum(len(names) * held_out[name] for name, names in tested.items())
    return elicited, asked


def weights(model: EditableModel, chosen: Plan) -> list[str]:
    """Names of the weights that a plan changes."""
    from unlearn.edit.settings import Adapting
    from unlearn.model.adapters import linears
    from unlearn.policy.settings_trained import RepSelect

    if isinstance(chosen.algorithm, Adapting):
        return linears(model, chosen.algorithm.targets)
    if isinstance(chosen.algorithm, RepSelect):
        return linears(model, "mlp")
    return [model.anatomy.weight_name(layer) for layer in chosen.layers]


def look_ups(model: EditableModel, requests: Requests, read: bool) -> list[JsonObject]:
    """Return per fact the prompts that the edit would see, each with its tokens and its look-up tokens as text.

    Args:
        read: whether prompts are read with their refusals, for which the model's context has to have room.
    """
    from unlearn.edit.forms import fits, prompts_of, target_of

    policy, token = requests.policy, cache(lambda at: model.tokenizer.decode([at]))
    sizes: dict[tuple[str, int, str], int] = {}
    found = []
    for fact in requests.facts:
        text, rows = policy.target(fact), dict[str, JsonObject]()
        for form, (template, prompt) in enumerate(prompts_of(model, requests, fact)):
            # The same form of a relation is answered with the same tokens, whatever the subject.
            key = (fact.relation, form, text)
            if read and key not in sizes:
                sizes[key] = len(target_of(model, policy, fact, prompt))
            if read:
                fits(model, fact.id, len(prompt.ids) + sizes[key])
            rows.setdefault(template, _look_up(template, prompt, token))
        found.append({"id": fact.id, "relation": fact.relation, "prompts": list(rows.values())})
    return found


def _look_up(template: str, prompt: Prompt, token: Callable[[int], str]) -> JsonObject:
    """One prompt, given what a token's id stands for."""
    at, last = prompt.subject_last, prompt.last
    return {
        "prompt": template,
        "form": "question" if is_question(template) else "statement",
        "tokens": len(prompt.ids),
        "subject_token": {"at": at, "text": None if at is None else token(prompt.ids[at])},
        "last_token": {"at": last, "text": token(prompt.ids[last])},
    }


def _guess(fact: Fact, show_text: bool) -> JsonObject:
    return {"id": fact.id, "doubt": fact.doubt, **({"text": list(fact.answers)} if show_text else {})}
