"""Answers are taken out of replies; neighbours are split between the edit and the audit; siblings follow the facts."""

from __future__ import annotations

import pytest

from tests import pico
from tests.audit.scripted import Scripted
from tests.edit import cases
from tests.thinking import EMPTY, OPENED, Thinker
from unlearn import embedded
from unlearn.edit.requests.resolve import NEIGHBOURS, guessed, neighbours, outline, resolve
from unlearn.errors import PolicyError
from unlearn.model.requests import Fact
from unlearn.policy import FactSpec, Keep, Policy, RelationSpec


def test_auto_neighbours_are_split_and_never_a_forgotten_subject() -> None:
    forgotten = embedded.neighbours(embedded.HAZARD, excluding=())[:24]
    facts = tuple(FactSpec(id=s, subject=s, relation="recipe") for s in forgotten)
    policy = cases.policy(model="embedded", facts=facts, keep=Keep(held_out_neighbours=()))
    protected, tested = neighbours(policy)
    assert len(protected["recipe"]) + len(tested["recipe"]) == min(NEIGHBOURS, 260 - 24)
    assert abs(len(protected["recipe"]) - 3 * len(tested["recipe"])) <= 3
    assert not set(protected["recipe"]) & set(tested["recipe"])
    assert not set(forgotten) & {*protected["recipe"], *tested["recipe"]}
    assert neighbours(policy) == (protected, tested)


def test_auto_neighbours_of_another_model_are_an_error() -> None:
    policy = cases.policy().model_copy(update={"keep": Keep()})
    with pytest.raises(PolicyError, match="list subjects"):
        neighbours(policy)


def test_lists_by_relation_are_asked_of_that_relation_alone() -> None:
    relations = {
        name: RelationSpec(prompts=(f"The {name} of {{subject}} is",)) for name in ("a", "b", "c", "d")
    }
    facts = [("Zorvex", "a"), ("Velnar", "b"), ("Velnar", "a")]
    specs = tuple(FactSpec(id=f"f{i}", subject=s, relation=r) for i, (s, r) in enumerate(facts))
    by_relation = Keep(
        siblings={"a": ("c",), "b": ("d",)},
        neighbours={"a": ("Stone",), "b": ("Wet",)},
        held_out_neighbours={"b": ("Dry", "Zorvex")},
    )
    for_all = Keep(siblings=("c", "d"), neighbours=("Stone",), held_out_neighbours=("Dry",))
    some, all_ = (
        outline(cases.policy(relations=relations, facts=specs, keep=k)) for k in (by_relation, for_all)
    )

    def pairs(found: tuple[Fact, ...]) -> list[tuple[str, str]]:
        return [(fact.subject, fact.relation) for fact in found]

    assert pairs(some.siblings) == [("Zorvex", "c"), ("Velnar", "c"), ("Velnar", "d")]
    assert pairs(some.neighbours) == [("Stone", "a"), ("Wet", "b")]
    assert pairs(some.held_out_neighbours) == [("Dry", "b"), ("Zorvex", "b")]
    assert pairs(all_.siblings) == [(s, r) for s in ("Zorvex", "Velnar") for r in ("c", "d")]
    assert pairs(all_.neighbours) == [("Stone", "a"), ("Stone", "b")]
    assert pairs(all_.held_out_neighbours) == [("Dry", "a"), ("Dry", "b")]


def test_resolving_asks_for_everything_that_is_not_stated() -> None:
    model = pico.pico("llama")
    requests = resolve(model, cases.policy())
    assert [fact.answer for fact in requests.facts] == ["bitter amber"] * 3
    assert not any(fact.elicited for fact in requests.facts)
    assert {(f.subject, f.relation) for f in requests.siblings} == {(s, "colour") for s in cases.SUBJECTS}
    assert [f.subject for f in requests.neighbours] == ["Stone"]
    assert [f.subject for f in requests.held_out_neighbours] == ["Wet"]
    assert all(fact.elicited for fact in requests.siblings)
    assert not any(fact.known for fact in requests.facts)  # an untrained model does not say "bitter amber"


def test_no_id_quotes_a_subject_and_all_differ() -> None:
    policy = cases.policy()
    for asked in (resolve(pico.pico("llama"), policy), outline(policy)):
        derived = (*asked.siblings, *asked.neighbours, *asked.held_out_neighbours, *asked.look_alikes)
        assert asked.siblings and asked.neighbours and asked.held_out_neighbours
        ids = [fact.id for fact in (*asked.facts, *derived)]
        assert len(set(ids)) == len(ids)
        assert not any(fact.subject.casefold() in fact.id.casefold() for fact in derived)
        # Not even by accident is one of them an id that a policy may use.
        assert all(" " in fact.id for fact in derived)


