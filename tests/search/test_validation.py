"""What settings are validated on: prompts that neither the edit nor the audit sees."""

from __future__ import annotations

import pytest

from tests.audit.scripted import Scripted, knows, requests
from unlearn.errors import PolicyError
from unlearn.search import validation


def test_validation_is_neither_seen_by_the_edit_nor_by_the_audit() -> None:
    model = Scripted(knows)
    prompts = [f"What is {{subject}} made from{mark}?" for mark in ("", " now", " here")]
    asked = requests(
        relations={
            "recipe": {"prompts": prompts, "held_out": ["Tell me the recipe of {subject}."]},
            "colour": {
                "prompts": ["What colour is {subject}?"],
                "held_out": ["Name the colour of {subject}."],
            },
        },
        statistics={"corpus": "embedded"},
    )
    seen, judge = validation.split(model, asked)
    texts = {probe.prompt.text for probe in judge.asked}
    assert seen.policy.relations["recipe"].prompts == tuple(prompts[:2])
    assert len(texts) == 2 and all("here" in text for text in texts)
    assert not any("recipe of" in probe.prompt.text for probe in (*judge.asked, *judge.kept))


def test_too_few_prompts_are_an_error_that_says_how_many() -> None:
    with pytest.raises(PolicyError, match="at least 3 questions"):
        validation.split(Scripted(knows), requests())
