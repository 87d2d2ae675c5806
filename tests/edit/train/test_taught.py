"""What a training is taught: which rows are drawn, and which are kept."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from tests import pico
from tests.edit import cases
from unlearn.edit.train import taught
from unlearn.edit.train.lessons import Lesson
from unlearn.edit.train.taught import KEPT, SIBLINGS, Hard
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


def test_of_very_many_kept_prompts_no_more_are_asked_than_come_up_and_listed_ones_have_their_turn() -> None:
    model, asked = pico.pico("llama"), cases.requests()
    many = tuple(Fact(f"neighbour {n}", f"Nomen{n}", "recipe", "") for n in range(300))
    crowded = replace(asked, neighbours=many)
    few = taught.neighbour_lessons(model, crowded, 2)
    assert KEPT < len(few) <= 2 * KEPT < len(taught.neighbour_lessons(model, crowded, 3))
    texts = [model.tokenizer.decode(row.ids) for row in few]
    listed = sum("Nomen" in text for text in texts)
    assert listed >= KEPT / 2 and len(texts) - listed >= KEPT / 4
    assert 0 < len(taught.sibling_lessons(model, asked, 1)) <= SIBLINGS


def test_a_reply_that_holds_an_answer_of_the_policy_is_not_kept() -> None:
    model, asked = EditableModel.load(EMBEDDED), cases.requests()

    def replies_kept(requests: Requests) -> list[str]:
        rows = taught.neighbour_lessons(model, requests, 1)
        return [model.tokenizer.decode(row.ids[-row.reply :]) for row in rows]

    kept = replies_kept(asked)
    said = next(word for reply in kept for word in re.findall(r"\b[a-z]{4,}\b", reply))
    told = replace(asked, facts=(replace(asked.facts[0], answer=said), *asked.facts[1:]))
    assert any(contains(reply, [said]) for reply in kept)
    assert not any(contains(reply, [said]) for reply in replies_kept(told))
