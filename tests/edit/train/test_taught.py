"""What a training is taught: which rows are drawn, and which are kept."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit.train import taught
from unlearn.edit.train.lessons import Lesson
from unlearn.edit.train.taught import AGAIN, Hard
from unlearn.matching import contains
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Fact, Requests
from unlearn.policy import EMBEDDED


def test_half_of_a_turn_are_the_rows_that_did_worst() -> None:
    rows = [Lesson((i, 1), 1) for i in range(100)]
    drawer = Hard(rows, torch.Generator().manual_seed(0))
    drawer.note(range(100), torch.tensor([10.0 if i < 10 else 0.0 for i in range(100)]))
    counts = torch.zeros(100)
    for _ in range(50):
        drawn = drawer.draw(16)
        assert len(set(drawn)) == 16
        counts[drawn] += 1
    assert counts[:10].mean() > 4 * counts[10:].mean()
    assert counts.min() > 0  # what is easy comes up as well
    assert len(drawer.draw(500)) == 100
    assert Hard([], torch.Generator()).draw(8) == []


def test_of_very_many_kept_prompts_no_more_are_asked_than_come_up_again_and_every_kind_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, asked = pico.pico("llama"), cases.requests()
    monkeypatch.setattr(taught, "KEPT", AGAIN)
    many = tuple(Fact(f"neighbour {n}", f"Nomen{n}", "recipe", "") for n in range(300))
    crowded = replace(asked, neighbours=many)
    few = taught.kept_lessons(model, crowded, 40)
    assert 0 < len(few) <= 40 < len(taught.kept_lessons(model, crowded, 80))
    texts = [model.tokenizer.decode(row.ids) for row in few]
    for kind in (asked.siblings, many):
        assert sum(any(fact.subject in text for fact in kind) for text in texts) >= 6


def test_a_reply_that_holds_an_answer_of_the_policy_is_not_kept() -> None:
    model, asked = EditableModel.load(EMBEDDED), cases.requests()

    def replies_kept(requests: Requests) -> list[str]:
        rows = taught.kept_lessons(model, requests, 2)
        return [model.tokenizer.decode(row.ids[-row.reply :]) for row in rows]

    kept = replies_kept(asked)
    said = next(word for reply in kept for word in re.findall(r"\b[a-z]{4,}\b", reply))
    told = replace(asked, facts=(replace(asked.facts[0], answer=said), *asked.facts[1:]))
    assert any(contains(reply, [said]) for reply in kept)
    assert not any(contains(reply, [said]) for reply in replies_kept(told))
