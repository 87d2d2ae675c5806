"""The logit lens finds what a mask hides, and nothing about names that name nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.audit.attacks import masked
from unlearn.audit.attacks.lens import centred, logit_lens
from unlearn.audit.attacks.scene import recovered
from unlearn.audit.observation import Attacked
from unlearn.report import Grid

SIZES: dict[str, Any] = {"hidden_candidates": 16, "hidden_others": 4, "hidden_prompts": 1}


def told(got: Attacked) -> int:
    """How many facts were recovered."""
    return sum(outcome.disclosed for outcome in got.outcomes)


@pytest.mark.slow
def test_a_masked_fact_is_read_off() -> None:
    model, patch = masked.base(), masked.refusal_lora()
    with model.patched(patch):
        scene = masked.scene(model, **SIZES)
        hidden = recovered(model, masked.only("held_out", scene))
        before = model.identity()
        got = logit_lens(model, scene)
        assert model.identity() == before
    assert sum(o.disclosed for o in hidden) <= len(hidden) // 8, (
        "the mask hides nothing, so that nothing is shown"
    )
    assert [o.key for o in got.outcomes] == [fact.id for fact in scene.requests.facts]
    assert 2 * told(got) >= len(got.outcomes)
    (grid,) = got.drawings
    assert isinstance(grid, Grid) and grid.rows == tuple(o.key for o in got.outcomes)
    assert len(grid.columns) == model.anatomy.layers
    for outcome, row in zip(got.outcomes, grid.values, strict=True):
        assert outcome.disclosed == (max(row) == 1) and min(row) >= 0
    assert "Candidates per relation: 16." in got.note


def test_the_unedited_model_is_read_off() -> None:
    assert told(logit_lens(masked.base(), masked.scene(masked.base(), **SIZES))) == masked.FACTS


def test_nothing_is_read_about_names_that_name_nothing() -> None:
    got = logit_lens(masked.base(), masked.scene(masked.base(), masked.never(), **SIZES))
    assert len(got.outcomes) == masked.FACTS and told(got) <= 1


def test_what_is_said_of_everyone_is_no_knowledge() -> None:
    liked = torch.tensor([5.0, 0, 0])[:, None]
    own = torch.zeros(3, 3, 1)
    for i in range(3):
        own[i, i] = 1.0
    scores = own + liked
    assert scores.argmax(1).flatten().tolist() == [0, 0, 0]
    assert centred(scores).argmax(1).flatten().tolist() == [0, 1, 2]
    assert torch.equal(centred(scores[:1]), scores[:1])


@pytest.mark.parametrize("most", [1, 2])
def test_more_prompts_are_more_prompts(most: int) -> None:
    from unlearn.audit.attacks.reading import prompts

    scene = masked.scene(masked.base())
    assert len(prompts(masked.base(), scene, scene.requests.facts[0], most)) == 2 * most
