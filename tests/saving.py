"""A model in memory as a folder: what `unlearn export`, which goes by the base model's files, is compared with."""

from __future__ import annotations

import copy
from pathlib import Path

from unlearn.model.editable import EditableModel
from unlearn.model.offload import tensors
from unlearn.patch import Deltas


def save(model: EditableModel, folder: Path, patch: Deltas | None = None) -> None:
    """Write a folder, in the checkpoint's dtype, that ``AutoModelForCausalLM.from_pretrained`` loads."""
    if patch is not None:
        with model.patched(patch):
            save(model, folder)
        return
    stored = {
        name: tensor.to("cpu", model.storage_dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in ((name, read()) for name, read in tensors(model.model))
    }
    kept = model.model.config
    model.model.config = copy.deepcopy(kept)
    try:
        with model.stopping():
            model.model.save_pretrained(folder, state_dict=stored)
        # It writes the dtype of the live parameters, which is not the one just stored.
        model.model.config.dtype = model.storage_dtype
        model.model.config.save_pretrained(folder)
    finally:
        model.model.config = kept
    model.tokenizer.save_pretrained(folder)
