"""From a policy to a plan: the one reader of `auto` in a method's settings, and the reason of every choice in words.

`method: auto` solves for the update (`alphaedit`) as long as the keys distinguish the requests from their neighbours,
and trains it (`null_space_tuning`) where they do not: one solve per layer sees the keys alone, training may use what
the layers make of each other's outputs (docs/benchmarks.md has both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from statistics import median_low
from typing import NamedTuple

from torch import Tensor

from unlearn.edit import conflicts
from unlearn.edit.depth import GIVEN, Placed, placed, told_apart
from unlearn.edit.forms import variants
from unlearn.edit.guard import instruction
from unlearn.edit.layers import layers_of
from unlearn.edit.look_up_keys import look_up_keys
from unlearn.edit.null_space import Spared
from unlearn.edit.plan import Plan
from unlearn.edit.sequence import Sofar
from unlearn.edit.settings import Algorithm, ClosedForm, Tuning
from unlearn.edit.settling import AnySettings, algorithm, settled
from unlearn.edit.solve.reach import unlisted
from unlearn.edit.statistics import Source, Statistics
from unlearn.edit.train.loop import turns
from unlearn.edit.train.taught import FORMS
from unlearn.files import JsonObject
from unlearn.model.editable import EditableModel
from unlearn.model.narrow import narrowed
from unlearn.model.outline import Outline
from unlearn.model.prompts import has_chat_template
from unlearn.model.requests import Requests
from unlearn.model.thinking import ways
from unlearn.policy import Policy
from unlearn.policy.document import Named
from unlearn.policy.method import Automatic
from unlearn.policy.settings import AlphaEdit, AnyEdit, Editor
from unlearn.policy.settings_base import Settings
from unlearn.policy.settings_trained import Guard, Lora, NullSpaceTuning

FAR, FAR_BOTH = 0.5, 0.3
"""What an unlisted neighbour gets of what a request gets, above which the keys do not tell them apart; the second with
values at the subject and at the last token (docs/benchmarks.md has the closed form and the training at both sides)."""
APART = 0.5
"""How far keys are to differ by subject, as a share of their energy, for a solve to be tried: by 0.8 on the embedded
model, where it serves, and 0.4 and 0.3 on SmolLM2, where it refuses all others as well (docs/notes/lab.md)."""
FEWEST, EACH, ENOUGH, FEWEST_ROWS = 120, 12, 225, 9600
"""The fewest steps that the update is trained: the second for every fact, but no fewer than the first and no more than
the third (docs/notes/lab.md); and the fewest rows to be forgotten that LoRA sees in all its steps."""
LONGEST_CHUNK = 40
"""Most target tokens that one value leads to (AnyEdit, published)."""
NAMED = "the policy names it"
LOOKS: Mapping[str, str] = {
    "both": "a base model that is asked in three ways or more",
    "subject": "a base model that is asked in one way or two",
}
"""Why values are looked up where they are, in a model without a chat template."""
UNKNOWN = (
    "not measured yet: which of the two `auto` takes needs the weights, and key statistics of them (`unlearn stats`); "
    "it solves (alphaedit) if the keys distinguish the requests from unlisted neighbours, and trains "
    "(null_space_tuning) if not"
)
SPREADS = (
    "an unlisted neighbour would get at least {share:.0f} % of what a request gets: the keys hardly "
    "distinguish the requests from other subjects of their relations; list more neighbours, forget less of one "
    "relation, or train the update (method: null_space_tuning)"
)


def choose(
    model: EditableModel,
    requests: Requests,
    source: Source,
    earlier: Sofar = Sofar(),  # noqa: B008 - frozen
) -> Plan:
    """Settle everything about an edit before it begins; the first of ``candidates``, whose arguments these are."""
    return candidates(model, requests, source, earlier)[0]


def candidates(
    model: EditableModel,
    requests: Requests,
    source: Source,
    earlier: Sofar = Sofar(),  # noqa: B008 - frozen
) -> tuple[Plan, ...]:
    """What may come of a policy: one plan, or two, where `auto` hangs on statistics that may not be read now.

    Args:
        model: unedited; of an outline nothing is known but what its configuration says.
        requests: the policy with its answers.
        source: of the key statistics.
        earlier: the edit to build on.

    Raises:
        PolicyError: layers that the model does not have.
    """
    apart = None if isinstance(model, Outline) else cache(partial(told_apart, model, requests))
    first, *others = (_sited(model, requests, method, apart) for method in options(requests.policy.method))
    if others and not earlier.factors and (why := _alike(first.placed)):
        return (_planned(model, requests, others[0], why, source, earlier),)
    plan = _planned(model, requests, first, NAMED, source, earlier)
    if not others:
        return (plan,)
    trains, why = _trains(plan, earlier)
    if trains:
        return (_planned(model, requests, others[0], why, source, earlier, plan.statistics),)
    found = replace(plan, reasons={**plan.reasons, "method": why})
    if trains is False:
        return (found,)
    return found, _planned(model, requests, others[0], why, source, earlier)


def options(method: Settings) -> tuple[Settings, ...]:
    """The methods that `auto` chooses from, the closed form first; any other method alone."""
    if not isinstance(method, Automatic):
        return (method,)
    shared = method.model_dump(exclude={"name"})
    return AlphaEdit.model_validate(shared), NullSpaceTuning.model_validate(shared)


def settle(model: EditableModel, policy: Policy, method: AnySettings, facts: Sequence[Named]) -> AnySettings:
    """A method's settings with every `auto` but that of the layers replaced by what it stands for.

    Args:
        model: to be edited.
        policy: with its prompts.
        method: its method, or one of the ``options`` that this leaves.
        facts: to be written.
    """
    prompts = [len(policy.relations[fact.relation].prompts) for fact in policy.facts]
    found = settled(method, has_chat_template(model.tokenizer), median_low(prompts))
    change: dict[str, object] = {}
    left: Settings = found
    match left:
        case AnyEdit(window="auto"):
            above = model.anatomy.layers - 1 - layers_of(left, model)[-1]
            change["window"] = max(1, min(LONGEST_CHUNK, above))
        case NullSpaceTuning(steps="auto"):
            least = min(max(FEWEST, EACH * len(facts)), ENOUGH)
            change["steps"] = _turns(model, policy, facts, least * FORMS) // FORMS
        case Lora(steps="auto"):
            change["steps"] = max(1, _turns(model, policy, facts, FEWEST_ROWS) // left.batch)
        case Guard(text="auto"):
            change["text"] = instruction(policy)
    return found.model_copy(update=change)


class _Sited(NamedTuple):
    """A method with everything settled that the model decides."""

    method: Settings
    """As the policy has it."""
    settings: Settings
    placed: Placed


def _sited(
    model: EditableModel, requests: Requests, method: Settings, apart: Callable[[], Tensor] | None
) -> _Sited:
    settings = settle(model, requests.policy, method, requests.facts)
    return _Sited(method, settings, placed(model, settings, apart))


def _planned(
    model: EditableModel,
    requests: Requests,
    sited: _Sited,
    why: str,
    source: Source,
    earlier: Sofar,
    known: Mapping[int, Statistics] | None = None,
) -> Plan:
    """The plan of one method, with what can be known about it beforehand."""
    method, settings, (layers, telling, depth, _) = sited
    found = algorithm(settings)
    named = (settings.model_dump(mode="json"), settings.largest, found, layers, source.corpus)
    reasons = {"method": why}
    if not isinstance(found, ClosedForm | Tuning):
        return Plan(*named, {}, reasons)
    reasons |= {**_reasons(model, method, found.look_up), "layers": depth}
    if isinstance(model, Outline):
        return Plan(*named, {}, reasons)
    statistics = source.statistics(model, layers, known)
    trained = isinstance(found, Tuning)
    asks = replace(requests, look_alikes=()) if trained else requests
    # Nothing hangs on the keys of an update that is trained: they go into the report alone.
    with narrowed(model, 0) if trained and not earlier.factors else nullcontext():
        compared = look_up_keys(model, asks, telling, found.look_up, earlier)
    spread: dict[int, float | None] = {}
    if isinstance(found, ClosedForm):
        spread = {layer: unlisted(compared, layer, there, found) for layer, there in statistics.items()}
    reach = min((share for share in spread.values() if share is not None), default=None)
    report = conflicts.measure(compared, statistics, spared_by(found), earlier, spread)
    if reach is not None and reach > far(found.look_up):
        report["warnings"].append(SPREADS.format(share=100 * reach))
    return Plan(*named, statistics, reasons, reach, report)


def spared_by(found: Algorithm) -> Spared | None:
    """What an update leaves alone; None where it is confined to no null space."""
    match found:
        case ClosedForm():
            return found.confined
        case Tuning():
            return found.spared
    return None


def settings_in_force(model: EditableModel, policy: Policy) -> JsonObject:
    """A policy's method as plain data, no `auto` but that of the layers; for `auto` all that it chooses from."""
    found = [settle(model, policy, method, policy.facts) for method in options(policy.method)]
    described: list[JsonObject] = [settings.model_dump(mode="json") for settings in found]
    return described[0] if len(found) == 1 else {"name": policy.method.name, "options": described}


