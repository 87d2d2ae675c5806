"""UltraEdit through the pipeline: its signals, its batches, and what it makes a model say."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico, reference
from tests.edit import cases
from unlearn.edit import forms, pipeline
from unlearn.edit.solve.one_step import signals
from unlearn.errors import ModelError, PolicyError
from unlearn.matching import contains
from unlearn.model.adapters import dense
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read, replies
from unlearn.model.prompts import ask
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import EMBEDDED
from unlearn.policy.settings import UltraEdit
from unlearn.policy.settings_base import Settings
from unlearn.policy.settings_trained import Nothing

LAYERS = (2, 3)


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return pico.pico("llama")


def asking(take: slice = slice(None), **changes: Any) -> Requests:
    whole = cases.requests(method=UltraEdit(**{"layers": LAYERS, **changes}))
    return replace(whole, facts=whole.facts[take])


def rows_of(model: EditableModel, requests: Requests) -> list[forms.Row]:
    return list(forms.build(model, requests, requests.facts, "last", keeps=False).rows)


def loss(model: EditableModel, rows: list[forms.Row]) -> torch.Tensor:
    """Summed over rows, the target's mean negative log-likelihood per token, one row at a time."""
    total = torch.zeros(())
    for row in rows:
        found = replies(model, [(row.ids, row.reply)])
        total = total + torch.nn.functional.cross_entropy(found.logits[0], found.targets[0])
    return total


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_signals_are_keys_and_gradients_by_outputs(family: str) -> None:
    """In the last layer only the sites have gradients, so that there they make up the weight's."""
    model = pico.pico(family)
    rows = rows_of(model, asking())
    got = signals(model, rows, LAYERS)
    keys = read(model, [row.ids for row in rows], [[at for _, at in row.sites] for row in rows], LAYERS).keys
    names = [model.anatomy.weight_name(layer) for layer in LAYERS]
    with dense(model, names) as adapter, torch.enable_grad():
        loss(model, rows).backward()
        whole = [group["params"][0].grad for group in adapter.groups]
    for layer in LAYERS:
        torch.testing.assert_close(got.keys[layer], keys[layer], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.stream[3] @ got.keys[3].T, whole[1], rtol=1e-3, atol=1e-5)
    below = got.stream[2] @ got.keys[2].T  # the control: earlier tokens have their share further down
    assert float((below - whole[0]).norm() / whole[0].norm()) > 1e-2
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


@cache
def made(batch: int | None) -> Patch:
    return pipeline.edit(pico.pico("llama"), asking(batch=batch))


@pytest.mark.parametrize("batch", [None, 1])
def test_the_patch_is_the_dense_published_form_batch_by_batch(
    model: EditableModel, batch: int | None
) -> None:
    """The statistics of a batch are those of all batches up to it; nothing else is remembered."""
    size, settings = batch or 3, UltraEdit()
    keys: dict[int, list[torch.Tensor]] = {layer: [] for layer in LAYERS}
    gradients: dict[int, list[torch.Tensor]] = {layer: [] for layer in LAYERS}
    sums = {layer: torch.zeros(32, 64, dtype=torch.float64) for layer in LAYERS}
    fresh = pico.pico("llama")
    for at in range(0, 3, size):
        got = signals(fresh, rows_of(fresh, asking(slice(at, at + size))), LAYERS)
        for layer in LAYERS:
            mine = got.keys[layer].double()
            keys[layer].append(mine)
            gradients[layer].append(got.stream[layer].double())
            weight = fresh.weight(fresh.anatomy.weight_name(layer))
            length = float((weight.double() @ mine).norm(dim=0).mean())
            ridge = settings.ridge * float(mine.square().sum(0).mean())
            lr = settings.lr * length / (64 * 32**0.5)
            sums[layer] += reference.ultra_edit(keys[layer], gradients[layer], lr, ridge)
        for layer in LAYERS:  # the next batch finds the model edited
            name = fresh.anatomy.weight_name(layer)
            fresh.weight(name).copy_((model.weight(name).double() + sums[layer]).float())
    patch = made(batch)
    for layer in LAYERS:
        found = patch.factors[model.anatomy.weight_name(layer)].dense()
        torch.testing.assert_close(
            found.double(), sums[layer], rtol=1e-3, atol=1e-5 * float(found.abs().max())
        )
    assert patch.header["batches"] == ([1, 1, 1] if batch else [3])
    other = made(1 if batch is None else None)  # the control: batches are another edit
    name = model.anatomy.weight_name(3)
    assert float((other.factors[name].dense() - patch.factors[name].dense()).norm()) > 1e-3


