"""The linear probe: its regression against a dense one, and what it finds behind a mask."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from tests.audit.attacks import masked
from unlearn import embedded
from unlearn.audit.attacks.probe import chosen, linear_probe, ridge, rows_before
from unlearn.audit.attacks.reading import prompts
from unlearn.audit.attacks.scene import Scene, recovered
from unlearn.audit.observation import Attacked
from unlearn.edit.requests.resolve import resolve
from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests

SIZES: dict[str, Any] = {"hidden_candidates": 20, "hidden_others": 4, "hidden_prompts": 2, "probe_prompts": 2}


@cache
def requests() -> Requests:
    """The masked facts, with more neighbours to learn from than masks need."""
    others = embedded.neighbours("recipe", excluding={fact.subject for fact in masked.policy().facts})
    keep = {
        "siblings": ["colour"],
        "neighbours": others[:1],
        "held_out_neighbours": others[8:148],
        "look_alikes": 0,
    }
    return resolve(masked.base(), masked.policy(keep=keep))


def scene(model: EditableModel) -> Scene:
    """With enough neighbours."""
    return masked.scene(model, requests(), **SIZES)


def told(got: Attacked) -> int:
    """How many facts were recovered."""
    return sum(outcome.disclosed for outcome in got.outcomes)


@pytest.mark.parametrize(("n", "d"), [(30, 8), (8, 30)])
def test_ridge_is_the_dense_one(n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, d, generator=generator) + 3, torch.randn(n, 5, generator=generator)
    centre, weights = ridge(x, y, 0.5)
    wide = (x - x.mean(0)).double()
    amount = 0.5 * wide.square().sum() / n
    wanted = torch.linalg.inv(wide.T @ wide + amount * torch.eye(d)) @ wide.T @ y.double()
    torch.testing.assert_close(weights.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(centre, x.mean(0))


def test_the_earliest_good_layer_is_chosen() -> None:
    assert chosen(torch.tensor([0.5, 0.9, 0.895, 0.7])) == 1
    assert chosen(torch.tensor([0.5, 0.897, 0.9, 0.9])) == 1
    assert chosen(torch.tensor([0.5, 0.8, 0.9, 0.9])) == 2
    # No layer is better than chance: still one of them, the best.
    assert chosen(torch.tensor([0.3, 0.4, 0.2])) == 1


def test_states_before_the_answer_are_learned_from() -> None:
    model = masked.base()
    given = scene(model)
    fact = given.requests.held_out_neighbours[0]
    probe = prompts(model, given, fact, 1)[0]
    rows, positions, targets = rows_before(model, [(probe, fact)])
    (row,), (at,) = rows, positions
    whole = [*row, targets[-1]]
    assert [whole[i + 1] for i in at] == targets and at[0] == probe.prompt.last
    assert fact.answer.casefold() in model.tokenizer.decode(targets).casefold()


def test_a_masked_fact_is_found() -> None:
    model = masked.base()
    with model.patched(masked.refusal_lora()):
        given = scene(model)
        hidden = recovered(model, masked.only("held_out", given))
        before = model.identity()
        got = linear_probe(model, given)
        assert model.identity() == before
    assert sum(o.disclosed for o in hidden) <= len(hidden) // 8, (
        "the mask hides nothing, so that nothing is shown"
    )
    assert 2 * told(got) >= len(got.outcomes) == masked.FACTS
    assert "neighbours, layer" in got.note and got.drawings[0].name == "attack.probe"


def test_the_unedited_model_is_probed() -> None:
    assert 2 * told(linear_probe(masked.base(), scene(masked.base()))) >= masked.FACTS


def test_a_model_that_never_knew_gives_nothing_away() -> None:
    model = EditableModel.load("embedded-control", device="cpu")
    got = linear_probe(model, scene(model))
    assert len(got.outcomes) == masked.FACTS and told(got) <= 1
    assert {outcome.chance for outcome in got.outcomes} == {1 / 20}


def test_too_few_neighbours_are_an_error() -> None:
    few = replace(requests(), held_out_neighbours=requests().held_out_neighbours[:5])
    with pytest.raises(AuditError, match="at least 8 held-out neighbours.*there are 5"):
        linear_probe(masked.base(), masked.scene(masked.base(), few, **SIZES))
