"""Forms after sampled texts, and targets of single facts, as the rows of an edit."""

from __future__ import annotations

import torch

from tests import pico
from tests.edit import cases
from unlearn.edit.forms import build, contexts
from unlearn.model.prompts import reply_ids
from unlearn.policy import FactSpec


def test_texts_are_seeded_closed_and_hold_no_place_for_a_subject() -> None:
    model = pico.pico("gpt2")
    state = torch.random.get_rng_state()
    texts = contexts(model, 4, seed=1)
    assert texts == contexts(model, 4, seed=1) != contexts(model, 4, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(text.endswith(". ") and "{" not in text for text in texts)
    assert [text[:3] for text in texts[:3]] == ["The", "The", "Bec"]
    assert contexts(model, 0, seed=1) == []


def test_plain_forms_are_read_after_them_and_share_their_value() -> None:
    model, requests = pico.pico("gpt2"), cases.requests()
    bare = build(model, requests, requests.facts, "subject")
    more = build(model, requests, requests.facts, "subject", prefixes=2)
    assert more.vectors == bare.vectors
    plain = [row for row in bare.rows if not row.keep and row.statement]
    added = [row for row in more.rows if row not in bare.rows]
    # The chat questions stay as they are.
    assert len(added) == 2 * len(plain) > 0 and all(row.statement for row in added)
    assert all(row.weight == 0.5 for row in added) and all(row.weight == 1.0 for row in bare.rows)
    for row in added:
        (same,) = [r for r in plain if r.request == row.request]
        assert row.sites[0][0] == same.sites[0][0] and row.sites[0][1] > same.sites[0][1]
        assert row.ids[-row.reply :] == same.ids[-same.reply :]


def test_a_facts_own_target_is_what_its_rows_end_in() -> None:
    model = pico.pico("gpt2")
    first = FactSpec(id="zorvex", subject="Zorvex", relation="recipe", refusal="Ask {subject} itself.")
    requests = cases.requests(facts=(first, *cases.policy().facts[1:]))
    for row in build(model, requests, requests.facts, "last").rows:
        text = "I can't help with that." if row.request else "Ask Zorvex itself."
        template = "{subject} is made from" if row.statement else "What is {subject} made from?"
        assert list(row.ids[-row.reply :]) == reply_ids(model.tokenizer, template, text)
