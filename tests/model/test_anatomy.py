"""The table of families: orientation is right, and what is not in it is refused (every family: test_families.py)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests import pico
from unlearn.errors import ModelError
from unlearn.model.anatomy import Anatomy
from unlearn.model.forward import read


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_sizes_and_orientation(family: str) -> None:
    model = pico.pico(family)
    assert (model.anatomy.layers, model.anatomy.d_model, model.anatomy.d_ff) == (4, 32, 64)
    name = model.anatomy.weight_name(2)
    assert name in model.model.state_dict()
    assert model.weight(name).shape == (32, 64)  # (d_out, d_in) for Linear and Conv1D alike


def test_a_square_weight_is_oriented_by_type() -> None:
    model = pico.pico("gpt2", width=32, inner=32)
    stored = model.model.transformer.h[1].mlp.c_proj.weight
    assert torch.equal(model.anatomy.matrix(model.model, 1), stored.T)
    assert not torch.equal(model.anatomy.matrix(model.model, 1), stored)


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_the_residual_lands(family: str) -> None:
    """Write delta at one layer: the stream there moves by delta @ key, and by nothing at an earlier token."""
    model = pico.pico(family)
    rows, at = [list(range(5, 17))], [[3, 9]]
    before = read(model, rows, at, [1], [1])
    delta = torch.randn(32, 64) * 0.1
    matrix = model.anatomy.matrix(model.model, 1)
    matrix += delta
    after = read(model, rows, at, [1], [1])
    torch.testing.assert_close(
        after.stream[1] - before.stream[1], delta @ before.keys[1], rtol=1e-4, atol=1e-5
    )
    matrix -= delta
    matrix += delta.flip(0)  # the control: another matrix does not land there
    wrong = read(model, rows, at, [1], [1])
    assert not torch.allclose(
        wrong.stream[1] - before.stream[1], delta @ before.keys[1], rtol=1e-2, atol=1e-3
    )


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ModelError, match="'olmoe' cannot be edited"):
        Anatomy.of(pico.network("olmoe"))


def test_a_quantised_or_foreign_projection_is_refused() -> None:
    model = pico.network("llama")
    model.model.layers[0].mlp.down_proj = nn.Bilinear(2, 2, 2)
    with pytest.raises(ModelError, match="Bilinear"):
        Anatomy.of(model)
    del model.model.layers[0].mlp.down_proj
    with pytest.raises(ModelError, match="unusual layout"):
        Anatomy.of(model)
    odd = pico.network("llama")
    odd.model.layers[2].mlp.down_proj = nn.Linear(48, 32)
    with pytest.raises(ModelError, match="down-projections of 2 sizes"):
        Anatomy.of(odd)
    stored = pico.network("llama")
    stored.model.layers[3].mlp.down_proj.weight = nn.Parameter(
        torch.zeros(32, 64, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ModelError, match="quantised or wrapped"):
        Anatomy.of(stored)


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_the_measures_of_a_model_need_no_weights_and_its_weights_do(family: str) -> None:
    network = pico.network(family)
    anatomy = Anatomy.of(network)
    name = anatomy.weight_name(1)
    empty = network.to("meta")
    assert Anatomy.of(empty) == anatomy
    assert anatomy.projection(empty, name).shape == (anatomy.d_model, anatomy.d_ff)
    with pytest.raises(ModelError, match="no weights in memory"):
        anatomy.named(empty, name)


def test_an_unknown_weight_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no editable weight called 'lm_head.weight'"):
        pico.pico("llama").weight("lm_head.weight")
    for name in ("model.layers.9.mlp.down_proj.weight", "model.layers.0.input_layernorm.weight"):
        with pytest.raises(ModelError, match="no editable weight called"):
            pico.pico("llama").weight(name)


def test_any_linear_weight_of_a_block_is_found_by_name() -> None:
    model = pico.pico("gpt2")
    stored = model.model.transformer.h[1].attn.c_attn.weight
    assert torch.equal(model.weight("transformer.h.1.attn.c_attn.weight"), stored.T)  # (d_out, d_in)
