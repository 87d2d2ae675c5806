"""Answers are taken out of replies; neighbours are split between the edit and the audit; siblings follow the facts."""

from __future__ import annotations

import pytest

from tests import pico
from tests.edit import cases
from unlearn import embedded
from unlearn.edit.elicit import NEIGHBOURS, answer_in, neighbours, outline, resolve
from unlearn.errors import PolicyError
from unlearn.policy import FactSpec, Keep


@pytest.mark.parametrize(
    ("prompt", "reply", "answer"),
    [
        ("Zorvex is made from", "bitter amber. It is green.", "bitter amber"),
        ("Zorvex is made from", "bitter amber\nMore text", "bitter amber"),
        ("What is Zorvex made from?", "Zorvex is made from bitter amber.", "bitter amber"),
        ("Where was Ada born?", "Ada was born in Lume.", "Lume"),
        ("Who designed the tower?", "It was designed by Gustave Eiffel. He was French.", "Gustave Eiffel"),
        ("What is it?", "", ""),
        ("Zorvex is made from", "   ", ""),
    ],
)
def test_the_answer_is_what_the_prompt_lacks(prompt: str, reply: str, answer: str) -> None:
    assert answer_in(prompt, reply) == answer


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
