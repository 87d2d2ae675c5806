"""Products in bfloat16 where that pays, and the model as it was afterwards."""

from __future__ import annotations

import pytest
import torch

from tests import pico
from unlearn.model import narrow
from unlearn.model.adapters import linears
from unlearn.model.factors import lora
from unlearn.model.narrow import LONG, eager_attention, narrowed, quick_passes

IDS = torch.tensor([[3, 4, 5, 6, 7]])


@pytest.mark.parametrize("pays", [True, False])
def test_products_are_narrow_where_that_pays_and_weights_come_back(
    pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickest = torch.bfloat16 if pays else torch.float32
    monkeypatch.setattr(narrow, "quickest_dtype", lambda _device: quickest)
    model = pico.pico("llama")
    before = model.model(input_ids=IDS).logits
    weights = {name: (p.data_ptr(), p.clone()) for name, p in model.model.named_parameters()}
    with narrowed(model, 1) as dtype:
        assert dtype == quickest
        held = {model.anatomy.down(model.model, layer).weight.dtype for layer in (1, 2)}
        assert held == {quickest}
        assert model.anatomy.down(model.model, 0).weight.dtype == torch.float32
        now = model.model(input_ids=IDS).logits.float()
    assert torch.allclose(now, before, rtol=0.1, atol=0.1)
    assert bool((now == before).all()) is not pays
    for name, parameter in model.model.named_parameters():
        address, values = weights[name]
        assert parameter.data_ptr() == address and torch.equal(parameter, values)


def test_weights_come_back_after_an_error_and_narrow_models_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(narrow, "quickest_dtype", lambda _device: torch.bfloat16)
    model = pico.pico("llama")
    with pytest.raises(RuntimeError), narrowed(model, 0):
        raise RuntimeError
    assert model.anatomy.down(model.model, 0).weight.dtype == torch.float32
    half = pico.pico("llama", torch.float16)
    with narrowed(half, 0) as dtype:
        assert dtype == torch.float16


@pytest.mark.parametrize(
    ("products", "longest", "found"),
    [(torch.float32, 9, "sdpa"), (torch.bfloat16, LONG, "eager"), (torch.bfloat16, LONG + 1, "sdpa")],
)
def test_attention_is_written_out_for_short_rows_and_narrow_products_and_comes_back(
    products: torch.dtype, longest: int, found: str
) -> None:
    model = pico.pico("llama")
    config = model.model.config
    assert config._attn_implementation == "sdpa"
    with pytest.raises(RuntimeError), eager_attention(model, products, longest):
        assert config._attn_implementation == found
        raise RuntimeError
    assert config._attn_implementation == "sdpa"


def test_what_is_trained_within_counts_from_the_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast keeps its copies of parameters unless it is told not to."""
    monkeypatch.setattr(narrow, "quickest_dtype", lambda _device: torch.bfloat16)
    model = pico.pico("llama")
    with quick_passes(model, 0, IDS.shape[1]), lora(model, linears(model), 2, 0) as adapter:
        with torch.enable_grad():
            before = model.model(input_ids=IDS).logits
        with torch.no_grad():
            for group in adapter.groups:
                assert {p.dtype for p in group["params"]} == {torch.float32}
                for parameter in group["params"]:
                    parameter += 0.5
        with torch.enable_grad():
            assert (model.model(input_ids=IDS).logits - before).abs().max() > 0.1
