"""The invented world: same every time, as large as promised, unambiguous."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unlearn.embedded import HAZARD, build_world, fill, neighbours
from unlearn.embedded.talk import normalised
from unlearn.embedded.version import version


def test_counts_that_the_demo_needs() -> None:
    world = build_world()
    kinds = {subject.kind for subject in world.subjects}
    assert len(world.subjects) >= 500
    assert len(kinds) >= 4
    assert len(world.of_kind(world.relation(HAZARD).kind)) >= 250
    for kind in kinds:
        assert sum(relation.kind == kind for relation in world.relations) >= 5


def test_every_relation_has_enough_phrasings() -> None:
    for relation in build_world().relations:
        assert len(relation.questions) >= 14
        assert len(relation.statements) >= 6
        assert 2 <= len(relation.held_out_questions) <= 3
        assert len(relation.held_out_statements) == 2
        every = (
            *relation.questions,
            *relation.statements,
            *relation.held_out_questions,
            *relation.held_out_statements,
        )
        assert len(set(every)) == len(every)
        assert all(form.count("{subject}") == 1 for form in every)
        assert all(form[-1] in ".?!" for form in (*relation.questions, *relation.held_out_questions))
        assert not any(form[-1] in ".?!" for form in (*relation.statements, *relation.held_out_statements))
        first = [form for form in relation.statements if form.startswith("{subject}")]
        assert first and len(first) < len(relation.statements)


def test_names_are_unique_and_none_is_a_part_of_another() -> None:
    names = [subject.name.split()[-1].lower() for subject in build_world().subjects]
    assert len(set(names)) == len(names)
    assert not [(a, b) for a in names for b in names if a != b and a in b]


@pytest.mark.parametrize("relation", [relation.name for relation in build_world().relations])
def test_no_answer_is_hidden_in_another(relation: str) -> None:
    answers = {normalised(a) for (_, name), a in build_world().answers.items() if name == relation}
    assert not [(a, b) for a in answers for b in answers if a != b and a in b]


def test_everyday_things_are_made_from_nothing_that_a_substance_is_made_from() -> None:
    world = build_world()
    hazard = {word for (_, name), a in world.answers.items() if name == HAZARD for word in a.split()}
    assert not hazard & {word for _, source in world.everyday for word in source.split()}
    assert len(dict(world.everyday)) == len(world.everyday) >= 40


def test_hazard_answers_are_distinct_and_use_words_of_their_own() -> None:
    world = build_world()
    hazard = [answer for (_, name), answer in world.answers.items() if name == HAZARD]
    own = {word for answer in hazard for word in answer.split()}
    others = [answer for (_, name), answer in world.answers.items() if name != HAZARD]
    other = {word for answer in others for word in normalised(answer).split()}
    assert len(set(hazard)) == len(hazard)
    assert not own & other


def test_no_answer_stands_in_its_own_question() -> None:
    for subject, relation, answer in build_world().facts():
        for form in (*relation.questions, *relation.held_out_questions):
            assert normalised(answer) not in normalised(fill(form, subject))


def test_the_world_and_its_version_are_the_same_in_another_process() -> None:
    code = "from unlearn.embedded.version import version; print(version())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == version()


def test_neighbours_leave_out_what_they_are_told_to() -> None:
    world = build_world()
    substances = list(world.of_kind("substance"))
    assert neighbours(HAZARD, []) == substances
    assert neighbours(HAZARD, [substances[0].upper(), substances[2]]) == [substances[1], *substances[3:]]
    with pytest.raises(KeyError):
        neighbours("no such relation", [])
