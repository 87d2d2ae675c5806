"""RepSelect: its gradient, its budget, what the selection changes, and what it does to a model that knows something."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from tests.edit.train.cases import asking
from unlearn.edit import pipeline
from unlearn.edit.train import rep_select as room
from unlearn.edit.train.lessons import lessons
from unlearn.edit.train.replied import Replied
from unlearn.errors import ModelError, PolicyError
from unlearn.model.adapters import dense, linears
from unlearn.model.editable import EditableModel
from unlearn.model.forward import replies
from unlearn.patch import Patch
from unlearn.policy import EMBEDDED
from unlearn.policy.settings_trained import RepSelect
from unlearn.progress import NO_PROGRESS


def test_the_gradient_is_that_of_the_weights_themselves() -> None:
    """With no adversary, so that parameters of the model's own can be asked for it."""
    model = pico.pico("llama")
    learned = lessons(model, asking("rep_select"), own=True, kept=0)
    rows, names = learned.forget, linears(model, "mlp")
    read = Replied(model, learned)
    with dense(model, names) as update:
        room._slope(model, read, RepSelect(elicit=0), update, 0, NO_PROGRESS)
        got = [group["params"][0].grad for group in update.groups]
    own = [model.model.get_parameter(name) for name in names]
    for weight in own:
        weight.requires_grad_(True)
    with torch.enable_grad():
        expected = torch.autograd.grad(replies(model, rows).nll().mean(), own)
    for weight in own:
        weight.requires_grad_(False)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    with dense(model, names) as update:  # the control: an adversary has been there
        room._slope(model, read, RepSelect(elicit=2, lora_lr=0.1), update, 0, NO_PROGRESS)
        met = [group["params"][0].grad for group in update.groups]
    assert all(
        g is not None and h is not None and not torch.allclose(g, h) for g, h in zip(got, met, strict=True)
    )


@cache
def made(**changes: float) -> tuple[EditableModel, Patch]:
    model = pico.pico("llama")
    return model, pipeline.edit(model, asking("rep_select", **changes))


def test_kept_replies_diverge_no_more_than_the_budget() -> None:
    _, loose = made()
    _, tight = made(budget=1e-3)
    history = tight.header["training"]
    assert 0 < history["keep"] <= 1e-3 < loose.header["training"]["keep"]
    assert history["first"] > history["forget"] > loose.header["training"]["forget"]
    assert 0 < history["steps"] < 12  # those that were too long do not count


def test_the_selection_is_another_update_with_less_of_what_leads() -> None:
    model, chosen = made(components=0.5, elicit=0)
    _, plain = made(components=1e-9, elicit=0)  # one component at least, which alone is not damped
    for name, delta in plain.factors.items():
        one, other = delta.dense().double(), chosen.factors[name].dense().double()
        left, _, right = torch.linalg.svd(one)
        share = [float((left[:, 0] @ way @ right[0]).abs() / way.norm()) for way in (one, other)]
        assert share[1] < 0.3 * share[0]
    before = model.identity()
    with model.patched(chosen):
        assert model.identity() != before


def test_a_gradient_that_is_no_number_is_refused() -> None:
    broken = pico.pico("llama")
    broken.weight(broken.anatomy.weight_name(0))[0, 0] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        pipeline.edit(broken, asking("rep_select", elicit=0))


def test_a_model_that_says_nothing_has_nothing_to_unlearn(monkeypatch: Any) -> None:
    model = pico.pico("llama")
    ends = (model.tokenizer.eos_token_id,)
    monkeypatch.setattr(model, "generate_ids", lambda rows, max_new_tokens: [ends for _ in rows])
    with pytest.raises(PolicyError, match="RepSelect has nothing to unlearn"):
        pipeline.edit(model, cases.requests(method=RepSelect()))


def test_old_answers_become_unlikely_and_kept_ones_hardly() -> None:
    model = EditableModel.load(EMBEDDED)
    requests = cases.known(RepSelect(kept=8, steps=12))
    learned = lessons(model, requests, own=True, kept=8)
    patch = pipeline.edit(model, requests)

    def probability(rows: Any) -> float:
        """Of a token of a reply, in the geometric mean."""
        return float((-replies(model, rows).nll().mean()).exp())

    with torch.no_grad():
        before, held = probability(learned.forget), probability(learned.kept)
        with model.patched(patch):
            after, still = probability(learned.forget), probability(learned.kept)
    assert before > 0.9 and held > 0.9
    assert after < 0.5 * before and still > 0.8 * held