def test_a_policy_on_top_of_another_is_the_next_batch(model: EditableModel, tmp_path: Path) -> None:
    first = pipeline.edit(model, asking(slice(0, 1)))
    first.save(tmp_path / "first.safetensors")
    first = Patch.load(tmp_path / "first.safetensors")  # the statistics survive the file
    second = pipeline.edit(model, asking(slice(1, 2)), earlier=first)
    both = pipeline.edit(model, asking(slice(0, 2), batch=1))
    for name, delta in both.factors.items():
        torch.testing.assert_close(second.factors[name].dense(), delta.dense(), rtol=1e-3, atol=1e-5)
    assert second.header["builds_on"] == [
        {"policy": "pico", "method": "ultra_edit", "layers": [2, 3], "facts": 1}
    ]
    bare = replace(first, state={})  # the control: without the statistics it is another edit
    lost = pipeline.edit(model, asking(slice(1, 2)), earlier=bare)
    name = model.anatomy.weight_name(3)
    assert float((lost.factors[name].dense() - both.factors[name].dense()).norm()) > 1e-3


def test_the_target_becomes_likelier_the_longer_the_step_and_the_model_stays(model: EditableModel) -> None:
    before, rows = model.identity(), rows_of(model, asking())

    def after(lr: float) -> float:
        with model.patched(pipeline.edit(model, asking(lr=lr))):
            return float(loss(model, rows))

    none = float(loss(model, rows))
    assert after(0.3) < after(0.03) < none
    assert model.identity() == before


def test_layers_are_the_published_share_of_the_depth_and_wrong_ones_are_refused(model: EditableModel) -> None:
    assert list(pipeline.edit(model, cases.requests(method=UltraEdit())).header["layers"]) == [2, 3]
    with pytest.raises(PolicyError, match=r"method.layers: .* has layers 0 to 3, not \[4\]"):
        pipeline.edit(model, asking(layers=(4,)))
    broken = pico.pico("llama")
    broken.weight(broken.anatomy.weight_name(0))[0, 0] = torch.nan
    with pytest.raises(ModelError, match="the edit's loss is not finite"):
        pipeline.edit(broken, asking())


def test_what_a_model_knows_is_refused_and_the_rest_is_told() -> None:
    model = EditableModel.load(EMBEDDED)

    def said(method: Settings) -> dict[str, list[bool]]:
        """Of facts and siblings: whether the answer is told, and of facts whether they are refused."""
        requests = cases.known(method, 6)
        with model.patched(pipeline.edit(model, requests)):
            facts, siblings = (
                [
                    (fact, model.generate([ask(model.tokenizer, text, fact.subject)], 16)[0][0])
                    for fact in some
                    for text in requests.policy.relations[fact.relation].questions(held_out=False)
                ]
                for some in (requests.facts, requests.siblings)
            )
        return {
            "told": [contains(reply, fact.answers) for fact, reply in facts],
            "refused": ["I can't help" in reply for _, reply in facts],
            "siblings": [contains(reply, fact.answers) for fact, reply in siblings],
        }

    before, after = said(Nothing()), said(UltraEdit(lr=0.6))
    assert all(before["told"]) and not any(before["refused"]) and all(before["siblings"])
    assert not any(after["told"]) and sum(after["refused"]) >= 5 and sum(after["siblings"]) >= 4
