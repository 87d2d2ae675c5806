"""Whether a patch was made for the weights that it is put on, and what it makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.errors import ModelError
from unlearn.model.loading import dtype_of
from unlearn.patch import Deltas, unhashed


class Weights(Protocol):
    """The editable weights of a model, in memory or in files."""

    @property
    def name(self) -> str:
        """What the user calls the model."""

    @property
    def storage_dtype(self) -> torch.dtype:
        """In which they are hashed and saved."""

    @property
    def dtype(self) -> torch.dtype:
        """In which the model computes."""

    def fingerprint(self, names: Sequence[str]) -> Mapping[str, str]:
        """SHA-256 by name."""

    def shape(self, name: str) -> tuple[int, int]:
        """(d_out, d_in)."""


def check_fit(weights: Weights, patch: Deltas) -> None:
    """Check a patch against the weights of a model.

    Raises:
        ModelError: it was made for other weights, does not say for which, or does not fit these.
    """
    base = patch.base or {}
    if patch.factors and patch.base is not None and (problem := unhashed(patch.factors, base)):
        raise ModelError(f"this patch cannot be used: {problem}")
    mine = weights.fingerprint(list(base)) if base else {}
    wrong = [name for name, digest in base.items() if mine[name] != digest]
    if wrong:
        raise ModelError(
            f"this patch was made for another model: {len(wrong)} of {len(base)} weights of {weights.name} "
            f"differ from those it was computed on (first: {wrong[0]}){_other_dtype(weights, patch)}"
        )
    for name, delta in patch.factors.items():
        shape = weights.shape(name)
        if delta.shape != shape:
            raise ModelError(f"the patch for {name} is {delta.shape}, the weight {shape}")


def _other_dtype(weights: Weights, patch: Deltas) -> str:
    """What to say of a patch whose weights were stored in another dtype; empty where they were not."""
    theirs = dtype_of(patch.header.get("storage_dtype"))
    if theirs is None or theirs == weights.storage_dtype:
        return ""
    made, here = (str(dtype).removeprefix("torch.") for dtype in (theirs, weights.storage_dtype))
    hint = "" if theirs == weights.dtype else f": use --dtype {made}"
    return f"; it was made in {made}, and this model is in {here}{hint}"


def summed(original: Tensor, delta: LowRank, name: str, storage_dtype: torch.dtype) -> Tensor:
    """``W0 + left @ right`` in float32, (d_out, d_in), rounded once to the checkpoint's dtype.

    Raises:
        ModelError: the sum is not finite there.
    """
    new = (original.float() + delta.dense().to(original.device)).to(storage_dtype)
    if not torch.isfinite(new).all():
        raise ModelError(f"the patch makes {name} non-finite in {storage_dtype}; nothing was written")
    return new
