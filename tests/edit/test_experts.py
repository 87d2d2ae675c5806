"""Edits of mixtures of experts: the one equation with long keys, against a dense reference in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import families, pico, reference
from tests.device_maps import map_of
from tests.edit import cases
from tests.edit.test_pipeline import METHOD_SETTINGS
from tests.edit.upcycled import upcycled
from tests.model.test_experts import routed
from unlearn.edit import forms, pipeline, reading, statistics_file
from unlearn.edit.allowed import allowed
from unlearn.edit.columns import Columns
from unlearn.edit.corpus import Corpus
from unlearn.edit.reading import _batched
from unlearn.edit.statistics import key_statistics, made_of
from unlearn.errors import ModelError, PolicyError, UnlearnError
from unlearn.matching import contains
from unlearn.model.budget import token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import ask
from unlearn.model.requests import Fact
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings import AlphaEdit, AlphaEditPlus, Memit, Nse, UltraEdit
from unlearn.policy.settings_trained import FineTune, Lora, Mend, NullSpaceTuning, RepSelect, Rmu
from unlearn.store import Store

LAYER, FLOOR = 1, 1e-6
RIDGE = 0.05

METHODS: dict[str, Any] = {
    **{name: METHOD_SETTINGS[name] for name in ("alphaedit", "anyedit", "emmet", "memit_seq", "rome")},
    "null_space_tuning": NullSpaceTuning(layers=(1, 2), steps=3, null_space=0.7),
    "ultra_edit": UltraEdit(layers=(1, 2), lr=0.1),
    "ft_m": FineTune(layer=1, steps=3),
    "rmu": Rmu(steps=3),
    "lora": Lora(steps=3),
}
REFUSED: dict[str, Any] = {
    "nse": Nse(),
    "alphaedit_plus": AlphaEditPlus(),
    "mend": Mend(),
    "rep_select": RepSelect(),
}


@pytest.fixture
def corpus(tmp_path: Path) -> StatisticsSpec:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=1000)


def keys_by_formula(network: Any, rows: list[list[int]], at: list[list[int]], gated: bool = True) -> Tensor:
    """Long keys in float64, (E w, n): what enters the MLP is torch's own, the rest the papers' formula."""
    mlp = network.model.layers[LAYER].mlp
    entered: list[Tensor] = []
    handle = mlp.register_forward_pre_hook(lambda _module, args: entered.append(args[0][0]))
    with torch.no_grad():
        for row in rows:
            network(torch.tensor([row]), use_cache=False)
    handle.remove()
    chosen = torch.cat([one[places] for one, places in zip(entered, at, strict=True)])
    return routed(mlp, chosen, gated).T


@pytest.mark.parametrize("case", families.MIXTURES)
def test_an_edit_is_the_one_equation_with_gated_keys(case: str, corpus: StatisticsSpec) -> None:
    """MEMIT on one layer: keys, second moments and update by hand; without the gates it is another update."""
    model = families.kept(case)
    method = Memit(layers=(LAYER,), steps=4, ridge=RIDGE, look_up="last", prefixes=0)
    requests = cases.requests(statistics=corpus, method=method)
    patch = pipeline.edit(model, requests)
    name = model.anatomy.weight_name(LAYER)
    assert list(patch.factors) == [name]
    residuals = patch.factors[name].left.double()

    network = families.network(case).double().requires_grad_(False)
    network.set_experts_implementation("eager")
    laid = forms.build(model, requests, requests.facts, "last", keeps=False)
    columns = Columns.of(laid, model.device)
    source = Corpus(corpus.corpus)
    seen = [row for batch in _batched(model, source, corpus.tokens, token_budget(model)) for row in batch]
    everywhere = [list(range(len(row))) for row in seen]

    def by_hand(gated: bool) -> Tensor:
        ids, at = [list(row) for row in columns.ids], [list(places) for places in columns.positions]
        keys = keys_by_formula(network, ids, at, gated) * columns.weights.sqrt().double()
        every = keys_by_formula(network, seen, everywhere, gated)
        second = every @ every.T / every.shape[1]
        second *= torch.block_diag(*[torch.ones(families.EACH, families.EACH)] * families.EXPERTS).double()
        values, vectors = torch.linalg.eigh(second)
        second = vectors @ (values.clamp_min(FLOOR * float(values.mean()))[:, None] * vectors.T)
        ridge = RIDGE * float((keys * torch.linalg.solve(second, keys)).sum(0).mean())
        return reference.emmet(keys, residuals, second, ridge)

    delta = patch.factors[name].dense().double()
    right = by_hand(gated=True)
    assert residuals.shape[1] < model.anatomy.d_ff
    assert float((delta - right).norm() / right.norm()) < 1e-3
    assert float((by_hand(gated=False) - right).norm() / right.norm()) > 0.1  # the control


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", families.MIXTURES)
def test_methods_edit_a_mixture_and_leave_it_as_it_was(
    case: str, method: str, corpus: StatisticsSpec
) -> None:
    model = families.kept(case)
    before, row = model.identity(), torch.tensor([list(range(5, 17))])
    plain = model.model(row).logits
    policy = cases.policy(statistics=corpus, method=METHODS[method])
    allowed(model, policy, None)
    patch = pipeline.edit(model, cases.requests(statistics=corpus, method=METHODS[method]))
    assert model.identity() == before and torch.equal(model.model(row).logits, plain)
    assert any(name.endswith("mlp.experts.down_proj") for name in patch.factors)
    assert not any("gate" in name or "router" in name for name in patch.factors)
    weights = dict(model.model.state_dict())
    kept = {name: tensor.clone() for name, tensor in weights.items()}
    with model.patched(patch):
        changed = {name for name in weights if not torch.equal(weights[name], kept[name])}
        assert not torch.equal(model.model(row).logits, plain)
    assert changed <= set(patch.factors) and changed
    assert model.identity() == before


@pytest.mark.parametrize("case", families.MIXTURES)
def test_training_leaves_the_directions_that_each_expert_uses(case: str, corpus: StatisticsSpec) -> None:
    model = families.kept(case)
    patch = pipeline.edit(model, cases.requests(statistics=corpus, method=METHODS["null_space_tuning"]))
    there = key_statistics(model, [LAYER], Corpus(corpus.corpus), corpus.tokens)[LAYER]
    assert there.second.shape == (families.EXPERTS, families.EACH, families.EACH)
    free = there.spectrum.unused(there.spectrum.kept_by_energy(0.7))
    delta = patch.factors[model.anatomy.weight_name(LAYER)].dense()
    used = [
        torch.linalg.svd(block, full_matrices=True)[0][:, block.shape[1] :].float() for block in free.blocks
    ]
    outside = torch.cat(
        [part @ block for part, block in zip(delta.chunk(families.EXPERTS, 1), used, strict=True)], 1
    )
    assert outside.shape[1] > 0 and outside.norm() < 1e-4 * delta.norm()
    assert delta.norm() > 0


def test_moments_that_no_memory_holds_are_refused(
    corpus: StatisticsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted are the blocks: a quarter of what the whole second moment of four experts would take."""
    model = families.kept("mixtral")
    blocks = 8 * 2 * families.EXPERTS * families.EACH**2
    for room in (blocks, blocks - 1):
        monkeypatch.setattr(reading, "of_host", lambda room=room: room)
        if room < blocks:
            with pytest.raises(
                UnlearnError, match=r"statistics of 2 layers take .*write fewer layers"
            ) as said:
                key_statistics(model, [1, 2], Corpus(corpus.corpus), corpus.tokens)
            assert "\n" not in str(said.value)
        else:
            key_statistics(model, [1, 2], Corpus(corpus.corpus), corpus.tokens)


