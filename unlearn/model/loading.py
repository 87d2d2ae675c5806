"""From what the user calls a model to the transformers model, its tokenizer and the dtype of its checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from unlearn import embedded
from unlearn.errors import ModelError, PolicyError
from unlearn.model.anatomy import family_of
from unlearn.policy import EMBEDDED

CONTROL = "embedded-control"
"""The name of the other model that ships with this package: trained in the same way, without the hazard's facts."""


def loaded(
    name: str, device: str, dtype: str, trust_remote_code: bool, made_in: str | None
) -> tuple[Any, Any, torch.dtype]:
    """Load a model from safetensors; arguments and errors are those of ``EditableModel.load``.

    Returns:
        The model on its device, its tokenizer, and the dtype of the checkpoint, or the narrower one that it was loaded
        in.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = str(embedded.path(name == CONTROL)) if name in (EMBEDDED, CONTROL) else name
    if dtype != "auto" and dtype_of(dtype) is None:
        raise PolicyError(f"--dtype {dtype}: use auto, float32, bfloat16 or float16")
    device = _device(device)
    options = {"trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(where, **options)
        family_of(config)  # refused before its weights are fetched and read
        stored = dtype_of(getattr(config, "dtype", None)) or torch.float32
        narrow = dtype_of(made_in)
        if narrow is not None and torch.promote_types(narrow, stored) == narrow:
            narrow = None
        wanted = dtype_of(dtype) or narrow or (torch.float32 if device == "cpu" else stored)
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        model, loading = AutoModelForCausalLM.from_pretrained(
            where, dtype=wanted, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
        if isinstance(problem, torch.cuda.OutOfMemoryError):
            raise _too_large(name, device) from None
        first = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        hint = (
            "" if Path(where).exists() else "; is it a local folder, or a hub id that this machine can reach?"
        )
        raise ModelError(f"cannot load the model {name!r}: {first}{hint}") from None
    missing = sorted(loading["missing_keys"])
    if missing:  # transformers would draw them at random
        raise ModelError(
            f"the checkpoint of {name} lacks {len(missing)} weights (first: {missing[0]}); fetch or save it anew"
        )
    # Where the dtype in use does not hold every number of the checkpoint, it is what is edited and saved.
    exact = torch.promote_types(wanted, stored) == wanted
    try:
        return model.to(device), tokenizer, stored if exact else wanted
    except torch.cuda.OutOfMemoryError:
        raise _too_large(name, device) from None


def dtype_of(name: Any) -> torch.dtype | None:
    """The dtype that a name, such as ``bfloat16`` or ``torch.bfloat16``, stands for; None for one of no model."""
    if isinstance(name, torch.dtype):
        return name
    found = getattr(torch, str(name).removeprefix("torch."), None) if name is not None else None
    return found if found in (torch.float32, torch.bfloat16, torch.float16) else None


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise PolicyError(f"--device {name}: use auto, cpu, cuda, or cuda and a number such as cuda:1")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: this machine has no CUDA device; use --device cpu")
    return name


def _too_large(name: str, device: str) -> ModelError:
    return ModelError(f"{name} does not fit on {device}; use a larger device or --dtype bfloat16")
