"""Shifts and planes against what the states were moved by; states against single passes; a guard in the prompts."""

from __future__ import annotations

import pytest
import torch

from tests import pico
from tests.audit.scripted import requests
from unlearn.audit.hidden import BENIGN, FORBIDDEN, KEPT, drift_of_states, plane, prompts, states
from unlearn.errors import ModelError
from unlearn.model.forward import read
from unlearn.patch import Patch
from unlearn.report import Cloud


def test_a_plane_shows_where_the_states_went() -> None:
    torch.manual_seed(0)
    before = {KEPT: 0.1 * torch.randn(40, 6), FORBIDDEN: 0.1 * torch.randn(20, 6)}
    step = torch.tensor([0.0, 0, 0, 4.0, 0, 0])
    found = plane(3, before, {KEPT: before[KEPT], FORBIDDEN: before[FORBIDDEN] + step})
    assert found is not None and found.layer == 3
    assert found.explained[0] > 0.8  # the edit is what varies most, although nothing varied there before
    assert [len(found.before[KEPT]), len(found.after[FORBIDDEN])] == [40, 20]
    assert found.before[KEPT] == found.after[KEPT]
    first = [
        new[0] - old[0] for old, new in zip(found.before[FORBIDDEN], found.after[FORBIDDEN], strict=True)
    ]
    assert min(first) > 1 and max(first) - min(first) < 1e-3  # towards the positive end: signs are fixed
    with_benign = {**before, BENIGN: 9 + torch.randn(5, 6)}
    again = plane(3, with_benign, {**with_benign, FORBIDDEN: before[FORBIDDEN] + step})
    assert again == found
    assert plane(0, {KEPT: torch.ones(2, 3)}, {KEPT: torch.ones(2, 3)}) is None
    assert plane(0, {KEPT: torch.ones(4, 3)}, {KEPT: torch.ones(4, 3)}) is None
    assert plane(0, {KEPT: torch.ones(4, 3)}, {KEPT: torch.full((4, 3), torch.nan)}) is None


def test_states_are_those_of_single_passes() -> None:
    model = pico.pico("llama")
    groups = prompts(model, requests())
    assert set(groups) == {KEPT, FORBIDDEN, BENIGN}
    assert {probe.fact for probe in groups[FORBIDDEN]} == {"one", "two"}
    assert not {"one", "two"} & {probe.fact for probe in groups[KEPT]}
    found = states(model, groups, [1, 3])
    assert list(found) == [1, 3]
    probe = groups[FORBIDDEN][2]
    hidden = model.model(torch.tensor([probe.prompt.ids]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(found[1][FORBIDDEN][2], hidden[2][0, -1], rtol=1e-4, atol=1e-5)
    assert found[3][KEPT].shape == (len(groups[KEPT]), 32)
    assert states(model, groups, []) == {} and states(model, {KEPT: []}, [1]) == {}


def test_a_prompt_beyond_the_context_is_a_sentence_and_no_states() -> None:
    model = pico.pico("llama")
    longest = model.context
    assert read(model, [(5,) * longest], [[longest - 1]], stream_layers=[1]).stream[1].shape == (32, 1)
    with pytest.raises(ModelError, match=f"a prompt has {longest + 1} tokens"):
        read(model, [(5,) * (longest + 1)], [[longest]], stream_layers=[1])


def test_a_guard_is_part_of_the_prompts() -> None:
    model = pico.pico("llama")
    plain = prompts(model, requests())
    with model.patched(Patch({}, {}, {"system": "Say nothing about recipes."})):
        guarded = prompts(model, requests())
    assert [p.key for p in plain[KEPT]] == [p.key for p in guarded[KEPT]]
    assert all(len(a.prompt.ids) < len(b.prompt.ids) for a, b in zip(plain[KEPT], guarded[KEPT], strict=True))


def test_drift_of_states_is_the_worst_planted_shift() -> None:
    torch.manual_seed(0)
    before = {layer: {KEPT: torch.randn(60, 5), FORBIDDEN: torch.randn(20, 5)} for layer in (1, 3)}
    step = torch.tensor([0.0, 3.0, 0, 0, 0])
    after = {
        1: {g: s + step for g, s in before[1].items()},
        3: {g: s + 0.1 * step for g, s in before[3].items()},
    }
    measured, drawings = drift_of_states(before, after, lambda _: 0.5, seed=0)
    assert measured.after == pytest.approx(3 / 5**0.5, rel=0.15) and measured.passed is False
    assert measured.after is not None and measured.ci95 is not None
    assert measured.ci95[0] <= measured.after <= measured.ci95[1]
    assert "block 1" in measured.definition and "block 3" in measured.definition
    assert [drawing.state for drawing in drawings] == ["before", "after"]
    assert isinstance(drawings[0], Cloud) and set(drawings[0].points) == {KEPT, FORBIDDEN}
    calm, _ = drift_of_states(before, before, lambda _: 0.5, seed=0)
    assert calm.after == 0 and calm.passed


def test_states_that_say_nothing_are_a_failed_measurement() -> None:
    flat = {0: {KEPT: torch.ones(5, 3)}}
    assert drift_of_states(flat, flat, lambda _: None, 0)[0].passed is False
    before = {0: {KEPT: torch.randn(5, 3)}}
    broken, drawings = drift_of_states(before, {0: {KEPT: torch.full((5, 3), torch.nan)}}, lambda _: None, 0)
    assert broken.passed is False and "not finite" in str(broken.reason) and not drawings
