"""What a manifest says of a model: its name, its hashes, and what it ran on."""

from __future__ import annotations

from dataclasses import asdict

import torch

from unlearn.model.editable import EditableModel
from unlearn.model.gguf import origin_of


def base_of(model: EditableModel) -> dict[str, object]:
    """Describe the unedited model for a manifest: JSON values."""
    config = model.model.config
    origin = origin_of(config.to_dict())
    return {
        "name": model.name,
        "revision": getattr(config, "_commit_hash", None),
        "family": str(getattr(config, "model_type", "")),
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "tokenizer": model.tokenizer_of,
        "identity": model.identity(),
        "weights": model.fingerprint(),
        **({} if origin is None else {"origin": asdict(origin)}),
    }


def device_in_words(model: EditableModel) -> str:
    """Return "cpu", or the name of the graphics processor that the model is on."""
    if model.device.type == "cuda":
        return str(torch.cuda.get_device_name(model.device))
    return str(model.device)


def dtype_in_words(model: EditableModel) -> str:
    """Return the dtype that the model computes in, such as "bfloat16"."""
    return str(model.dtype).removeprefix("torch.")
