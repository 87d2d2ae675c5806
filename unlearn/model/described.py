"""What a model's configuration may say: looked at as plain JSON, before a library acts on it.

A configuration can ask for code (attention kernels of the hub), for weights that nobody can edit (quantised ones), for
another file of weights, and for more memory than there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from unlearn.errors import ModelError
from unlearn.model.anatomy import family_of
from unlearn.model.boundary import AGAIN
from unlearn.model.folder import INDEX, SINGLE, Stored
from unlearn.model.library import Configuration
from unlearn.shown import sentence

Config = Mapping[str, object]
"""A JSON object about a model."""

DTYPES = ("float32", "bfloat16", "float16", "float64")
ATTENTION = (None, "eager", "sdpa", "flex_attention")
"""Ways of computing attention that come with the libraries; any other is fetched, or needs a package."""
LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
WIDTHS = (
    "hidden_size",
    "n_embd",
    "intermediate_size",
    "vocab_size",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
)
LENGTHS = ("max_position_embeddings", "n_positions")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
MOST_LAYERS = 10_000
MOST = 2**31 - 1

_OPTIONAL = frozenset({"num_key_value_heads", "head_dim"})


def refuse_requests(path: Path, config: Config) -> None:
    """Refuse a configuration that asks for what a library would fetch, run or unpack.

    Raises:
        ModelError: quantised weights, attention kernels, another file of weights, a dtype that is none, no model type.
    """
    if not isinstance(config.get("model_type"), str):
        raise ModelError(
            f"{path}: model_type is missing, so nobody can say what kind of model this is; {AGAIN}"
        )
    if config.get("transformers_weights") not in (None, SINGLE, INDEX):
        raise ModelError(f"{path}: transformers_weights names another file of weights; save them as {SINGLE}")
    for key, value in _everywhere(config):
        if key in ("quantization_config", "compression_config") and value is not None:
            method = value.get("quant_method") if isinstance(value, dict) else None
            kind = f" ({sentence(method, 40)})" if isinstance(method, str) else ""
            raise ModelError(
                f"{path}: quantization_config{kind}: quantised weights cannot be edited; take the checkpoint in "
                "float32, bfloat16 or float16, and quantise what `unlearn export` writes"
            )
        if key in ("_attn_implementation", "attn_implementation") and value not in ATTENTION:
            raise ModelError(
                f"{path}: {key} asks for {_quoted(value)}, and attention kernels are code that would be fetched; "
                "write sdpa or eager there"
            )
        if key in ("dtype", "torch_dtype") and not _is_dtype(value):
            raise ModelError(
                f"{path}: {key} is {_quoted(value)}, in which no model is edited; it should be float32, bfloat16 or "
                "float16"
            )


def refuse_sizes(path: Path, config: Config) -> None:
    """Refuse sizes that no model has; arguments and errors are those of ``refuse_requests``."""
    for part in _parts(config):
        for key in (*LAYERS, *WIDTHS, *LENGTHS):
            value = part.get(key)
            if key not in part or (value is None and key in _OPTIONAL):
                continue
            most = MOST_LAYERS if key in LAYERS else MOST
            if not is_whole(value) or not 1 <= value <= most:
                raise ModelError(
                    f"{path}: {key} is {_quoted(value)}; it should be a whole number from 1 to {most:,}"
                )
        _refuse_heads(path, part)


def refuse_misfit(path: Path, config: Config, stored: Mapping[str, Stored]) -> None:
    """Refuse sizes that are beyond those of the checkpoint, before anything of that size is made.

    Raises:
        ModelError: more layers than there are tensors, a width above all of theirs, or a padding token without a row.
    """
    widest = max((max(tensor.shape, default=0) for tensor in stored.values()), default=0)
    for part in _parts(config):
        for key in (*LAYERS, *WIDTHS):
            value, most = part.get(key), len(stored) if key in LAYERS else widest
            if is_whole(value) and value > most:
                what = "tensors" if key in LAYERS else "as their greatest width"
                raise ModelError(
                    f"{path}: {key} is {value:,}, and the weights have only {most:,} {what}; {AGAIN}"
                )
        padding, rows = part.get("pad_token_id"), part.get("vocab_size")
        if is_whole(padding) and is_whole(rows) and not -rows <= padding < rows:
            raise ModelError(
                f"{path}: pad_token_id is {padding}, and the embedding has {rows} rows; write null there, since "
                "padding is masked"
            )


def refuse_tokens(path: Path, config: Config) -> None:
    """Refuse special tokens that are not ids; arguments and errors are those of ``refuse_requests``."""
    for key in TOKENS:
        value = config.get(key)
        ids = value if isinstance(value, list) and key == "eos_token_id" else [value]
        if value is not None and not all(is_whole(one) and abs(one) <= LARGEST_ID for one in ids):
            kind = "a token's id, or a list of them" if key == "eos_token_id" else "a token's id"
            raise ModelError(f"{path}: {key} is {_quoted(value)}; it should be {kind}, or null")


LARGEST_ID = 2**63 - 1
"""Ids are kept as numbers of 64 bits."""


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value of a JSON object is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse_heads(path: Path, part: Config) -> None:
    heads = part.get("num_attention_heads", part.get("n_head"))
    groups, width = part.get("num_key_value_heads"), part.get("hidden_size", part.get("n_embd"))
    if is_whole(heads) and is_whole(groups) and heads % groups:
        raise ModelError(
            f"{path}: {heads} attention heads cannot share {groups} heads of keys and values evenly"
        )
    if is_whole(heads) and is_whole(width) and part.get("head_dim") is None and width % heads:
        raise ModelError(f"{path}: a width of {width} cannot be divided among {heads} attention heads")


def _parts(config: Config) -> Iterator[Config]:
    """The configuration, and inside it that of a multimodal model's language model."""
    yield config
    inner = config.get("text_config")
    if isinstance(inner, dict):
        yield inner


def _everywhere(value: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield from one.items()
            left += one.values()
        elif isinstance(one, list):
            left += one


def _is_dtype(value: object) -> bool:
    return value is None or (value in DTYPES)


def _quoted(value: object) -> str:
    return sentence(repr(value), 80)


def refuse_missing(missing: Sequence[str], name: str) -> None:
    """Refuse a checkpoint that lacks weights: transformers would draw them at random."""
    if missing:
        raise ModelError(
            f"the checkpoint of {name} lacks {len(missing)} weights (first: {missing[0]}); fetch or save it anew"
        )


def refuse_blocks_left_out(path: Path, config: Configuration, unread: Iterable[str]) -> None:
    """Refuse weights of blocks beyond the configuration's: without them a model says something else."""
    blocks = family_of(config).blocks.rpartition(".")[2]
    layers = config.get_text_config().num_hidden_layers
    for key in sorted(unread):
        found = re.search(rf"(?:^|\.){blocks}\.(\d+)\.", key)
        if found and int(found[1]) >= layers:
            raise ModelError(
                f"{path}: num_hidden_layers is {layers}, and the weights go on with {key}; {AGAIN}"
            )
