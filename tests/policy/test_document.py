"""The policy as a value: limits, notes, and what is consistent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from unlearn.policy import DEFAULT_LIMITS, WRITTEN, AuditSpec, Keep, Policy, is_question
from unlearn.policy.checks import cross_check, same_name


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
        ("《{subject}》的作者是谁？", True),
        ("{subject} کا مصنف بتائیں۔", True),
        ("{subject} ၏ စာရေးသူကို ပြောပါ။", True),
        ("សូមប្រាប់អ្នកនិពន្ធ {subject}។", True),
        ("የ{subject} ደራሲ ማን ነው፧", True),
        ("{subject} is", False),
        ("{subject} کے مصنف", False),
        ("Of {subject}:", False),
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
    assert audit.limit("leak.rank") is None
    assert audit.own_limit("capability.x") == 0.2 and audit.own_limit("capability.y") == 0.1
    assert audit.own_limit("leak.direct") is None


def test_notes_name_measurements_that_cannot_pass() -> None:
    notes = Policy.model_validate(data(relations={"r": {"prompts": ["What is {subject}?"]}})).notes()
    assert any("leak.held_out" in note for note in notes)
    assert any("leak.cloze" in note for note in notes)
    assert any("retain.siblings" in note for note in notes)


def test_relations_that_no_fact_names_are_kept_unless_the_policy_lists_others() -> None:
    relations = {name: {"prompts": [f"What {name} is {{subject}}?"]} for name in ("r", "colour", "smell")}
    for keep, kept in (
        ({}, ("colour", "smell")),
        ({"siblings": ["smell"]}, ("smell",)),
        ({"siblings": []}, ()),
    ):
        policy = Policy.model_validate(data(relations=relations, keep=keep))
        assert policy.siblings == kept
        assert any("no relation is kept" in note for note in policy.notes()) == (not kept)
        # A copy that keeps other relations says so.
        assert policy.model_copy(update={"keep": Keep(siblings=("colour",))}).siblings == ("colour",)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Stenmite", " STENMITE ", True),
        ("A B", "a\u00a0b\u00ad", True),
        ("Caf\u00e9", "cafe\u0301", True),
        ("10\u00b2", "102", False),
        ("\u0645\u06cc\u200c\u0631\u0648\u0645", "\u0645\u06cc\u0631\u0648\u0645", False),
        ("Pokemon", "Pok\u00e9mon", False),
    ],
)
def test_names_are_the_same_where_a_reader_sees_no_difference(one: str, other: str, same: bool) -> None:
    assert (same_name(one) == same_name(other)) is same


def test_relations_are_told_apart_by_case() -> None:
    relations = {name: {"prompts": [f"What {name} is {{subject}}?"]} for name in ("r", "colour", "Colour")}
    assert Policy.model_validate(data(relations=relations, keep={"siblings": ["colour", "Colour"]}))
    long = data(facts=[{"id": "a" * 101, "subject": "A", "relation": "r"}])
    assert Policy.model_validate(long).facts[0].id == "a" * 101


def test_neighbours_that_the_model_will_name_are_noted() -> None:
    said = "the names are the model's own"
    for changes, noted in (({"model": "some/model"}, True), ({}, False)):
        notes = Policy.model_validate(data(**changes)).notes()
        assert any(said in note for note in notes) == noted


def test_a_relation_without_held_out_neighbours_is_noted_where_others_have_some() -> None:
    relations = {name: {"prompts": [f"What is the {name} of {{subject}}?"]} for name in ("r", "s")}
    facts = [{"id": name, "subject": name.upper(), "relation": name} for name in relations]
    for listed, noted in (({"r": ["X"]}, True), ({"r": ["X"], "s": ["Y"]}, False), (["X"], False)):
        keep = {"siblings": [], "neighbours": ["Z"], "held_out_neighbours": listed}
        policy = Policy.model_validate(data(relations=relations, facts=facts, keep=keep, model="x"))
        assert any("has nothing for s" in note for note in policy.notes()) == noted


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


def with_targets(**fact: Any) -> dict[str, Any]:
    relations = {"r": {"prompts": ["What is {subject}?"], "refusal": "Ask me about {subject} later."}}
    relations["s"] = {"prompts": ["Where is {subject}?"]}
    facts = [{"id": i, "subject": i.upper(), "relation": r} for i, r in (("a", "r"), ("b", "r"), ("c", "s"))]
    facts[0] |= fact
    return data(
        relations=relations, facts=facts, refusal="No comment.", model="x", keep={"neighbours": ["Z"]}
    )


def test_a_target_is_the_facts_own_or_its_relations_or_the_policys() -> None:
    policy = Policy.model_validate(with_targets(refusal="Forget {subject}."))
    assert [policy.target(fact) for fact in policy.facts] == [
        "Forget A.",
        "Ask me about B later.",
        "No comment.",
    ]
    assert policy.targets() == ("No comment.", "Forget A.", "Ask me about B later.")
    assert Policy.model_validate(data()).targets() == ("I can't help with that.",)


def test_a_target_may_be_the_end_or_be_written_by_the_model() -> None:
    end = Policy.model_validate(with_targets(refusal="{end}"))
    assert end.target(end.facts[0]) == "" and end.target(end.facts[1]) != ""
    written = Policy.model_validate(with_targets(refusal="{written}"))
    assert written.raw_target(written.facts[0]) == WRITTEN
    # Until the model has been asked, the nearest plain text stands for it.
    assert written.target(written.facts[0]) == "Ask me about A later."


@pytest.mark.parametrize(
    ("fact", "at", "sentence"),
    [
        ({"refusal": "Not {name}."}, ("facts", 0, "refusal"), "unknown placeholder `{name}`"),
        ({"refusal": "Not {}."}, ("facts", 0, "refusal"), "unknown placeholder `{}`"),
        ({"refusal": "So: {end}"}, ("facts", 0, "refusal"), "unknown placeholder `{end}`"),
        ({"refusal": "It is NOT amber.", "answer": "Amber"}, ("facts", 0, "refusal"), "contains the answer"),
        ({"answer": "x", "aliases": ["later"]}, ("facts", 0, "answer"), "contains the answer"),
    ],
)
def test_a_target_may_not_tell_and_knows_one_placeholder(fact: Any, at: Any, sentence: str) -> None:
    found = cross_check(with_targets(**fact))
    assert [problem.loc for problem in found] == [at] and sentence in found[0].sentence
    assert not cross_check(with_targets(refusal="It is {subject}.", answer="amber"))  # the control


def related(**kinds: Any) -> dict[str, Any]:
    return data(relations={"r": {"prompts": ["What is {subject}?"], **kinds}})


def test_prompts_for_the_audit_alone() -> None:
    relation = Policy.model_validate(
        related(
            reverse=["Which is {answer}?"],
            two_hop=["I have {subject}. What is it?"],
            negation=["{subject} is not"],
            languages={"de": ["Was ist {subject}?"], "ja": ["{subject}とは何ですか？"]},
        )
    ).relations["r"]
    assert relation.translated == ("Was ist {subject}?", "{subject}とは何ですか？")
    assert is_question(relation.translated[1]) and relation.questions() == ("What is {subject}?",)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({"reverse": ["Which is it?"]}, "exactly one {answer}"),
        ({"reverse": ["Is {subject} {answer}?"]}, "must not name the {subject}"),
        ({"reverse": ["{answer}"]}, "words besides {answer}"),
        ({"two_hop": ["What is it?"]}, "exactly one {subject}"),
        ({"languages": {"de": ["Was?"]}}, "exactly one {subject}"),
        ({"languages": ["Was ist {subject}?"]}, "dict"),
    ],
)
def test_prompts_for_the_audit_alone_are_checked(kinds: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Policy.model_validate(related(**kinds))


@pytest.mark.parametrize("kind", ["two_hop", "negation"])
def test_a_prompt_of_the_edit_is_no_other_kind_of_prompt(kind: str) -> None:
    (found,) = cross_check(related(**{kind: ["what is {subject}?"]}))
    assert found.loc == ("relations", "r", kind, 0)
    (found,) = cross_check(related(languages={"en": ["What IS {subject}?"]}))
    assert found.loc == ("relations", "r", "languages", "en", 0)


def test_limits_of_what_guessing_may_do_are_known() -> None:
    audit = {"limits": {"leak.choice": 0.4, "leak.rank": 0.2, "leak.letters": 0.3, "leak.reverse": 0.0}}
    policy = Policy.model_validate(data(audit=audit))
    assert policy.audit.limit("leak.choice") == 0.4 and AuditSpec().limit("leak.choice") is None
