"""`unlearn check --suite`: what an audit suite measures, how much it asks, and about how long that takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from unlearn.commands.said import say
from unlearn.measurements import FAMILIES, named
from unlearn.policy import EMBEDDED, Policy
from unlearn.shown import shown

if TYPE_CHECKING:
    from unlearn.audit.attacks.scene import State
    from unlearn.audit.estimate import Estimate
    from unlearn.audit.suite import Suite

STATES = {"before": "unedited", "after": "edited", "control": "control"}


def tell_suite(name: str, policy: Policy | None, as_json: bool) -> int:
    """Print a suite on stdout; with a policy, its work and time on that policy's facts as well.

    Raises:
        AuditError: there is no such suite.
        PolicyError: the policy asks for neighbours that nobody knows.
    """
    from unlearn.audit.suite import load_suite

    suite = load_suite(name)
    found = None if policy is None else estimated(policy, suite)
    if as_json:
        say(json.dumps(_document(suite, found), indent=2))
    else:
        lines = [*_definition(suite), *([] if found is None else ["", *_work(found)])]
        say("\n".join(map(shown, lines)))
    return 0


def estimated(policy: Policy, suite: Suite) -> Estimate:
    """What the suite asks of the states of a policy's model, with times of earlier audits; no model is loaded."""
    import torch

    from unlearn.audit.cache import Paces
    from unlearn.audit.control import states_of
    from unlearn.audit.estimate import estimate
    from unlearn.edit.requests.resolve import outline
    from unlearn.store import Store, cache_folder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    paces = Paces(Store.existing(cache_folder()), policy.model, device)
    if policy.keep.neighbours == "auto" and policy.model != EMBEDDED:  # the model will name them
        unnamed = policy.keep.model_copy(update={"neighbours": ()})
        policy = policy.model_copy(update={"keep": unnamed})
    return estimate(outline(policy), suite, states_of(policy), paces)


def sizes(suite: Suite) -> dict[str, Any]:
    """Every size of a suite, in the order of its fields."""
    about = ("name", "description", "measurements")
    return {key: value for key, value in suite.model_dump(mode="json").items() if key not in about}


def _document(suite: Suite, found: Estimate | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": suite.name,
        "description": suite.description,
        "measurements": list(suite.measurements),
        "sizes": sizes(suite),
    }
    if found is not None:
        document["work"] = {state: dict(pieces) for state, pieces in found.work.items()}
        document["seconds"] = None if found.seconds is None else dict(found.seconds)
        document["timed_before"] = found.measured
    return document


def _definition(suite: Suite) -> list[str]:
    lines = [f"{suite.name}: {suite.description}", ""]
    width = max(map(len, suite.measurements))
    for name in suite.measurements:
        said = named(name).definition.format(name=FAMILIES[named(name).family].several)
        lines.append(f"  {name:<{width}}  {said}")
    lines += ["", "  sizes (upper bounds)"]
    for key, value in sizes(suite).items():
        size = "all" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else value
        lines.append(f"    {key:<22}{size}")
    return lines


def _work(found: Estimate) -> list[str]:
    from unlearn.audit.estimate import spoken

    order: list[State] = ["before", "after", "control"]
    states = [state for state in order if state in found.work]
    names = list(dict.fromkeys(name for state in states for name in found.work[state]))
    width = max(map(len, names), default=4)
    head = "".join(f"{STATES[state]:>12}" for state in states)
    lines = [f"  {'work, in generated tokens':<{width + 2}}{head}"]
    for name in names:
        counts = [found.work[state].get(name) for state in states]
        row = "".join(f"{'-' if count is None else format(round(count), ','):>12}" for count in counts)
        lines.append(f"    {name:<{width}}{row}")
    if found.seconds is not None:
        times = "".join(f"{spoken(found.seconds[state]):>12}" for state in states)
        lines.append(f"    {'time, about':<{width}}{times}")
    return [*lines, "", f"  {found.sentence()}"]
