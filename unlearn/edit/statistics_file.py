"""Key statistics as a file that can be handed on: second moments, and hashes of what they were made of.

Of each layer the second moment alone is in it. What follows from that is computed where the file is read, so that
nothing in it can contradict itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unlearn.edit.statistics import MadeOf, Statistics, decomposed
from unlearn.errors import UnlearnError
from unlearn.files import exists, opened
from unlearn.model.editable import EditableModel
from unlearn.patch import sha256_of

FORMAT = "unlearn-statistics-1"
ABOUT = "statistics"
"""The file's one metadata entry: with several, one content would have many hashes."""
OTHERS = {
    "model": "another model, or other weights of it",
    "dtype": "the model in another dtype",
    "tokenizer": "the model with another tokenizer",
    "corpus": "another corpus",
    "tokens": "another number of tokens",
}
"""What a difference means, by the key of what statistics are made of; of any other, another version."""


def save(path: Path, found: Mapping[int, Statistics], origin: MadeOf) -> None:
    """Write one safetensors file, the same bytes for the same statistics; the folder must exist."""
    tensors = {str(layer): there.second.contiguous() for layer, there in found.items()}
    about = {
        "format": FORMAT,
        "made_of": origin,
        "read": {str(layer): there.tokens for layer, there in found.items()},
        "sha256": {name: sha256_of(tensor) for name, tensor in tensors.items()},
    }
    save_file(tensors, path, metadata={ABOUT: json.dumps(about, sort_keys=True)})


def load(path: Path, model: EditableModel, origin: MadeOf) -> Iterator[tuple[int, Statistics]]:
    """Read a file, layer by layer; whether it fits is known before the first.

    Args:
        model: whose statistics they must be.
        origin: what they must be made of.

    Raises:
        UnlearnError: there is none, it is damaged, or it was made of something else.
    """
    if not exists(path):
        raise UnlearnError(f"there are no key statistics at {path}")
    with opened(path, "the key statistics"):
        pass  # safetensors would wait for whatever a pipe brings
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "null"))
            if not isinstance(about, dict) or about.get("format") != FORMAT:
                raise UnlearnError(f"{path} is no file that `unlearn stats export` wrote")
            _fits(path, about["made_of"], origin)
            read = {int(layer): int(count) for layer, count in about["read"].items()}
            if not read or {str(layer) for layer in read} != set(file.keys()):
                raise ValueError("layers are missing")
            for layer in read:
                _sound(model, layer, file.get_tensor(str(layer)), about["sha256"][str(layer)])
            # The whole file is sound before anybody gets a part of it.
            for layer, count in sorted(read.items()):
                yield layer, decomposed(model, file.get_tensor(str(layer)), count)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError) as problem:
        raise UnlearnError(f"{path} is damaged ({problem}); export or copy it again") from None


def _fits(path: Path, theirs: MadeOf, mine: MadeOf) -> None:
    for key in [*OTHERS, *mine]:
        if theirs.get(key) == mine[key]:
            continue
        other = OTHERS.get(key, "another version of unlearn")
        numbers = f" ({theirs.get(key)}, not {mine[key]})" if key in ("tokens", "dtype") else ""
        raise UnlearnError(
            f"{path} holds key statistics of {other}{numbers} than the policy asks for, so nothing is imported"
        )


def _sound(model: EditableModel, layer: int, second: torch.Tensor, digest: str) -> None:
    width, experts = model.anatomy.width, model.anatomy.experts
    shape = (width, width) if experts == 1 else (experts, width, width)
    if sha256_of(second) != digest:
        raise ValueError(f"the numbers of layer {layer} do not fit their hash")
    if not 0 <= layer < model.anatomy.layers:
        raise ValueError(f"the model has no layer {layer}")
    if second.shape != shape or second.dtype != torch.float64:
        raise ValueError(f"layer {layer} is no float64 matrix of {' by '.join(map(str, shape))}")
    if not torch.isfinite(second).all() or second.diagonal(dim1=-2, dim2=-1).min() < 0:
        raise ValueError(f"layer {layer} is no second moment")
