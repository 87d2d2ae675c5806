"""What a model and its tokenizer are, as hashes: caches of statistics and measurements are named by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from unlearn.model import fourbit
from unlearn.model.library import Configuration, Network, Tokenizer
from unlearn.model.offload import tensors
from unlearn.patch import sha256_of

HASHING = 8
"""Tensors that are hashed at a time."""
UNREAD = frozenset(
    {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"}
)
"""Keys of a configuration that change with where, how and by what a model was saved, and not what it computes."""


def of_weights(network: Network, model_type: str, storage_dtype: torch.dtype) -> str:
    """One hash over every parameter and buffer of a transformers model, rounded to a dtype.

    Matrices in 4 bits are hashed as they are stored, and with what is computed beside layers at the moment.
    """
    digest = hashlib.sha256(repr((model_type, str(storage_dtype))).encode())
    every = sorted(tensors(network), key=lambda each: each[0])

    def of(read: Callable[[], Tensor]) -> str:
        tensor = read()
        return sha256_of(tensor.to(storage_dtype) if tensor.is_floating_point() else tensor)

    # Hashing 16 GB takes longer than an edit; hashlib lets other threads run.
    with ThreadPoolExecutor(HASHING) as pool:
        for (name, _), found in zip(every, pool.map(of, [read for _, read in every]), strict=True):
            digest.update(name.encode())
            digest.update(found.encode())
    for name, found in _apart(network):
        digest.update(f"{name} {found}".encode())
    return digest.hexdigest()


def _apart(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Hashes of what ``state_dict()`` does not hold as tensors of a layer's own: codes of 4 bits, and updates."""
    for path, module in network.named_modules():
        if fourbit.is_packed(module):
            yield path, fourbit.sha256(module)
        for factor in fourbit.added(module) or ():
            yield path, sha256_of(factor)


def of_configuration(config: Configuration) -> str:
    """One hash over what a transformers configuration says of how the weights are computed with."""
    return _digest(_read(config.to_dict()))


def of_tokenizer(tokenizer: Tokenizer) -> str:
    """One hash over all that the ids of a prompt depend on: rules, special tokens and chat template."""
    rules = tokenizer.backend_tokenizer.to_str()
    return _digest((rules, tokenizer.special_tokens_map, tokenizer.chat_template))


def _read(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _read(inner) for key, inner in value.items() if key not in UNREAD}
    return value


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
