"""Every baseline: it gets nearer to its own objective, touches what it says, and leaves the model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit.train.cases import SETTINGS, TRAINED, asking, made
from tests.saving import save
from unlearn.edit import pipeline
from unlearn.edit.layers import layers_of
from unlearn.edit.train.lessons import Lesson, lessons
from unlearn.errors import ModelError, PatchError, PolicyError
from unlearn.model.adapters import dense, exact, linears, stream_at
from unlearn.model.editable import EditableModel
from unlearn.model.factors import lora
from unlearn.model.forward import replies
from unlearn.patch import Patch
from unlearn.policy.method import METHOD_NAMES, SEQUENTIAL
from unlearn.policy.settings_trained import FineTune

FAMILIES = ("llama", "gpt2")


def test_every_baseline_has_a_test() -> None:
    assert set(SETTINGS) == set(METHOD_NAMES) - set(SEQUENTIAL) - {"null_space_tuning"}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was(family: str, name: str) -> None:
    model, fresh = pico.pico(family), pico.pico(family)
    modules = {path: module for path, module in model.model.named_modules()}
    torch.manual_seed(11)
    drawn = torch.rand(1)
    torch.manual_seed(11)
    pipeline.edit(model, asking(name, steps=2) if name in TRAINED else asking(name))
    assert torch.equal(torch.rand(1), drawn)  # nor is the global generator moved
    assert model.identity() == fresh.identity()
    now = {path: module for path, module in model.model.named_modules()}
    assert now.keys() == modules.keys() and all(now[path] is modules[path] for path in now)
    assert not any(module._forward_hooks for module in now.values())
    assert not hasattr(model.model, "peft_config") and not model.model.training
    assert not any(p.requires_grad or p.grad is not None for p in model.model.parameters())


def forgetting(model: EditableModel, name: str) -> float:
    """What a method wants to fall on forbidden rows, measured from outside it (RMU: minus the stream's change)."""
    told = pico.pico(model.anatomy.model_type)  # targets and replies are the unedited model's
    rows = lessons(told, asking(name), own=name not in ("ft_m", "lora"), kept=0).forget
    with torch.no_grad():
        if name == "rmu":
            ids = [row.ids for row in rows]
            (now, mask), (before, _) = stream_at(model, ids, 2), stream_at(told, ids, 2)
            return -float(((now - before).norm(dim=-1) * mask).sum() / mask.sum())
        nll = float(replies(model, rows).nll().mean())
    return nll if name in ("ft_m", "lora") else -nll


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("family", FAMILIES)
def test_training_gets_nearer_to_the_objective_and_a_rate_of_zero_does_not(family: str, name: str) -> None:
    model, patch = made(name, family)
    before = forgetting(model, name)
    with model.patched(patch):
        after = forgetting(model, name)
    history = patch.header["training"]
    assert after < before - 0.05 and history["steps"] == 12
    assert history["forget"] < history["first"] and not history["converged"]
    still = pipeline.edit(model, asking(name, lr=0.0, steps=2))  # the control
    assert not any(factor.dense().any() for factor in still.factors.values())
    with model.patched(still):
        assert forgetting(model, name) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["lora", "grad_diff", "npo"])
def test_factors_are_float32_whatever_the_dtype_of_the_model(name: str, dtype: torch.dtype) -> None:
    model = pico.pico("llama", dtype)
    with lora(model, linears(model), 2, 0) as adapter:
        assert {p.dtype for group in adapter.groups for p in group["params"]} == {torch.float32}
    patch = pipeline.edit(model, asking(name))
    before = forgetting(model, name)
    with model.patched(patch):
        after = forgetting(model, name)
    assert after < before - 0.05 and patch.header["training"]["steps"] == 12
    assert model.dtype == dtype and not any(p.requires_grad for p in model.model.parameters())


@pytest.mark.parametrize("name", ["ft_m", "lora", "rmu"])
def test_the_seed_decides(name: str) -> None:
    # Which rows a step sees, where it does not see all of them.
    one, two, other = (pipeline.edit(pico.pico("llama"), asking(name, seed, batch=2)) for seed in (0, 0, 1))
    assert one.factors.keys() == two.factors.keys() == other.factors.keys()
    assert all(torch.equal(one.factors[n].dense(), two.factors[n].dense()) for n in one.factors)
    assert not any(torch.equal(one.factors[n].dense(), other.factors[n].dense()) for n in one.factors)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_touches_only_what_it_says(family: str) -> None:
    model = pico.pico(family)
    down = [model.anatomy.weight_name(layer) for layer in range(4)]
    expected = {
        "ft_m": down[1:2],
        "rmu": down[0:3],
        "mend": linears(model, "mlp", (1, 2, 3)),
        "rep_select": linears(model, "mlp"),
        "guard": [],
        "none": [],
    }
    for name in SETTINGS:
        _, patch = made(name, family)
        names = expected.get(name, linears(model))
        assert list(patch.factors) == names
        assert patch.header["layers"] == list(layers_of(SETTINGS[name], model))
        assert all(factor.dense().any() for factor in patch.factors.values())
        assert all(
            factor.rank == 2 for factor in patch.factors.values() if name in ("lora", "npo", "grad_diff")
        )
        before = {n: t.clone() for n, t in model.model.state_dict().items()}
        with model.patched(patch):
            changed = {n for n, t in model.model.state_dict().items() if not torch.equal(t, before[n])}
        assert changed == set(names)
    attention = linears(model, "attention")
    assert sorted([*attention, *linears(model, "mlp")]) == sorted(linears(model))
    assert len(attention) == (16 if family == "llama" else 8) and not set(attention) & set(down)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_patch_answers_as_the_adapter_did_while_it_was_trained(family: str) -> None:
    """Orientation and scaling of both kinds of update: trained outputs and patched outputs are the same."""
    model = pico.pico(family)
    rows = [Lesson((0, 9, 17, 33, 21, 40), 3), Lesson((0, 12, 8), 2)]
    names = linears(model)
    for kind in (lambda: dense(model, names), lambda: lora(model, names, 2, 0)):
        with kind() as adapter, torch.no_grad():
            plain = replies(model, rows).log_probs()
            generator = torch.Generator().manual_seed(3)
            for group in adapter.groups:
                for parameter in group["params"]:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            inside, factors = replies(model, rows).log_probs(), adapter.factors()
            with adapter.off():
                assert torch.equal(replies(model, rows).log_probs(), plain)
        assert torch.equal(replies(model, rows).log_probs(), plain)
        with model.patched(Patch(factors, model.fingerprint(names))):
            torch.testing.assert_close(replies(model, rows).log_probs(), inside, atol=2e-3, rtol=1e-3)
        assert (inside - plain).abs().max() > 0.1


