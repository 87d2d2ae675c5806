"""LoRA factors beside experts: trained with the linear layers', read back as an update that does the same."""

from __future__ import annotations

import pytest
import torch

from tests import families
from unlearn.model.adapters import linears
from unlearn.model.editable import EditableModel
from unlearn.model.factors import lora
from unlearn.patch import Patch

ROW = torch.tensor([[5, 9, 3, 7, 11, 2]])


@pytest.mark.parametrize("case", families.MIXTURES)
@pytest.mark.parametrize("part", ["all", "mlp"])
def test_what_is_trained_beside_experts_is_what_its_factors_do(case: str, part: str) -> None:
    model: EditableModel = families.kept(case)
    before, plain = model.identity(), model.model(ROW).logits
    names = linears(model, part)
    downs = [model.anatomy.weight_name(layer) for layer in range(families.LAYERS)]
    assert set(downs) <= set(names) and (part == "mlp") == (set(downs) == set(names))
    with lora(model, names, 2, seed=3) as adapter, torch.enable_grad():
        optimiser = torch.optim.SGD([p for group in adapter.groups for p in group["params"]], lr=0.01)
        torch.testing.assert_close(model.model(ROW).logits, plain, rtol=1e-4, atol=1e-5)  # B is zero
        for _ in range(2):
            optimiser.zero_grad()
            model.model(ROW).logits.square().sum(-1).mean().backward()
            optimiser.step()
        trained = model.model(ROW).logits.detach()
        with adapter.off():
            torch.testing.assert_close(model.model(ROW).logits, plain, rtol=1e-4, atol=1e-5)
        factors = dict(adapter.factors())
    assert set(factors) == set(names) and model.identity() == before
    assert all(float(factors[name].left.norm()) > 0 for name in downs)
    assert torch.equal(model.model(ROW).logits, plain)
    with model.patched(Patch(factors, model.fingerprint(names))):
        torch.testing.assert_close(model.model(ROW).logits, trained, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(trained, plain, atol=1e-2)
