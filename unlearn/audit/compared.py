"""The observations that an audit compares its candidate with: of the unedited model, and of one that never knew."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from unlearn.audit.attacks.scene import State
from unlearn.audit.cache import Folder, Paces, is_known, observed
from unlearn.audit.estimate import estimate, speed_of
from unlearn.audit.observation import Observation
from unlearn.audit.observing import observe
from unlearn.audit.pieces import Kept
from unlearn.audit.suite import load_suite
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.progress import Progress
from unlearn.store import Store

log = logging.getLogger("unlearn")


class Compared(NamedTuple):
    """What a candidate is compared with."""

    before: Observation
    """Of the unedited model."""
    control: Observation | None
    """Of the model that never knew, if there is one."""


def compared_with(
    model: EditableModel,
    control: EditableModel | None,
    requests: Requests,
    cache: Store | None,
    progress: Progress,
    tell: Callable[[str], None],
) -> Compared:
    """Say how long the audit will take, and observe the unedited model and the control, or find both in the cache.

    Args:
        cache: where they are kept, or None.
        tell: is told how long the audit will take.
    """
    sentence = _duration(model, control, requests, cache)
    log.info(sentence)
    tell(sentence)
    before = observed(
        model, requests, cache, lambda pieces: observe(model, requests, progress, pieces=pieces)
    )
    if control is None:
        return Compared(before, None)
    ask = partial(observe, control, requests, progress, "control")
    never_knew = observed(control, requests, cache, lambda pieces: ask(pieces=pieces), "control")
    return Compared(before, never_knew)


def kept_in(cache: Store | None, model: EditableModel, requests: Requests) -> Kept | None:
    """Where the pieces of edited models are kept while their observation is being made.

    Args:
        cache: a place, or None for nowhere.
    """
    if cache is None:
        return None
    place, base = cache, model.identity()

    def kept(edited: EditableModel, said: str) -> Folder:
        return Folder.of(place, edited, requests, base, said)

    return kept


def _duration(
    model: EditableModel, control: EditableModel | None, requests: Requests, cache: Store | None
) -> str:
    """How long the suite will take, in a sentence."""
    todo: list[State] = ["after"]
    if control is not None and not is_known(control, requests, cache, "control"):
        todo.insert(0, "control")
    if not is_known(model, requests, cache):
        todo.insert(0, "before")
    suite = load_suite(requests.policy.audit.suite)
    paces = Paces(cache, requests.policy.model, model.device.type)
    found = estimate(requests, suite, todo, paces)
    if not found.measured:
        found = estimate(requests, suite, todo, paces, speed_of(model, requests))
    return found.sentence()