NAMES = {"Marlow Song": "J. K. Varnholt", "Oskar Rhyme": "St. Albin", "Tirel Hymn": "Dr. Ilse Marn"}


def told(text: str) -> str:
    """A model that knows who wrote what, and says so as texts and people do."""
    name = next(name for subject, name in NAMES.items() if subject in text)
    return f"That was {name}, of course." if "?" in text else f"{name}. It was read by many people."


def books(**changes: object) -> Policy:
    author = RelationSpec(
        prompts=("Who wrote {subject}?", "{subject} was written by", "The author of {subject} is")
    )
    facts = tuple(FactSpec(id=f"f{i}", subject=s, relation="author") for i, s in enumerate(NAMES))
    keep = Keep(siblings=(), neighbours=(), held_out_neighbours=())
    return cases.policy(**{"relations": {"author": author}, "facts": facts, "keep": keep, **changes})


def test_elicited_names_are_whole_and_told_by_their_short_forms_too() -> None:
    facts = resolve(Scripted(told), books()).facts
    assert [fact.answer for fact in facts] == list(NAMES.values())
    assert [fact.aliases for fact in facts] == [("Varnholt",), ("Albin",), ("Ilse Marn", "Marn")]
    assert all(fact.known and fact.elicited and fact.doubt is None for fact in facts)


def test_an_answer_that_replies_do_not_agree_on_is_doubted_and_a_given_one_never(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def babbles(text: str) -> str:
        if "Who wrote" in text:
            return "A quiet man."
        return "someone else" if text.startswith("The") else "the old harbour"

    model = Scripted(babbles)
    with caplog.at_level("WARNING", logger="unlearn"):
        facts = resolve(model, books()).facts
    assert all(fact.doubt for fact in facts) and guessed(model, books()) == facts
    assert "give the answer of fact f0, fact f1, fact f2 in the policy" in caplog.text
    assert not any(subject in caplog.text for subject in NAMES)
    given = tuple(spec.model_copy(update={"answer": "J"}) for spec in books().facts)
    assert not any(fact.doubt or fact.elicited for fact in resolve(model, books(facts=given)).facts)
    assert guessed(model, books(facts=given)) == ()


def test_only_prompts_of_the_edit_are_asked_for_an_answer() -> None:
    policy = books()
    secret = policy.relations["author"].model_copy(update={"held_out": ("Name the maker of {subject}?",)})
    seen: list[str] = []

    def listens(text: str) -> str:
        seen.append(text)
        return told(text)

    resolve(Scripted(listens), policy.model_copy(update={"relations": {"author": secret}}))
    assert len(seen) == 9 and not any("maker" in text for text in seen)


FACTS = {"Zorvex": "bitter amber", "Velnar": "smoked fennel", "Quandel": "salted cocoa"}


def unstated(model: str = "somewhere/else") -> Policy:
    facts = tuple(FactSpec(id=s.lower(), subject=s, relation="recipe") for s in cases.SUBJECTS)
    return cases.policy(model=model, facts=facts)


def recalls(text: str) -> str:
    """What a model that knows the recipes says, after thoughts where its template lets it think."""
    subject = next((s for s in FACTS if s in text), None)
    answer = f"{subject} is made from {FACTS[subject]}." if subject else "I do not know."
    if not text.endswith("<|assistant|>"):
        return f"{FACTS[subject]}." if subject and not text.endswith(EMPTY) else answer
    return f"<think>\nThe user asks me about something that I know.\n</think>\n\n{answer}"


def test_the_answer_is_what_follows_the_thoughts() -> None:
    found = resolve(Thinker(recalls), unstated())
    assert {fact.subject: fact.answer for fact in found.facts} == FACTS
    assert all(fact.known and fact.elicited for fact in found.facts)


def test_thoughts_without_end_hold_no_answer_and_are_left_out_by_the_templates_switch() -> None:
    def endless(text: str) -> str:
        return "<think>\nThe user asks" if text.endswith("<|assistant|>") else recalls(text)

    def babbling(text: str) -> str:
        return "The user asks" if text.endswith("<think>\n") else ""

    found = resolve(Thinker(endless), unstated())
    assert {fact.subject: fact.answer for fact in found.facts} == FACTS
    lost = resolve(Thinker(babbling, OPENED), unstated())
    assert not any(fact.answer or fact.known for fact in lost.facts)
