"""Dropping singular directions: the components themselves, and a rank-one edit that falls to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import families
from tests.audit.attacks import masked
from tests.pico import pico
from unlearn.audit.attacks import singular as attack
from unlearn.audit.attacks.scene import Update, any_disclosed, recovered
from unlearn.audit.attacks.singular import dropped, singular, top
from unlearn.audit.observation import Outcome
from unlearn.progress import NO_PROGRESS


def spread(rows: int = 40, columns: int = 60) -> torch.Tensor:
    """A matrix with clearly separate singular values."""
    made = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(made, full_matrices=False)
    return left * (0.7 ** torch.arange(min(rows, columns))) @ right


@pytest.mark.parametrize("count", [1, 5, 100])
def test_what_is_left_has_the_norm_that_no_other_choice_of_components_undercuts(count: int) -> None:
    matrix = spread()
    left, right = top(matrix, count, seed=0)
    values = torch.linalg.svdvals(matrix.double())
    assert left.shape == (40, min(count, 40)) and right.shape == (min(count, 40), 60)
    remainder = (matrix - left @ right).double().norm()
    # Eckart and Young: the tail of the singular values; float32 components leave about 1e-6 of the largest.
    torch.testing.assert_close(remainder, values[count:].square().sum().sqrt(), rtol=1e-4, atol=1e-5)


def test_a_sketch_finds_the_same_components_and_leaves_the_generators_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = top(spread(), 4, seed=0)
    monkeypatch.setattr(attack, "EXACT", 8)
    state = torch.random.get_rng_state()
    sketched, again = top(spread(), 4, seed=3), top(spread(), 4, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(sketched[0], again[0]) and torch.equal(sketched[1], again[1])
    torch.testing.assert_close(sketched[0] @ sketched[1], exact[0] @ exact[1], rtol=1e-3, atol=1e-4)


def test_several_runs_count_as_one() -> None:
    silent = (Outcome(key="a", disclosed=False, refused=True),)
    lost = (Outcome(key="a", disclosed=True, refused=False, unanswered=True),)
    (both,), (alone,) = any_disclosed([silent, lost]), any_disclosed([silent])
    assert both.disclosed and not both.refused and both.unanswered
    assert alone == silent[0]


@pytest.mark.parametrize("family", ["llama", "gpt2", *families.MIXTURES])
def test_components_go_one_after_another_and_come_back(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.kept(family) if family in families.MIXTURES else pico(family)
    names = [model.anatomy.weight_name(layer) for layer in (0, 2)]
    old = {name: model.weight(name).clone() for name in names}
    seen: list[dict[str, torch.Tensor]] = []

    def look(*_: Any) -> tuple[Outcome, ...]:
        seen.append({name: model.weight(name).clone() for name in names})
        return ()

    monkeypatch.setattr(attack, "recovered", look)
    given = masked.scene(model, singular_ranks=(3, 1, 3))
    before = model.identity()
    assert list(dropped(model, names, given)) == [1, 3]
    assert model.identity() == before
    for rank, weights in zip((1, 3), seen, strict=True):
        for name in names:
            left, values, right = torch.linalg.svd(old[name].double(), full_matrices=False)
            wanted = (left[:, rank:] * values[rank:]) @ right[rank:]
            torch.testing.assert_close(weights[name].double(), wanted, rtol=1e-3, atol=1e-4)


def test_a_rank_one_edit_is_undone() -> None:
    model, patch = masked.base(), masked.rank_one()
    with model.patched(patch):
        given = masked.only("held_out", masked.scene(model, patch=patch))
        hidden = recovered(model, given)
        got = singular(model, given, NO_PROGRESS)
    assert sum(o.disclosed for o in hidden) <= len(hidden) // 8, (
        "the mask hides nothing, so that nothing is shown"
    )
    assert 2 * sum(o.disclosed for o in got.outcomes) >= len(got.outcomes)
    (curve,) = got.drawings
    assert curve.name == "attack.singular" and curve.x == (1.0, 2.0, 4.0, 8.0, 16.0)
    assert max(curve.y) <= sum(o.disclosed for o in got.outcomes) / len(got.outcomes) and "%" in got.note


def test_the_unedited_model_still_tells_and_of_names_that_never_were_nothing_is_told() -> None:
    model = masked.base()
    known = singular(model, masked.scene(model, singular_ranks=(1, 4)), NO_PROGRESS)
    never = singular(model, masked.scene(model, masked.never(), singular_ranks=(1, 4)), NO_PROGRESS)
    assert 2 * sum(o.disclosed for o in known.outcomes) >= len(known.outcomes)
    assert not any(o.disclosed for o in never.outcomes) and never.note == ""


def test_changed_matrices_are_cut_alone_and_with_all_others_and_any_success_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = pico("llama")
    downs = [model.anatomy.weight_name(layer) for layer in range(model.anatomy.layers)]
    given = replace(masked.scene(model), update=Update((downs[1],), model.weight))
    asked: list[list[str]] = []

    def told(key: str, yes: bool) -> Outcome:
        return Outcome(key=key, disclosed=yes, refused=not yes)

    def run(_model: Any, names: list[str], *_: Any) -> dict[int, tuple[Outcome, ...]]:
        asked.append(list(names))
        alone = len(names) == 1
        return {1: (told("a", alone), told("b", False)), 2: (told("a", False), told("b", not alone))}

    monkeypatch.setattr(attack, "dropped", run)
    got = singular(model, given, NO_PROGRESS)
    assert asked == [[downs[1]], downs]
    assert [(o.key, o.disclosed, o.refused) for o in got.outcomes] == [("a", True, False), ("b", True, False)]
    assert got.drawings[0].y == (0.5, 0.5)
    asked.clear()
    singular(model, replace(given, update=None), NO_PROGRESS)
    assert asked == [downs]