def test_with_blocks_on_disk_it_is_the_same_edit(corpus: StatisticsSpec, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    families.network("gpt-oss").save_pretrained(folder)
    pico.tokenizer().save_pretrained(folder)
    plain = EditableModel.load(str(folder), device="cpu")
    places = map_of(plain, tmp_path / "map.json", {1: "disk", 2: "disk"})
    spread = EditableModel.load(str(folder), device_map=str(places))
    assert spread.offloaded and spread.identity() == plain.identity()
    method = METHODS["alphaedit"]
    one, other = (
        pipeline.edit(model, cases.requests(statistics=corpus, method=method)) for model in (plain, spread)
    )
    assert one.base == other.base
    for name, delta in one.factors.items():
        error = other.factors[name].dense() - delta.dense()
        assert float(error.norm() / delta.dense().norm()) < 1e-5
    row = torch.tensor([[3, 9, 4, 7]])
    before = spread.model(row).logits
    with plain.patched(one), spread.patched(one):
        assert plain.weights_sha256() == spread.weights_sha256()
        assert torch.equal(plain.model(row).logits, spread.model(row).logits)
    assert torch.equal(spread.model(row).logits, before)


def test_experts_that_are_filed_one_by_one_are_not_left_on_disk(tmp_path: Path) -> None:
    families.network("mixtral").save_pretrained(tmp_path / "model")
    pico.tokenizer().save_pretrained(tmp_path / "model")
    plain = EditableModel.load(str(tmp_path / "model"), device="cpu")
    places = map_of(plain, tmp_path / "map.json", {1: "disk"})
    with pytest.raises(
        ModelError, match="hold every expert by itself.*put them on cpu in the --device-map"
    ) as said:
        EditableModel.load(str(tmp_path / "model"), device_map=str(places))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("method", REFUSED)
def test_methods_that_experts_have_no_place_for_are_refused_in_one_sentence(method: str) -> None:
    policy = cases.policy(method=REFUSED[method])
    with pytest.raises(
        PolicyError, match=rf"method.name: {method} .*is a mixture of experts; choose"
    ) as said:
        allowed(families.kept("mixtral"), policy, None)
    assert "\n" not in str(said.value)
    allowed(families.kept("llama"), policy, None)  # the control


def test_statistics_of_experts_are_cached_to_the_last_bit(corpus: StatisticsSpec, tmp_path: Path) -> None:
    model: EditableModel = families.kept("qwen3-moe")
    store = Store.at(tmp_path / "cache")
    fresh, found = (
        key_statistics(model, [LAYER], Corpus(corpus.corpus), corpus.tokens, store)[LAYER] for _ in range(2)
    )
    assert torch.equal(fresh.second, found.second) and fresh.tokens == found.tokens
    assert torch.equal(fresh.spectrum.values, found.spectrum.values)
    for one, other in zip(fresh.spectrum.unused(7).blocks, found.spectrum.unused(7).blocks, strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()


def test_statistics_of_experts_are_handed_on(corpus: StatisticsSpec, tmp_path: Path) -> None:
    model: EditableModel = families.kept("gpt-oss")
    source = Corpus(corpus.corpus)
    found = key_statistics(model, [LAYER], source, corpus.tokens)
    origin = made_of(model, source, corpus.tokens)
    statistics_file.save(tmp_path / "keys.safetensors", found, origin)
    (got,) = dict(statistics_file.load(tmp_path / "keys.safetensors", model, origin)).values()
    assert torch.equal(got.second, found[LAYER].second) and got.tokens == found[LAYER].tokens
    assert torch.equal(got.spectrum.values, found[LAYER].spectrum.values)
    whole = {LAYER: replace(found[LAYER], second=torch.eye(model.anatomy.d_ff, dtype=torch.float64))}
    statistics_file.save(tmp_path / "whole.safetensors", whole, origin)
    with pytest.raises(UnlearnError, match="no float64 matrix of 4 by 12 by 12"):
        dict(statistics_file.load(tmp_path / "whole.safetensors", model, origin))


@pytest.mark.slow
def test_a_mixture_that_knows_facts_forgets_them_and_keeps_others() -> None:
    model = upcycled()
    requests = cases.known(AlphaEdit())
    spec = requests.policy.statistics.model_copy(update={"tokens": 8192})
    requests = replace(requests, policy=requests.policy.model_copy(update={"statistics": spec}))

    def told(facts: tuple[Fact, ...]) -> list[bool]:
        relations = requests.policy.relations
        prompts = [
            ask(model.tokenizer, template, fact.subject)
            for fact in facts
            for template in relations[fact.relation].prompts
        ]
        answers = [fact.answer for fact in facts for _ in relations[fact.relation].prompts]
        replies = model.generate(prompts, max_new_tokens=16)
        return [contains(reply, (answer,)) for (reply,), answer in zip(replies, answers, strict=True)]

    assert all(told(requests.facts)) and all(told((*requests.siblings, *requests.neighbours)))
    with model.patched(pipeline.edit(model, requests)):
        assert not any(told(requests.facts))
        assert all(told(requests.siblings))
        others = told(requests.neighbours)
        assert sum(others) >= 0.8 * len(others)
    assert all(told(requests.facts))
