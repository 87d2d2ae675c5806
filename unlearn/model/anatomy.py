"""Where a family keeps what an editor needs: one table, and the one place that knows a weight's orientation.

Notation everywhere: the edited matrix of layer ``l`` is the MLP down-projection ``W`` (d_out, d_in); its input at a
token is the *key* (d_in,); what it adds to the residual stream is the *value* (d_out,), d_out = d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from unlearn.errors import ModelError


@dataclass(frozen=True)
class Family:
    """Module paths of one architecture whose MLP output is added to the stream unchanged (pre-norm, unscaled)."""

    blocks: str
    """Path of the list of decoder blocks."""
    down: str
    """Path of the MLP down-projection inside a block."""


FAMILIES: dict[str, Family] = {
    "llama": Family("model.layers", "mlp.down_proj"),
    "qwen2": Family("model.layers", "mlp.down_proj"),
    "gpt2": Family("transformer.h", "mlp.c_proj"),
}
"""By ``config.model_type``. A family enters together with a test that the residual lands (CONTRIBUTING.md)."""


@dataclass(frozen=True)
class Anatomy:
    """The measures of one model, and the names of the weights that editors write."""

    model_type: str
    family: Family
    layers: int
    """Number of decoder blocks."""
    d_model: int
    """Width of the residual stream (d_out)."""
    d_ff: int
    """Width inside the MLP: the length of a key (d_in)."""

    @classmethod
    def of(cls, model: nn.Module) -> Anatomy:
        """Read the anatomy off a model.

        Raises:
            ModelError: the family is not in the table, or the modules are not where the table says.
        """
        model_type = getattr(model.config, "model_type", "?")  # type: ignore[union-attr]
        family = FAMILIES.get(model_type)
        if family is None:
            raise ModelError(
                f"models of type {model_type!r} cannot be edited: this version knows {', '.join(sorted(FAMILIES))}; "
                "nothing was written"
            )
        try:
            blocks = model.get_submodule(family.blocks)
            downs = [block.get_submodule(family.down) for block in blocks.children()]
        except AttributeError as problem:
            raise ModelError(
                f"this {model_type} model has an unusual layout ({problem}); nothing was written"
            ) from None
        d_out, d_in = _matrix(downs[0]).shape
        return cls(model_type, family, len(downs), d_out, d_in)

    def weight_name(self, layer: int) -> str:
        """Name of the down-projection's weight in ``state_dict()``."""
        return f"{self.family.blocks}.{layer}.{self.family.down}.weight"

    def layer_of(self, weight: str) -> int:
        """The layer whose down-projection carries this name.

        Raises:
            ModelError: no such weight in this model.
        """
        for layer in range(self.layers):
            if self.weight_name(layer) == weight:
                return layer
        raise ModelError(f"this model has no editable weight called {weight!r}")

    def block(self, model: nn.Module, layer: int) -> nn.Module:
        """The decoder block; its output is the residual stream."""
        return model.get_submodule(f"{self.family.blocks}.{layer}")

    def down(self, model: nn.Module, layer: int) -> nn.Module:
        """The down-projection; its input is the key."""
        return model.get_submodule(f"{self.family.blocks}.{layer}.{self.family.down}")

    def matrix(self, model: nn.Module, layer: int) -> Tensor:
        """The weight as (d_out, d_in), a view that shares memory with the parameter."""
        return _matrix(self.down(model, layer))


def _matrix(module: nn.Module) -> Tensor:
    """``nn.Linear`` stores (out, in), GPT-2's ``Conv1D`` stores (in, out): told by type, never by shape."""
    weight = module.weight
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
        raise ModelError(
            f"a {type(module).__name__} without a plain weight matrix (quantised?) cannot be edited"
        )
    if isinstance(module, Conv1D):
        return weight.detach().T
    if isinstance(module, nn.Linear):
        return weight.detach()
    raise ModelError(f"a down-projection of type {type(module).__name__} cannot be edited")
