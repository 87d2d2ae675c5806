"""A model with somebody else's adapter: a folder as `peft` writes it, merged into a copy of the base model."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from unlearn.errors import ModelError
from unlearn.model import adapter_file
from unlearn.model import folder as folders
from unlearn.model.adapter_file import WEIGHTS
from unlearn.model.boundary import reading
from unlearn.model.editable import EditableModel
from unlearn.model.folder import ADAPTER as CONFIG
from unlearn.model.library import Network
from unlearn.model.loading import place_of, tokenizer_in

__all__ = ["CONFIG", "WEIGHTS", "is_adapter", "with_adapter"]


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter: peft's configuration, and not a whole model beside it."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def with_adapter(model: EditableModel, folder: Path) -> EditableModel:
    """Merge an adapter into a model, in the dtype that the model computes in.

    Args:
        model: a copy of the model that the adapter was made for, to be used for nothing else afterwards: its weights
            are changed.
        folder: with ``adapter_config.json`` and ``adapter_model.safetensors``. A tokenizer beside them takes the place
            of the model's own.

    Returns:
        The edited model, under the folder's name.

    Raises:
        ModelError: the adapter cannot be read, was made for another model, does not fit this one, cannot be merged into
            its weights, or would need a pickle or code to be loaded.
    """
    folders.look_through(folder)
    about, stored = adapter_file.read_adapter(folder)
    adapter_file.refuse_other_base(folder, about, (model.name, place_of(model.name)))
    adapter_file.refuse_strange(folder, about, stored, model.model, model.name)
    own = (folder / "tokenizer_config.json").is_file()
    tokenizer = tokenizer_in(folder, str(folder), code=False) if own else model.tokenizer
    with reading(str(folder), f"it cannot be put on {model.name}", outcome="cannot use the adapter"):
        merged = _merged(model, folder)
    return EditableModel(merged, tokenizer, str(folder), model.storage_dtype)


def _merged(model: EditableModel, folder: Path) -> Network:
    import peft

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted = peft.PeftModel.from_pretrained(
            model.model, str(folder), is_trainable=False, use_safetensors=True, local_files_only=True
        )
    if any("missing adapter keys" in str(one.message) for one in said):
        raise ModelError(
            f"the adapter {folder} lacks weights for layers of {model.name} that its configuration names; was it "
            "made for another model?"
        )
    with torch.no_grad():
        return adapted.merge_and_unload(safe_merge=True)
