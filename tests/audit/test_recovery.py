"""What an attack got out of two models, as a measurement."""

from __future__ import annotations

import pytest

from tests.audit.outcomes import fact, made_as, state
from unlearn.audit.observation import Attacked, Observation
from unlearn.audit.recovery import attack
from unlearn.policy import AuditSpec


def test_an_attack_counts_known_facts_and_must_find_something_before() -> None:
    facts = fact("f0"), fact("f1", known=False)

    def attacks(told: list[bool], name: str = "q4") -> Observation:
        return Observation(suite="tiny", attacks={name: Attacked(outcomes=state("g", told).groups["g"])})

    after = attacks([False] * 4)
    found = attack(made_as("q4"), attacks([True, False, True, False]), after, None, AuditSpec(), facts)
    assert (found.before, found.n, found.passed) == (1.0, 2, True)
    nothing = attack(made_as("q4"), attacks([False] * 4), after, None, AuditSpec())
    assert nothing.passed is False and "0 of 4" in str(nothing.reason)
    other = (*facts, fact("f2", "price"))
    assert (
        "Not attacked: relations.price."
        in attack(made_as("q4"), attacks([True] * 4), after, None, AuditSpec(), other).definition
    )
    assert "Not attacked" not in found.definition
    shown = attack(
        made_as("patch"), attacks([False] * 4, "patch"), attacks([False] * 4, "patch"), None, AuditSpec()
    )
    assert shown.after == 0.0 and shown.passed is None


def test_a_limit_of_the_policy_for_all_attacks_is_not_loosened_by_a_control() -> None:
    def attacks(told: list[bool]) -> Observation:
        seen = Attacked(outcomes=state("g", told).groups["g"])
        return Observation(suite="tiny", attacks={"lens": seen, "traces": seen})

    states = attacks([True] * 4), attacks([True, False, False, False]), attacks([False] * 4)
    by_chance = attack(made_as("lens"), *states, AuditSpec())
    assert by_chance.passed and by_chance.limit == pytest.approx(0.49, abs=0.01)
    for name in ("attack", "attack.lens"):
        own = attack(made_as("lens"), *states, AuditSpec(limits={name: 0.0}))
        assert own.limit == 0.0 and own.passed is False
    # What only informs is held to a limit by its own name alone.
    shown = made_as("traces")
    assert attack(shown, *states, AuditSpec(limits={"attack": 0.0})).limit is None
    assert attack(shown, *states, AuditSpec(limits={"attack.traces": 0.0})).limit == 0.0
