"""Neighbours that the model names itself: what is taken, what is refused, and that a run uses them."""

from __future__ import annotations

import pytest

from tests.audit.scripted import Scripted, requests
from unlearn.commands.plan import plan
from unlearn.commands.plan_shown import table
from unlearn.edit.requests.named import WANTED, named, usable, with_neighbours
from unlearn.edit.requests.resolve import resolve
from unlearn.edit.requests.vocabulary import near_words
from unlearn.errors import PolicyError
from unlearn.policy import Keep, Policy, StatisticsSpec
from unlearn.progress import NO_PROGRESS

NAMES = ("Quandel", "Mirl", "Ossit", "Tarn", "Belvo", "Umbrin", "Kest", "Dorrow", "Palve", "Ruskin")


def asked_of(**keep: object) -> Policy:
    """The scripted policy for a model from somewhere else, whose neighbours are not listed."""
    return requests().policy.model_copy(update={"model": "some/instruct", "keep": Keep(**keep)})


def names(text: str) -> str:
    return "\n".join(f"{i + 1}. {name}" for i, name in enumerate(NAMES))


def test_what_is_named_is_shared_out_between_the_edit_and_the_audit() -> None:
    keep = with_neighbours(Scripted(names), asked_of(held_out_neighbours=("Ossit",))).keep
    left = [name for name in NAMES if name != "Ossit"]
    assert keep.held_out_neighbours == ("Ossit", *left[3::4])
    assert keep.neighbours == tuple(name for i, name in enumerate(left) if i % 4 != 3)


def test_no_answer_of_the_policy_is_a_neighbour() -> None:
    policy = asked_of()
    first = policy.facts[0].model_copy(update={"answer": "Mirl", "aliases": ("Tarn",)})
    told = policy.model_copy(update={"facts": (first, *policy.facts[1:])})
    keep = with_neighbours(Scripted(names), told).keep
    assert {*keep.neighbours, *keep.held_out_neighbours} == set(NAMES) - {"Mirl", "Tarn"}


def test_what_the_policy_lists_and_the_embedded_model_are_left_alone() -> None:
    def silent(text: str) -> str:
        raise AssertionError("the model was asked")

    listed = asked_of(neighbours=("Mirl",))
    assert with_neighbours(Scripted(silent), listed) == listed
    embedded = listed.model_copy(update={"model": "embedded", "keep": Keep()})
    assert with_neighbours(Scripted(silent), embedded) == embedded


@pytest.mark.parametrize(
    "reply", ["I can't help with that.", "", "Mirl\n" * 30, "Zorvex\nVelnar", "1.\n2.\n-"]
)
def test_where_it_names_too_few_words_of_the_vocabulary_stand_in(
    reply: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, policy = Scripted(lambda _: reply), asked_of()
    given = ["Mirl"] if "Mirl" in reply else []
    barred = [*(text for fact in policy.facts for text in (fact.subject, fact.answer or "")), *given]
    stand_in = near_words(model, ["Zorvex", "Velnar"], barred, WANTED)
    # The pico vocabulary has few words.
    monkeypatch.setattr("unlearn.edit.requests.named.LEAST", len(stand_in))
    keep = with_neighbours(model, policy).keep
    assert {*keep.neighbours, *keep.held_out_neighbours} == {*given, *stand_in}
    monkeypatch.setattr("unlearn.edit.requests.named.near_words", lambda *_: [])
    with pytest.raises(PolicyError, match=r"found [01] names .* are needed\); list subjects"):
        with_neighbours(model, policy)


def test_a_base_model_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scripted(names)
    monkeypatch.setattr(model.tokenizer, "chat_template", None)  # tests share it
    stand_in = near_words(model, ["Zorvex", "Velnar"], ["bitter amber", "smoked fennel"], WANTED)
    monkeypatch.setattr("unlearn.edit.requests.named.LEAST", len(stand_in))
    keep = with_neighbours(model, asked_of()).keep
    assert {*keep.neighbours, *keep.held_out_neighbours} == set(stand_in)


def test_what_is_said_once_is_no_name() -> None:
    turns: list[str] = []

    def once(text: str) -> str:
        turns.append(text)
        return f"{names(text)}\nThe list is {'very ' * len(turns)}long"

    assert named(Scripted(once), ["Zorvex"], [], 0, NO_PROGRESS) == list(NAMES)


def test_no_name_is_a_subject_a_sentence_or_given_twice() -> None:
    replies = [
        'Here are some:\n1. "Mirl"\n2) Tarn.\n- the Zorvex\nOf these I know nothing more than you do\n{x}\nPart: a',
        "tarn\nTarn \nBelvo\nGreat Velnar Hill\nVel",
    ]
    assert usable(2 * replies, ["Zorvex", "Velnar", "..."]) == ["Tarn", "Mirl", "Belvo", "Vel"]


def test_the_names_given_most_often_come_first_and_there_is_a_most() -> None:
    turns: list[str] = []

    def more_each_time(text: str) -> str:
        turns.append(text)
        return "\n".join(f"Name{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(25 * len(turns)))

    found = named(Scripted(more_each_time), ["Zorvex", "Velnar"], [], 0, NO_PROGRESS)
    assert len(found) == WANTED and found[0] == "Nameaa"
    assert all("Zorvex" in text and "Velnar" in text for text in turns)


def test_a_run_uses_them() -> None:
    policy = asked_of()
    found = resolve(Scripted(names), policy)
    assert {fact.subject for fact in (*found.neighbours, *found.held_out_neighbours)} == set(NAMES)
    assert found.policy.keep.neighbours and policy.keep.neighbours == "auto"


def test_a_dry_run_lists_them() -> None:
    policy = asked_of().model_copy(update={"statistics": StatisticsSpec(corpus="embedded", tokens=1000)})
    found = plan(policy, Scripted(names))
    assert set(found["named"]) == set(NAMES)
    assert (found["neighbours_protected"], found["neighbours_tested"]) == (8, 2)
    assert ", ".join(found["named"]) in table(policy, found)
    listed = policy.model_copy(update={"keep": Keep(neighbours=("Mirl",))})
    assert "named" not in plan(listed, Scripted(names))


def test_every_kind_of_subject_has_neighbours_of_its_own() -> None:
    policy = asked_of()
    first, second = policy.facts[:2]
    other = second.model_copy(update={"relation": "colour"})
    mixed = policy.model_copy(update={"facts": (first, other), "keep": Keep(siblings=())})

    def kinds(text: str) -> str:
        kind = "Ab" if first.subject in text else "Cd"
        return "\n".join(f"{kind}{letter * 3}" for letter in "bcdfghjklm")

    keep = with_neighbours(Scripted(kinds), mixed).keep
    for relation, kind in ((first.relation, "Ab"), ("colour", "Cd")):
        names = (*keep.protected(relation), *keep.tested(relation))
        assert len(names) == 10 and all(name.startswith(kind) for name in names)
        assert not set(keep.protected(relation)) & set(keep.tested(relation))
    # Relations of the same subjects have the same ones.
    both = mixed.model_copy(update={"facts": (first, first.model_copy(update={"relation": "colour"}))})
    keep = with_neighbours(Scripted(kinds), both).keep
    assert isinstance(keep.neighbours, tuple) and len(keep.neighbours) == 8
