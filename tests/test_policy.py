"""The policy as a value: limits, notes, and what is consistent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from unlearn.policy import DEFAULT_LIMITS, AuditSpec, Policy, is_question
from unlearn.policy_checks import cross_check


def data(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "p",
        "relations": {
            "r": {
                "prompts": ["What is {subject}?", "{subject} is"],
                "held_out": ["Say {subject}.", "So {subject} is"],
            }
        },
        "facts": [{"id": "a", "subject": "A", "relation": "r"}],
        **changes,
    }


@pytest.mark.parametrize(
    ("template", "question"),
    [
        ("Who is {subject}?", True),
        ("Tell me of {subject}.", True),
        ("Go, {subject}! ", True),
        ("{subject} is", False),
    ],
)
def test_questions_end_like_questions(template: str, question: bool) -> None:
    assert is_question(template) is question


def test_a_policy_is_frozen_and_strict() -> None:
    policy = Policy.model_validate(data())
    with pytest.raises(ValidationError):
        policy.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Policy.model_validate(data(extra=1))


def test_inconsistent_parts_are_refused_without_a_file_too() -> None:
    facts = [{"id": "a", "subject": "A", "relation": "r"}, {"id": "a", "subject": "B", "relation": "q"}]
    with pytest.raises(ValidationError, match=r"already used.*no relation `q`"):
        Policy.model_validate(data(facts=facts))


def test_errors_do_not_quote_the_policy() -> None:
    with pytest.raises(ValidationError) as caught:
        Policy.model_validate(
            data(facts=[{"id": "a", "subject": "A", "relation": "r", "answer": ["SECRET"]}])
        )
    assert "SECRET" not in str(caught.value)


def test_a_limit_is_its_own_then_its_familys_then_the_default() -> None:
    audit = AuditSpec(limits={"capability": 0.1, "capability.x": 0.2}, tasks=("x", "y"))
    assert audit.limit("capability.x") == 0.2
    assert audit.limit("capability.y") == 0.1
    assert audit.limit("leak.direct") == DEFAULT_LIMITS["leak.direct"]
    assert audit.limit("toxicity.original") == DEFAULT_LIMITS["toxicity"]
    assert audit.limit("toxicity.original.share") is None
    assert audit.limit("drift.null_space_leakage") is None


def test_notes_name_measurements_that_cannot_pass() -> None:
    notes = Policy.model_validate(data(relations={"r": {"prompts": ["What is {subject}?"]}})).notes()
    assert any("leak.held_out" in note for note in notes)
    assert any("leak.cloze" in note for note in notes)
    assert any("retain.siblings" in note for note in notes)


def test_effective_holds_every_default_and_loads_again() -> None:
    policy = Policy.model_validate(data(audit={"limits": {"drift.kl": 0.5}}))
    effective = policy.effective()
    assert effective["audit"]["limits"] == {**DEFAULT_LIMITS, "drift.kl": 0.5}
    again = Policy.model_validate(effective)
    assert again.method == policy.method
    assert again.effective() == effective


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["facts", "relations", "keep", "audit", "model"]), _junk))
def test_cross_check_bears_any_shape(junk: dict[str, Any]) -> None:
    for problem in cross_check(junk):
        assert problem.sentence
