"""A model with somebody else's adapter: a folder as `peft` writes it, merged into a copy of the base model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.templates import checked

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


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
        ModelError: the adapter cannot be read, does not fit the model, cannot be merged into its weights, or would
            need a pickle or code to be loaded.
    """
    about = _config(folder)
    if not (folder / WEIGHTS).is_file():
        hint = (
            "; it holds a pickle, which is never loaded" if (folder / "adapter_model.bin").is_file() else ""
        )
        raise ModelError(f"the adapter {folder} has no {WEIGHTS}{hint}: save it with safetensors")
    if about.get("auto_mapping") and about.get("peft_type") is None:
        raise ModelError(f"the adapter {folder} needs code of its own, which is not run")
    tokenizer = _tokenizer(folder) or model.tokenizer
    import peft

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            adapted = peft.PeftModel.from_pretrained(
                model.model, str(folder), is_trainable=False, use_safetensors=True, local_files_only=True
            )
        absent = [str(w.message) for w in said if "missing adapter keys" in str(w.message)]
        if absent:
            raise ModelError(
                f"the adapter {folder} lacks weights for layers of {model.name} that its configuration names; was it "
                "made for another model?"
            )
        if not hasattr(adapted.base_model, "merge_and_unload"):
            kind = about.get("peft_type", "?")
            raise ModelError(
                f"the adapter {folder} is of the kind {kind}, which cannot be merged into weights; audit a LoRA "
                "adapter or a whole model"
            )
        with torch.no_grad():
            merged: Any = adapted.merge_and_unload(safe_merge=True)
    except ModelError:
        raise
    except Exception as problem:  # noqa: BLE001 - a library's errors about a stranger's file: all say that it does not fit
        lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
        first = lines[0] if lines else type(problem).__name__
        raise ModelError(f"the adapter {folder} cannot be put on {model.name}: {first[:240]}") from None
    return EditableModel(merged, tokenizer, str(folder), model.storage_dtype)


def _config(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ModelError(f"{folder / CONFIG} cannot be read: {problem}") from None
    if not isinstance(about, dict):
        raise ModelError(f"{folder / CONFIG} is no adapter configuration: it should hold one JSON object")
    return about


def _tokenizer(folder: Path) -> Any:
    """The tokenizer in the folder; None if it has none."""
    if not (folder / "tokenizer_config.json").is_file():
        return None
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as problem:
        raise ModelError(f"the tokenizer in {folder} cannot be loaded: {problem}") from None
    checked(found)
    return found
