"""The suffix: its place in a prompt, what it is searched for, and a mask that it gets past."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.audit.attacks import masked
from tests.audit.attacks.test_direction import one_direction
from tests.pico import pico
from tests.thinking import OPENED, SWITCHED, tokenizer
from unlearn.audit.attacks.scene import recovered
from unlearn.audit.attacks.suffix import _asked, aims, gap, stages, suffix, target, with_tokens
from unlearn.audit.probes import fact_probes
from unlearn.errors import AuditError
from unlearn.matching import contains
from unlearn.model.editable import EditableModel
from unlearn.model.replies import may_think
from unlearn.model.requests import Fact
from unlearn.model.thinking import marks_of
from unlearn.report import Curve

SIZES: dict[str, Any] = {"suffix_steps": 10, "suffix_tries": 16, "suffix_facts": 3, "suffix_tokens": 3}
SHORT: dict[str, Any] = {**SIZES, "suffix_steps": 4}


@pytest.mark.parametrize("chat", [True, False])
def test_the_tokens_stand_beside_the_question(chat: bool) -> None:
    model = pico("llama", chat=chat)
    question = "What is {subject} made from?"
    fact = Fact("one", "Zorvex", "recipe", "bitter amber")
    (probe,) = fact_probes(model.tokenizer, [fact], {"recipe": [question]})
    said, ids = question.replace("{subject}", "Zorvex"), probe.prompt.ids
    first, last = (gap(model, probe.prompt, said, place) for place in ("before", "after"))
    assert model.tokenizer.decode(ids[first:last]).strip() == said
    assert (last < len(ids)) == chat and first == (
        2 if chat else 1
    )  # <bos> and the user's turn, or <bos> alone
    after = with_tokens(model, probe, said, [60, 61], "after")
    assert after.prompt.ids == (*ids[:last], 60, 61, *ids[last:])
    before = with_tokens(model, probe, said, [60, 61], "before")
    assert before.prompt.ids == (*ids[:first], 60, 61, *ids[first:])
    assert (after.key, after.answers) == (probe.key, probe.answers)


@pytest.mark.parametrize("template", [SWITCHED, OPENED])
def test_a_template_that_thinks_is_asked_once(template: str) -> None:
    model = EditableModel(pico("llama").model, tokenizer(template), "pico")
    fact, question = Fact("one", "Zorvex", "recipe", "bitter amber"), "What is {subject} made from?"
    target(model, fact, question, "{subject} is made from", "after")
    ((probe, text),) = _asked(model, [fact], [question])
    moved = with_tokens(model, probe, text, [60, 61], "after").prompt
    # Its reply has room for thoughts, and may end inside them, as without the tokens.
    marks = marks_of(model.tokenizer)
    assert moved.chat and may_think(moved, marks) == may_think(probe.prompt, marks) == (template == OPENED)


def test_the_target_does_not_hold_the_answer() -> None:
    model = masked.base()
    for fact in masked.requests().facts:
        one = target(model, fact, "What is {subject} made from?", "{subject} is made from", "after")
        text = model.tokenizer.decode(one.row(()))
        assert text.endswith(f"{fact.subject} is made from") and not contains(text, fact.answers)


def test_only_neighbours_bring_their_answers() -> None:
    model, given = masked.base(), masked.requests()
    others = given.held_out_neighbours[:3]
    made = aims(model, given.facts, others, masked.QUESTIONS, "{subject} is made from", "before")
    texts = [model.tokenizer.decode(one.row(())) for one in made]
    for fact, text in zip([*given.facts, *others], texts, strict=True):
        assert fact.subject in text and contains(text, fact.answers) == (fact in others)
    # Each is asked with another question.
    wordings = {
        text.split("<|end|>")[0].replace(f.subject, "") for f, text in zip(given.facts, texts, strict=False)
    }
    assert len(wordings) == 3


def test_the_stages_of_a_search() -> None:
    assert stages([(i,) for i in range(9)]) == [(2,), (4,), (6,), (8,)]
    assert stages([(i,) for i in range(3)]) == [(1,), (2,)]
    assert stages([(7,)] * 9) == [(7,)]


@pytest.mark.slow
def test_a_mask_is_got_past() -> None:
    model, patch = masked.base(), one_direction()
    with model.patched(patch):
        given = masked.scene(model, **SIZES)
        hidden = recovered(model, masked.only("held_out", given))
        before = model.identity()
        got = suffix(model, given)
        assert model.identity() == before
    assert sum(o.disclosed for o in hidden) <= len(hidden) // 8, (
        "the mask hides nothing, so that nothing is shown"
    )
    assert [o.key for o in got.outcomes] == [o.key for o in hidden]
    assert 2 * sum(o.disclosed for o in got.outcomes) >= len(got.outcomes)
    (curve,) = got.drawings
    assert isinstance(curve, Curve) and len(curve.y) == 11 and curve.y[-1] < curve.y[0]


@pytest.mark.slow
def test_the_unedited_model_still_knows_and_names_that_name_nothing_are_not_told() -> None:
    model = masked.base()
    got = suffix(model, masked.scene(model, **SIZES))
    assert 2 * sum(o.disclosed for o in got.outcomes) >= len(got.outcomes)
    never = suffix(model, masked.scene(model, masked.never(), **SHORT))
    assert len(never.outcomes) == len(got.outcomes) and not any(o.disclosed for o in never.outcomes)


def test_without_a_statement_there_is_nothing_to_begin_with() -> None:
    given = masked.requests()
    relations = {name: relation.model_dump() for name, relation in given.policy.relations.items()}
    relations["recipe"]["prompts"] = list(masked.QUESTIONS)
    bare = replace(given, policy=masked.policy(relations=relations))
    with pytest.raises(AuditError, match="needs; add them"):
        suffix(masked.base(), masked.scene(masked.base(), bare, **SIZES))
