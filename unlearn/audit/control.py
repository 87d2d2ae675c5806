"""The control of an audit: a model that never knew the facts, which shows what success by chance looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearn.audit.suite import load_suite
from unlearn.policy import EMBEDDED, Policy

if TYPE_CHECKING:
    from unlearn.audit.attacks.scene import State


def control_of(policy: Policy) -> str | None:
    """The model that never knew the facts; None where there is none, or the suite has no use for one."""
    from unlearn.model.loading import CONTROL

    name = policy.audit.control
    if name == "auto":
        name = CONTROL if policy.model == EMBEDDED else "none"
    return None if name == "none" or not load_suite(policy.audit.suite).attacks else name


def states_of(policy: Policy) -> list[State]:
    """The model states that an audit of a policy measures."""
    return ["before", "after"] if control_of(policy) is None else ["before", "after", "control"]
