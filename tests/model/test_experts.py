"""Mixtures of experts: one matrix and one long key, by the papers' formulas; listening changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests import families, pico
from tests.model.test_families import AT, LAYER, ROWS, off, request, whole, written
from unlearn.errors import ModelError
from unlearn.model.anatomy import Anatomy
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read


def routed(mlp: Any, entering: Tensor, gated: bool = True) -> Tensor:
    """The long key of a mixture of experts, token by token and expert by expert, by the papers' formulas.

    The router's logits are recomputed, its weights are the softmax of the two largest (all three families renormalise
    over these). Without gates: what the experts themselves make of the token, which is no key.
    """
    experts = mlp.experts
    router = mlp.router if hasattr(mlp, "router") else mlp.gate
    logits = entering @ router.weight.T + (router.bias if hasattr(router, "bias") else 0)
    key = entering.new_zeros(len(entering), families.EXPERTS, families.EACH)
    for row, scores in enumerate(logits):
        top, chosen = scores.topk(2)
        for gate, expert in zip(top.softmax(0), chosen.tolist(), strict=True):
            weight = experts.gate_up_proj[expert]
            if hasattr(experts, "gate_up_proj_bias"):  # gpt-oss: stored (in, out), gate and up in turns
                both = entering[row] @ weight + experts.gate_up_proj_bias[expert]
                first, up = both[::2].clamp(max=7.0), both[1::2].clamp(-7.0, 7.0)
                made = (up + 1) * first * (1.702 * first).sigmoid()
            else:
                first, up = (weight @ entering[row]).chunk(2)
                made = torch.nn.functional.silu(first) * up
            key[row, expert] = (gate if gated else 1.0) * made
    return key.flatten(1)


def offset(mlp: Any, entering: Tensor) -> Tensor | float:
    """What the experts' biases add to the outputs of a mixture at its inputs, (n, d_model)."""
    if not hasattr(mlp.experts, "down_proj_bias"):
        return 0.0
    top, chosen = (entering @ mlp.router.weight.T + mlp.router.bias).topk(2)
    return (top.softmax(-1)[..., None] * mlp.experts.down_proj_bias[chosen]).sum(1)


@pytest.mark.parametrize("case", families.MIXTURES)
def test_a_mixture_is_one_matrix_and_one_long_key(case: str) -> None:
    """What enters and leaves the MLP is torch's own; the key is the papers' formula, the matrix the stored weights."""
    model = families.kept(case)
    mlp = model.anatomy.mlp(model.model, LAYER)
    went: list[tuple[Tensor, Tensor]] = []

    def hook(_module: object, args: tuple[Tensor, ...], out: Any) -> None:
        went.append((args[0][0], (out if isinstance(out, Tensor) else out[0])[0]))

    handle = mlp.register_forward_hook(hook)
    for row in ROWS:
        whole(model, row)
    handle.remove()
    entering, left = (
        torch.cat([both[at] for both, at in zip(part, AT, strict=True)]) for part in zip(*went, strict=True)
    )
    keys, matrix = read(model, ROWS, AT, [LAYER]).keys[LAYER], model.anatomy.matrix(model.model, LAYER)
    torch.testing.assert_close(keys.T, routed(mlp, entering), rtol=1e-3, atol=1e-4)
    assert (keys.unflatten(0, (families.EXPERTS, -1)).abs().sum(1) > 0).sum(0).tolist() == [2] * 5
    torch.testing.assert_close((matrix @ keys).T + offset(mlp, entering), left, rtol=1e-3, atol=1e-4)
    ungated = routed(mlp, entering, gated=False)  # the control: without its gates it is another key
    assert off(ungated @ matrix.T + offset(mlp, entering), left) > 0.1


@pytest.mark.parametrize("case", families.MIXTURES)
def test_listening_changes_nothing(case: str) -> None:
    """Logits with keys being read are those without, and the router is no part of an edit."""
    model, row = families.kept(case), torch.tensor([ROWS[1]])
    quiet = model.model(row).logits
    handle = model.anatomy.down(model.model, LAYER).register_forward_pre_hook(lambda *_: None)
    heard = model.model(row).logits
    handle.remove()
    torch.testing.assert_close(heard, quiet, rtol=1e-4, atol=1e-5)
    keys, wanted = request(model)
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    with model.patched(written(model, keys, wanted)):
        now = model.model.state_dict()
        assert [name for name in before if not torch.equal(now[name], before[name])] == [
            model.anatomy.weight_name(LAYER)
        ]


