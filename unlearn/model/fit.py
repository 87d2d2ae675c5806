"""Whether a patch was made for the weights that it is put on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearn.errors import ModelError
from unlearn.model.loading import dtype_of
from unlearn.patch import Deltas, unhashed

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel


def check_fit(model: EditableModel, patch: Deltas) -> None:
    """Check a patch against the weights of a model.

    Raises:
        ModelError: it was made for other weights, does not say for which, or does not fit these.
    """
    base = patch.base or {}
    if patch.factors and patch.base is not None and (problem := unhashed(patch.factors, base)):
        raise ModelError(f"this patch cannot be used: {problem}")
    mine = model.fingerprint(list(base)) if base else {}
    wrong = [name for name, digest in base.items() if mine[name] != digest]
    if wrong:
        raise ModelError(
            f"this patch was made for another model: {len(wrong)} of {len(base)} weights of {model.name} "
            f"differ from those it was computed on (first: {wrong[0]}){_other_dtype(model, patch)}"
        )
    for name, delta in patch.factors.items():
        shape = tuple(model.weight(name).shape)
        if delta.shape != shape:
            raise ModelError(f"the patch for {name} is {delta.shape}, the weight {shape}")


def _other_dtype(model: EditableModel, patch: Deltas) -> str:
    """What to say of a patch whose weights were stored in another dtype; empty where they were not."""
    theirs = dtype_of(patch.header.get("storage_dtype"))
    if theirs is None or theirs == model.storage_dtype:
        return ""
    made, here = (str(dtype).removeprefix("torch.") for dtype in (theirs, model.storage_dtype))
    hint = "" if theirs == model.dtype else f": use --dtype {made}"
    return f"; it was made in {made}, and this model is in {here}{hint}"