def look_up_of(model: EditableModel, policy: Policy) -> str:
    """Where a policy's values are looked up; ``last`` for a method that writes none."""
    found = algorithm(settle(model, policy, options(policy.method)[0], policy.facts))
    return found.look_up if isinstance(found, ClosedForm | Tuning) else "last"


def far(look_up: str) -> float:
    """What an unlisted neighbour may get at most of what a request gets, if keys are to tell them apart."""
    return FAR_BOTH if look_up == "both" else FAR


def _alike(here: Placed) -> str | None:
    """Why the update is trained whatever a solve would reach: keys are too much alike; None elsewhere."""
    # Zero: there are no two subjects whose keys could be compared.
    if not here.apart or here.apart >= APART:
        return None
    return (
        f"keys at the last prompt token differ by subject by {100 * here.apart:.0f} % of their energy at most, and "
        f"where that is less than {100 * APART:.0f} % a solve per layer refuses other subjects as well"
    )


def _trains(plan: Plan, earlier: Sofar) -> tuple[bool | None, str]:
    """Whether an update is to be trained instead of solved for as planned, and why; None if that is not known yet."""
    assert isinstance(plan.algorithm, ClosedForm)
    look_up = plan.algorithm.look_up
    most = far(look_up)
    if earlier.factors:
        return False, "it builds on an earlier edit, and training begins at the unedited model"
    if look_up == "subject":
        return False, "it writes at the subject alone, where training would see none of the other phrasings"
    if not plan.statistics:
        return None, UNKNOWN
    if plan.reach is None:
        return False, "with fewer than two neighbours nothing shows how far it reaches"
    shares = f"an unlisted neighbour would get {100 * plan.reach:.0f} % of what a request gets"
    if plan.reach > most:
        return True, f"solved for, {shares} (more than {100 * most:.0f} %): the keys hardly distinguish them"
    return False, f"{shares} (at most {100 * most:.0f} %): the keys distinguish them"


def _reasons(model: EditableModel, method: Settings, look_up: str) -> dict[str, str]:
    """Why values stand where they do."""
    why = GIVEN
    if isinstance(method, Editor | NullSpaceTuning) and method.look_up == "auto":
        chats = has_chat_template(model.tokenizer)
        why = "a chat model is asked in many forms" if chats else LOOKS[look_up]
    return {"look_up": f"{look_up}: {why}"}


def _turns(model: EditableModel, policy: Policy, facts: Sequence[Named], least: int) -> int:
    """Rows that a training sees, for the forms of its facts."""
    in_ways = ways(model.tokenizer)
    rows = sum(
        len(variants(policy, template, in_ways))
        for fact in facts
        for template in policy.relations[fact.relation].prompts
    )
    return turns(rows, len(facts), least)