@pytest.mark.parametrize("case", families.MIXTURES)
def test_without_gates_what_is_written_does_not_land(case: str) -> None:
    """The same residuals written at keys without the router's weights: the control of `test_the_residual_lands`."""
    model = families.kept(case)
    keys, wanted = request(model)
    mlp = model.anatomy.mlp(model.model, LAYER)
    router = mlp.router if hasattr(mlp, "router") else mlp.gate
    gates: list[Tensor] = []
    handle = router.register_forward_hook(lambda _module, _args, out: gates.append(dense(out[1], out[2])))
    for row in ROWS:
        whole(model, row)
    handle.remove()
    at = torch.cat([each[places] for each, places in zip(gates, AT, strict=True)]).T  # (experts, n)
    parted = keys.unflatten(0, (families.EXPERTS, -1)) / at[:, None].clamp_min(1e-9)
    with model.patched(written(model, parted.flatten(0, 1), wanted)):
        now = read(model, ROWS, AT, stream_layers=[LAYER]).stream[LAYER]
    before = read(model, ROWS, AT, stream_layers=[LAYER]).stream[LAYER]
    assert off(now - before, wanted) > 0.2


def dense(weights: Tensor, chosen: Tensor) -> Tensor:
    """A router's weights of all experts, (tokens, experts)."""
    return torch.zeros(len(weights), families.EXPERTS).scatter(1, chosen, weights.float())


@pytest.mark.parametrize("case", families.MIXTURES)
def test_every_way_of_storing_is_put_back_bit_for_bit(case: str) -> None:
    model = EditableModel(families.network(case), pico.tokenizer(), case)
    name = model.anatomy.weight_name(LAYER)
    there = model.anatomy.projection(model.model, name)
    stored = there.module.get_parameter(there.parameter)
    assert torch.equal(there.stored(there.matrix()), stored) and there.matrix().shape == there.shape
    for expert, block in enumerate(there.matrix().chunk(families.EXPERTS, 1)):
        assert torch.equal(block, stored[expert].T if case == "gpt-oss" else stored[expert])
    other = torch.randn(there.shape)
    model.overwrite(name, other)
    assert torch.equal(model.weight(name), other)


@pytest.mark.parametrize("case", families.MIXTURES)
def test_copies_of_a_tapped_model_compute_the_same(case: str) -> None:
    """A deep copy has taps of its own; a model from the configuration alone has none, and needs none."""
    model, row = families.kept(case), torch.tensor([ROWS[1]])
    plain = model.model(row).logits
    deep = EditableModel(copy.deepcopy(model.model), pico.tokenizer(), case)
    assert torch.equal(deep.model(row).logits, plain)
    for layer, kept in read(model, ROWS, AT, [LAYER]).keys.items():
        assert torch.equal(read(deep, ROWS, AT, [LAYER]).keys[layer], kept)
    assert deep.anatomy.down(deep.model, LAYER) is not model.anatomy.down(model.model, LAYER)
    bare = AutoModelForCausalLM.from_config(copy.deepcopy(model.model.config)).eval()
    bare.load_state_dict(model.model.state_dict())
    torch.testing.assert_close(bare(row).logits, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("several", [0, families.EXPERTS + 1])
def test_a_token_that_has_no_experts_is_a_sentence(several: int) -> None:
    network = families.network("mixtral")
    network.config.num_experts_per_tok = several
    with pytest.raises(ModelError, match=rf"gives a token {several} of 4 experts .*; write 1 to 4 there"):
        Anatomy.of(network)


def test_a_mixture_with_a_dense_layer_is_a_sentence() -> None:
    kind, changes = families.CASES["qwen3-moe"]
    config = families.config(kind, {**changes, "mlp_only_layers": [1]})
    with pytest.raises(ModelError, match="unusual layout"):
        Anatomy.of(AutoModelForCausalLM.from_config(config))