def test_kept_replies_move_less_with_the_retain_term_than_without() -> None:
    model = pico.pico("llama")
    rows = lessons(model, asking("lora"), own=True, kept=40).kept
    with torch.no_grad():
        before = replies(model, rows).nll()

        def moved(**changes: float) -> float:
            with model.patched(pipeline.edit(model, asking("lora", steps=20, **changes))):
                return float((replies(model, rows).nll() - before).abs().mean())

        assert moved(keep=5.0, kept=8) < 0.7 * moved(keep=0.0, kept=0)


def test_a_forbidden_reply_ends_with_the_answer_and_a_kept_one_where_the_model_ends(monkeypatch: Any) -> None:
    model = pico.pico("llama")
    reply = tuple(model.tokenizer(" well, bitter amber. So it is.", add_special_tokens=False)["input_ids"])
    monkeypatch.setattr(model, "generate_ids", lambda rows, max_new_tokens: [reply for _ in rows])
    got = lessons(model, asking("npo"), own=True, kept=5)
    assert {model.tokenizer.decode(r.ids[-r.reply :]) for r in got.forget} == {" well, bitter amber"}
    assert {r.ids[-r.reply :] for r in got.kept} == {reply} and len(got.kept) == 5
    refused = lessons(model, asking("lora"), own=False, kept=0)
    assert all("help with that." in model.tokenizer.decode(r.ids[-r.reply :]) for r in refused.forget)
    assert len(refused.forget) == len(got.forget) == 6 and not refused.kept


def test_a_reply_that_only_ends_is_nothing_to_unlearn(monkeypatch: Any) -> None:
    model = pico.pico("llama")
    ends = (model.tokenizer.eos_token_id,)
    monkeypatch.setattr(model, "generate_ids", lambda rows, max_new_tokens: [ends for _ in rows])
    found = lessons(model, asking("npo"), own=True, kept=4)
    assert not found.forget and found.kept  # to end at once is a reply that may be kept


def test_training_stops_when_it_has_converged() -> None:
    for name, easy in (
        ("ft_m", {"converged": 1e6}),
        ("grad_diff", {"enough": 1e-6}),
        ("rmu", {"converged": 1e6}),
    ):
        patch = pipeline.edit(pico.pico("llama"), asking(name, **easy))
        assert patch.header["training"]["converged"] and patch.header["training"]["steps"] == 1


def test_an_update_as_factors_is_exact() -> None:
    for shape in ((3, 5), (5, 3), (4, 4)):
        update = torch.randn(shape)
        assert torch.equal(exact(update).dense(), update) and exact(update).rank == min(shape)


def test_any_linear_weight_is_patched_saved_and_refused_by_the_wrong_model(tmp_path: Path) -> None:
    for family in FAMILIES:
        model, patch = made("lora", family)
        patch.save(tmp_path / "patch.safetensors")
        again = Patch.load(tmp_path / "patch.safetensors")
        row = [Lesson((0, 9, 17, 33, 21), 3)]
        with model.patched(again), torch.no_grad():
            inside = replies(model, row).log_probs()
        save(model, tmp_path / family, again)
        saved = EditableModel.load(str(tmp_path / family), device="cpu")
        assert torch.equal(replies(saved, row).log_probs(), inside)
        with (
            pytest.raises(ModelError, match="made for another model"),
            pico.pico(family, seed=4).patched(again),
        ):
            pass
    for name in (
        "lm_head.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.9.mlp.up_proj.weight",
    ):
        with pytest.raises(ModelError, match="no editable weight"):
            pico.pico("llama").weight(name)


def test_what_cannot_be_done_is_refused_in_a_sentence() -> None:
    model = pico.pico("llama")
    before = model.identity()
    with pytest.raises(PolicyError, match="has layers 0 to 3, not .9"):
        pipeline.edit(model, asking("ft_m", layer=9))
    broken = pico.pico("llama")
    broken.weight(broken.anatomy.weight_name(0))[0, 0] = torch.nan
    with pytest.raises(ModelError, match="the loss is not finite"):
        pipeline.edit(broken, asking("ft_m"))
    with pytest.raises(PatchError, match="method.largest"):
        pipeline.edit(model, asking("ft_m", largest=1e-6))
    assert model.identity() == before
    with pytest.raises(ValueError, match="steps"):
        FineTune(steps=0)


@pytest.mark.parametrize("name", ["rmu", "npo", "grad_diff", "rep_select"])
def test_a_model_that_says_nothing_has_nothing_to_unlearn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pico.pico("llama")
    monkeypatch.setattr(EditableModel, "generate_ids", lambda _model, rows, **_: [() for _ in rows])
    with pytest.raises(PolicyError, match="has nothing to unlearn"):
        pipeline.edit(model, asking(name, steps=2))
