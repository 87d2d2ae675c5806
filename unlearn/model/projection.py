"""The one place that knows how a weight matrix is stored: (out, in), (in, out), in 4 bits, or per routed expert."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from unlearn.errors import ModelError
from unlearn.model import fourbit
from unlearn.model.experts import DOWN, is_tapped, keys_of, one_by_one, shape_of, side_by_side
from unlearn.model.offload import whole
from unlearn.patch import sha256_of

_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Projection:
    """A matrix (d_out, d_in) that a model multiplies by: of a linear layer, or of all routed experts side by side."""

    module: nn.Module
    """That holds it: ``nn.Linear``, one in 4 bits, GPT-2's ``Conv1D``, or experts. Told by type, never by shape."""
    parameter: str = "weight"
    """What the module calls it."""

    @classmethod
    def of(cls, module: nn.Module) -> Projection:
        """The down-projection that a module holds.

        Raises:
            ModelError: it is neither a plain matrix nor one in 4 bits.
        """
        found = cls(module, DOWN if is_tapped(module) else "weight")
        if not (found.plain or fourbit.is_packed(module)):
            raise ModelError(
                f"a down-projection of type {type(module).__name__} without a plain weight matrix (quantised or "
                "wrapped?) cannot be edited; load the model as it was published"
            )
        return found

    @property
    def plain(self) -> bool:
        """Whether the numbers are the matrix, and nothing has to be made of them first."""
        experts = is_tapped(self.module)
        if not (experts or isinstance(self.module, nn.Linear | Conv1D)):
            return False
        weight = self.module.get_parameter(self.parameter) if experts else self.module.weight
        dims = 3 if experts else 2
        return isinstance(weight, Tensor) and weight.dim() == dims and weight.dtype in _PLAIN

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in); there need be no memory behind it."""
        if is_tapped(self.module):
            number, rows, width = shape_of(self.module)
            return rows, number * width
        if fourbit.is_packed(self.module):
            return fourbit.shape(self.module)
        first, second = self.module.get_parameter(self.parameter).shape
        return (second, first) if isinstance(self.module, Conv1D) else (first, second)

    @property
    def experts(self) -> int:
        """Of how many matrices side by side it consists."""
        return shape_of(self.module)[0] if is_tapped(self.module) else 1

    @property
    def listener(self) -> nn.Module:
        """The module whose input is what the matrix is multiplied with, and whose output the product."""
        return keys_of(self.module) if is_tapped(self.module) else self.module

    def matrix(self) -> Tensor:
        """(d_out, d_in): a view of the parameter, where its layout lets it be one.

        Of one that is offloaded it is a copy on the host; of one that is quantised, or beside which an update is
        computed, a copy of what inputs are multiplied by.
        """
        return self.turned(whole(self.module, self.parameter))

    def sha256(self, dtype: torch.dtype) -> str:
        """SHA-256 of the matrix (d_out, d_in) in a dtype; of one that is quantised, that of what is stored."""
        return (
            fourbit.sha256(self.module)
            if fourbit.is_packed(self.module)
            else sha256_of(self.matrix().to(dtype))
        )

    def turned(self, stored: Tensor) -> Tensor:
        """A tensor as (d_out, d_in), from how the module stores it."""
        if is_tapped(self.module):
            return side_by_side(self.module, stored)
        return stored.T if isinstance(self.module, Conv1D) else stored

    def stored(self, matrix: Tensor) -> Tensor:
        """The inverse of ``turned``; a view.

        Raises:
            ModelError: the module stores it in 4 bits, which no matrix can be written into.
        """
        if fourbit.is_packed(self.module):
            raise ModelError(
                "a matrix in 4 bits cannot be written; what is added to it is computed beside it"
            )
        if is_tapped(self.module):
            return one_by_one(self.module, matrix)
        return matrix.T if isinstance(self.module, Conv1D) else matrix
