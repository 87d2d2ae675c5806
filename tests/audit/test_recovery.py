"""What an attack got out of two models, as a measurement."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.audit.outcomes import fact, made_as, state
from unlearn.audit.observation import Attacked, Observation, Outcome
from unlearn.audit.recovery import attack
from unlearn.audit.shares import knows
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
    shown = attack(
        made_as("patch"), attacks([False] * 4, "patch"), attacks([False] * 4, "patch"), None, AuditSpec()
    )
    assert shown.after == 0.0 and shown.passed is None


def test_a_limit_of_the_policy_for_all_attacks_is_not_loosened_by_a_control() -> None:
    def attacks(told: list[bool]) -> Observation:
        seen = Attacked(outcomes=state("g", told).groups["g"])
        return Observation(suite="tiny", attacks={"lens": seen, "traces": seen})

    control = attacks([False] * 4).model_copy(update={"groups": state("direct", [False] * 8).groups})
    states = attacks([True] * 4), attacks([True, False, False, False]), control
    by_chance = attack(made_as("lens"), *states, AuditSpec())
    assert by_chance.passed and by_chance.limit == pytest.approx(0.49, abs=0.01)
    for name in ("attack", "attack.lens"):
        own = attack(made_as("lens"), *states, AuditSpec(limits={name: 0.0}))
        assert own.limit == 0.0 and own.passed is False
    # What only informs is held to a limit by its own name alone.
    shown = made_as("traces")
    assert attack(shown, *states, AuditSpec(limits={"attack": 0.0})).limit is None
    assert attack(shown, *states, AuditSpec(limits={"attack.traces": 0.0})).limit == 0.0


def lens(told: list[bool], said: list[bool] | None = None) -> Observation:
    """An observation of the attack, and of the policy's own prompts where ``said`` says what comes of them."""
    seen = Attacked(outcomes=state("g", told).groups["g"])
    asked = {} if said is None else dict(state("direct", said).groups)
    return Observation(suite="tiny", attacks={"lens": seen}, groups=asked)


def test_a_control_that_knows_the_facts_loosens_no_limit() -> None:
    before, after = lens([True] * 24), lens([True] * 24)
    never = lens([False] * 24, [False] * 24)
    assert attack(made_as("lens"), before, lens([False] * 24), never, AuditSpec()).passed
    # A control that the attack opens as well would allow everything.
    for asked in ([True] * 20 + [False] * 4, None):
        found = attack(made_as("lens"), before, after, lens([True] * 24, asked), AuditSpec())
        assert found.passed is False and "know" in str(found.reason)
        assert found.limit == 0.05, "the policy's, and not what such a control would allow"
    assert "20 of 24" in str(
        attack(
            made_as("lens"), before, after, lens([True] * 24, [True] * 20 + [False] * 4), AuditSpec()
        ).reason
    )
    # One lucky answer is no knowledge.
    lucky = lens([False] * 24, [True] + [False] * 23)
    assert attack(made_as("lens"), before, lens([False] * 24), lucky, AuditSpec()).passed


def test_a_control_that_gives_one_answer_for_all_does_not_know_them() -> None:
    # `fact` gives all of them the same answer, of which a third would be right about these.
    facts = [*(fact(f"f{i}") for i in range(2)), replace(fact("f2"), answer="salt")]
    outcomes = tuple(
        Outcome(key=f"{i}", fact=f"f{i % 3}", part="recipe", disclosed=i % 3 < 2, refused=False)
        for i in range(30)
    )
    always = Observation(suite="tiny", groups={"direct": outcomes})
    assert knows(always, facts) is None
    assert "20 of 30" in str(knows(always, [replace(one, answer=one.id) for one in facts]))
    failed = Observation(suite="tiny", failed={"direct": "logits are not finite"})
    assert "could not be asked about the facts: logits" in str(knows(failed, facts))


def test_an_attack_that_finds_no_more_than_chance_before_shows_nothing() -> None:
    def told(hits: int) -> list[bool]:
        return [True] * hits + [False] * (24 - hits)

    never = lens(told(1), [False] * 24)
    weak = attack(made_as("lens"), lens(told(1)), lens(told(4)), never, AuditSpec())
    assert weak.passed is False and "no more from the unedited model than by chance (1 of 24)" in str(
        weak.reason
    )
    strong = attack(made_as("lens"), lens(told(20)), lens(told(1)), never, AuditSpec())
    assert strong.passed and strong.control == pytest.approx(1 / 24)
    # Without a control, guessing among the candidates says what chance is.
    guess = [o.model_copy(update={"chance": 0.25}) for o in lens(told(8)).attacks["lens"].outcomes]
    by_guessing = Observation(suite="tiny", attacks={"lens": Attacked(outcomes=tuple(guess))})
    assert "by chance (8 of 24)" in str(
        attack(made_as("lens"), by_guessing, lens(told(0)), None, AuditSpec()).reason
    )
