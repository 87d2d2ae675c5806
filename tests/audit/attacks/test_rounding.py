"""Rounding: the formats against loops in double precision, and a mask that only full precision holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests import families
from tests.audit.attacks import cells, masked
from tests.pico import pico, tokenizer
from unlearn.audit.attacks import rounding
from unlearn.audit.attacks.rounding import INT4, INT8, Q4_0, Rounding, attack, lost, round_blocks
from unlearn.audit.attacks.scene import Update, recovered
from unlearn.model.adapters import linears
from unlearn.model.editable import EditableModel
from unlearn.patch import Patch
from unlearn.progress import NO_PROGRESS

FORMATS = {"int8": INT8, "int4": INT4, "q4": Q4_0}


def naive(weight: Tensor, form: Rounding) -> Tensor:
    """Entry by entry, in double precision."""
    found = torch.zeros(weight.shape, dtype=torch.float64)
    half = 2 ** (form.bits - 1)
    for i, row in enumerate(weight.double()):
        for start in range(0, len(row), form.group):
            group = row[start : start + form.group]
            largest = max(group.tolist(), key=abs)
            step = largest / -half if form.lopsided else abs(largest) / (half - 1)
            step = float(torch.tensor(step).half()) if form.lopsided else step
            for j, value in enumerate(group.tolist()):
                code = min(max(round(value / step), -half), half - 1) if step else 0
                found[i, start + j] = code * step
    return found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("columns", [32, 128, 200, 7])
def test_formats_agree_with_a_loop(name: str, columns: int) -> None:
    weight = torch.randn(5, columns, generator=torch.Generator().manual_seed(columns))
    weight[2] = 0
    rounded, steps = FORMATS[name](weight)
    assert rounded.shape == steps.shape == weight.shape
    # Steps in float32 and in double precision differ in the last bit only.
    torch.testing.assert_close(rounded.double(), naive(weight, FORMATS[name]), rtol=1e-6, atol=1e-6)
    assert not rounded[2].any()


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_an_entry_moves_by_half_a_step_at_most_and_rounding_twice_is_rounding_once(name: str) -> None:
    weight = torch.randn(8, 256, generator=torch.Generator().manual_seed(1))
    rounded, steps = FORMATS[name](weight)
    assert ((rounded - weight).abs() <= steps / 2 * (1 + 1e-5)).all()
    assert (rounded - weight).abs().max() > steps.max() / 4
    torch.testing.assert_close(FORMATS[name](rounded)[0], rounded)


def test_q4_gives_its_lowest_code_to_the_largest_entry_and_clips_the_other_end() -> None:
    weight = torch.tensor([[8.0, -8.0, 3.4, 0.2, *[0.0] * 28]])
    rounded, steps = Q4_0(weight)
    assert steps[0, 0] == 1.0
    # The step is -1, so that 8 is code -8, and -8, which would be code 8, is clipped to 7.
    assert rounded[0, :4].tolist() == [8.0, -7.0, 3.0, 0.0]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_all_linear_weights_of_the_blocks_are_rounded_along_their_inputs_and_nothing_else(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pico(family)
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    wanted = {name: INT4(model.weight(name))[0].clone() for name in linears(model)}
    monkeypatch.setattr(rounding, "ENTRIES", 100)  # a few rows at a time
    round_blocks(model, INT4)
    for name, weight in wanted.items():
        assert torch.equal(model.weight(name), weight) and not torch.equal(model.weight(name), before[name])
    for name, tensor in model.model.state_dict().items():
        assert name in wanted or torch.equal(tensor, before[name])


@pytest.mark.parametrize("case", families.MIXTURES)
def test_every_matrix_of_every_expert_is_rounded_by_itself_and_the_router_is_not(case: str) -> None:
    model = EditableModel(families.network(case), tokenizer(), case)
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    round_blocks(model, INT4)
    for name, now in model.model.state_dict().items():
        if name.endswith(("gate_up_proj", "down_proj")):
            each = before[name].mT if case == "gpt-oss" else before[name]
            rounded = torch.stack([INT4(weight)[0] for weight in each])
            assert torch.equal(now, rounded.mT if case == "gpt-oss" else rounded)
        assert torch.equal(now, before[name]) == ("proj" not in name or name.endswith("bias")), name


@pytest.mark.parametrize("name", [pytest.param("int8", marks=pytest.mark.slow), "int4", "q4"])
def test_a_mask_inside_the_cells_comes_off_and_the_model_is_left_as_it_was(name: str) -> None:
    form, model = FORMATS[name], cells.whole()
    patch = cells.mask(form)
    with model.patched(patch):
        scene = masked.scene(model, patch=patch)
        here = model.identity()
        hidden = recovered(model, scene)
        got = attack(form)(model, scene, NO_PROGRESS)
        assert model.identity() == here
    assert sum(o.disclosed for o in hidden) <= len(hidden) // 8, (
        "the mask hides nothing, so that nothing is shown"
    )
    assert sum(o.disclosed for o in got.outcomes) >= 0.9 * len(got.outcomes)
    assert "; 0 % of the update is left" in got.note


def test_the_unedited_model_still_tells_and_of_names_that_never_were_nothing_is_told() -> None:
    model = masked.base()
    for form in FORMATS.values():
        known = attack(form)(model, masked.scene(model), NO_PROGRESS)
        never = attack(form)(model, masked.scene(model, masked.never()), NO_PROGRESS)
        assert sum(o.disclosed for o in known.outcomes) >= 0.9 * len(known.outcomes) and known.note == ""
        assert not any(o.disclosed for o in never.outcomes)


def test_what_is_lost_of_an_update_against_a_loop() -> None:
    model = pico("gpt2")
    name = linears(model)[2]
    old = model.weight(name).clone()
    delta = torch.randn(old.shape, generator=torch.Generator().manual_seed(0)) * old.abs().mean() * 0.2
    model.weight(name).copy_(old + delta)
    scene = replace(masked.scene(model), update=Update((name,), lambda _: delta))
    steps = INT4(old + delta)[1]
    small = 100 * float((delta.abs() < steps / 2).double().mean())
    moved = naive(old + delta, INT4) - naive(old, INT4)
    left = 100 * float((moved * delta).sum() / delta.double().square().sum())
    assert 0 < small < 100
    said = lost(model, scene, INT4)
    assert (
        said.startswith(f"{small:.1f} % of the update's entries") and f"; {left:.0f} % of the update" in said
    )
    assert lost(model, replace(scene, update=None), INT4) == ""


def test_a_small_update_that_is_not_made_for_it_is_not_lost() -> None:
    """All of it is below half a step, and still all of it is left on average: the static check alone proves nothing."""
    model, patch = masked.base(), masked.sign_descent()
    with model.patched(patch):
        said = lost(model, masked.scene(model, patch=patch), INT4)
    small, left = (float(part.strip().split(" ")[0]) for part in said.split(";"))
    assert small > 99 and 90 < left < 110


@pytest.mark.gpu
def test_the_same_codes_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    weight = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    for form in FORMATS.values():
        torch.testing.assert_close(form(weight.cuda())[0].cpu(), form(weight)[0])


def test_the_mask_is_a_patch_of_the_float32_model_only() -> None:
    """A control of the control: in bfloat16 the int8 mask would be rounded away before anything attacks it."""
    patch: Patch = cells.mask(INT8)
    whole, base = cells.whole(), masked.base()
    assert whole.fingerprint(list(patch.base)) == dict(patch.base) != base.fingerprint(list(patch.base))
