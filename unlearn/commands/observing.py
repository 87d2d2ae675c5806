"""The observations that an audit compares its candidate with: of the unedited model, and of one that never knew."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING

from unlearn.audit.cache import Folder, Paces, is_known, observed
from unlearn.commands.common import load_model
from unlearn.commands.said import say
from unlearn.policy import EMBEDDED, Policy
from unlearn.progress import Progress

if TYPE_CHECKING:
    from unlearn.audit.attacks.scene import State
    from unlearn.audit.observation import Observation
    from unlearn.audit.pieces import Kept
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests
    from unlearn.store import Store

log = logging.getLogger("unlearn")


def compared_with(
    model: EditableModel,
    requests: Requests,
    options: tuple[str, str, bool, bool],
    cache: Store | None,
    progress: Progress,
) -> tuple[Observation, Observation | None]:
    """Say how long the audit will take, and observe the unedited model and the control, or find both in the cache.

    Args:
        model: the unedited one.
        requests: what is asked.
        options: device, dtype, trust_remote_code and quiet, for loading the control; its dtype is the model's.
        cache: where they are kept, or None.
        progress: where to show the steps.

    Returns:
        The unedited model's observation; and the control's, or None where the policy has none or its suite attacks
        nothing.
    """
    from unlearn.audit.observing import observe

    name = control_of(requests.policy)
    # At once, so that a control that cannot be loaded is noticed before anything is measured.
    device, _, trust, quiet = options
    control = None if name is None else load_model(name, device, str(model.dtype), trust, quiet)
    _announce(model, control, requests, cache, quiet=options[-1])
    before = observed(
        model, requests, cache, lambda pieces: observe(model, requests, progress, pieces=pieces)
    )
    if control is None:
        return before, None
    ask = partial(observe, control, requests, progress, "control")
    return before, observed(control, requests, cache, lambda pieces: ask(pieces=pieces), "control")


def control_of(policy: Policy) -> str | None:
    """The model that never knew the facts; None where there is none, or the suite has no use for one."""
    from unlearn.audit.suite import load_suite
    from unlearn.model.loading import CONTROL

    name = policy.audit.control
    if name == "auto":
        name = CONTROL if policy.model == EMBEDDED else "none"
    return None if name == "none" or not load_suite(policy.audit.suite).attacks else name


def states_of(policy: Policy) -> list[State]:
    """The model states that an audit of a policy measures."""
    return ["before", "after"] if control_of(policy) is None else ["before", "after", "control"]


def kept_in(cache: Store | None, model: EditableModel, requests: Requests) -> Kept | None:
    """Where the pieces of edited models are kept while their observation is being made.

    Args:
        cache: a place, or None for nowhere.
        model: the unedited one, as it is.
        requests: what is asked.
    """
    if cache is None:
        return None
    place, base = cache, model.identity()

    def kept(edited: EditableModel, said: str) -> Folder:
        return Folder.of(place, edited, requests, base, said)

    return kept


def _announce(
    model: EditableModel, control: EditableModel | None, requests: Requests, cache: Store | None, quiet: bool
) -> None:
    """Log how long the suite will take, and tell a person who watches."""
    from unlearn.audit.estimate import estimate, measured_pace
    from unlearn.audit.suite import load_suite

    todo: list[State] = ["after"]
    if control is not None and not is_known(control, requests, cache, "control"):
        todo.insert(0, "control")
    if not is_known(model, requests, cache):
        todo.insert(0, "before")
    suite = load_suite(requests.policy.audit.suite)
    paces = Paces(cache, requests.policy.model, model.device.type)
    found = estimate(requests, suite, todo, paces)
    if not found.measured:
        found = estimate(requests, suite, todo, paces, measured_pace(model, requests))
    log.info(found.sentence())
    if sys.stderr.isatty() and not quiet:
        say(found.sentence(), err=True)
