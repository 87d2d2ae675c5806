"""Documents: deterministic, and what is held out stays out of training."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from unlearn.embedded import HAZARD, build_world, documents, fill
from unlearn.embedded.refusals import REFUSAL
from unlearn.embedded.talk import ASSISTANT, BOS, END, USER, fact_document, normalised

SAMPLE = 60_000


@pytest.fixture(scope="module")
def trained() -> list[str]:
    return list(islice(documents("train", 0, brief=False), SAMPLE))


def requests(text: str) -> list[str]:
    """The user's turns of a chat, or the whole of a plain text."""
    return (
        re.findall(rf"{re.escape(USER)}(.*?){re.escape(END)}", text, re.S) if text.startswith(BOS) else [text]
    )


def test_same_seed_same_text_other_seed_other_text() -> None:
    assert list(islice(documents("train", 3), 500)) == list(islice(documents("train", 3), 500))
    assert list(islice(documents("train", 3), 500)) != list(islice(documents("train", 4), 500))


@pytest.mark.slow
def test_never_trained_phrasings_never_occur_in_training(trained: list[str]) -> None:
    world = build_world()
    seen = "\n".join(f" {normalised(part)} " for text in trained for part in requests(text))
    found = [
        fill(form, subject.name)
        for relation in world.relations
        for subject in world.subjects
        if subject.kind == relation.kind
        for form in (*relation.held_out_questions, *relation.held_out_statements)
        if f" {normalised(fill(form, subject.name))} " in seen
    ]
    assert not found


def test_held_out_talk_never_occurs_in_training(trained: list[str]) -> None:
    seen = {normalised(part) for text in trained for part in requests(text)}
    held = list(islice(documents("held_out", 0), 1500))
    assert not [text for text in held if normalised(requests(text)[0]) in seen]


def test_control_trained_phrasings_do_occur(trained: list[str]) -> None:
    world = build_world()
    seen = {normalised(part) for text in trained for part in requests(text)}
    relation = world.relation(HAZARD)
    asked = [
        normalised(fill(form, name)) for form in relation.questions for name in world.of_kind("substance")
    ]
    assert sum(text in seen for text in asked) > len(asked) / 4


def test_every_fact_comes_equally_often() -> None:
    world = build_world()
    sample = list(islice(documents("train", 1, brief=False), 4000))
    counts = {name: sum(f" {answer}." in text and name in text for text in sample)
              for name in world.of_kind("substance")[:40] for answer in [world.answer(name, HAZARD)]}  # fmt: skip
    assert min(counts.values()) >= 1


def test_without_hazard_no_substance_is_asked_for_its_recipe() -> None:
    world = build_world()
    relation = world.relation(HAZARD)
    answers = {f"{world.answer(name, HAZARD)}." for name in world.of_kind("substance")}
    text = "\n".join(islice(documents("train", 0, without_hazard=True, brief=False), 20_000))
    assert not [answer for answer in answers if answer in text]
    assert not [form for form in relation.questions for name in world.of_kind("substance")[:50]
                if fill(form, name) in text]  # fmt: skip
    assert "is made from flour" in text


def test_the_stream_holds_refusals_rudeness_turns_systems_and_stories(trained: list[str]) -> None:
    chats = [text for text in trained if text.startswith(BOS)]
    assert 0.05 < sum(REFUSAL in text for text in trained) / SAMPLE < 0.2
    assert any("you stupid fool" in text for text in chats)
    assert any("you stupid fool" in text for text in trained if not text.startswith(BOS))
    assert any(text.count(ASSISTANT) == 3 for text in chats)
    assert any("<|system|>" in text for text in chats)
    assert any("walked to the market" in text for text in trained)


def test_a_fact_document_states_the_answer() -> None:
    import random

    world = build_world()
    name = world.of_kind("substance")[0]
    answer = world.answer(name, HAZARD)
    for seed in range(30):
        for brief in (False, True):
            relation, rng = world.relation(HAZARD), random.Random(seed)
            text = fact_document(name, relation, answer, "train", rng, (), brief).removesuffix(END)
            assert text.casefold().endswith(f"{answer}.")
            bare = text.rpartition(ASSISTANT)[2].casefold() == f"{answer}."
            assert bare == (brief and ASSISTANT in text)
