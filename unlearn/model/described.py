"""What a model's configuration may say: looked at as plain JSON, before a library acts on it.

A configuration can ask for code (attention kernels of the hub), for weights that nobody can edit (most that are
quantised), for another file of weights, and for more memory than there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from torch import nn
from transformers.pytorch_utils import Conv1D

from unlearn.errors import ModelError
from unlearn.model.anatomy import FAMILIES, family_of
from unlearn.model.boundary import AGAIN
from unlearn.model.folder import FOUR_BITS, INDEX, SINGLE, Stored
from unlearn.model.library import Configuration
from unlearn.shown import sentence

Config = Mapping[str, object]
"""A JSON object about a model."""

DTYPES = ("float32", "bfloat16", "float16", "float64")
ATTENTION = (None, "eager", "sdpa", "flex_attention")
"""Ways of computing attention that come with the libraries; any other is fetched, or needs a package."""
QUANTISED = "quantization_config"
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

_USUAL: Mapping[str, tuple[object, ...]] = {
    "bnb_4bit_quant_type": (None, "fp4", "nf4"),
    "bnb_4bit_quant_storage": (None, "uint8"),
    "bnb_4bit_compute_dtype": (None, "float32", "bfloat16", "float16"),
    "bnb_4bit_use_double_quant": (None, False, True),
    "llm_int8_enable_fp32_cpu_offload": (None, False),
    "llm_int8_has_fp16_weight": (None, False),
}
"""Of bitsandbytes' settings for 4 bits, what they may be; without a value they are the library's own."""
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
            accepted = in_four_bits(config) and value is config[QUANTISED]
            if not (accepted and isinstance(value, dict)):
                raise _quantised(path, value)
            _refuse_unusual(path, config, value)
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


def in_four_bits(config: Config) -> bool:
    """Whether a configuration says that matrices are stored in 4 bits by bitsandbytes."""
    said = config.get(QUANTISED)
    if not isinstance(said, dict) or said.get("quant_method") != "bitsandbytes":
        return False
    return said.get("load_in_4bit") is True and not said.get("load_in_8bit")


def _quantised(path: Path, value: object) -> ModelError:
    method = value.get("quant_method") if isinstance(value, dict) else None
    kind = f" ({sentence(method, 40)})" if isinstance(method, str) else ""
    return ModelError(
        f"{path}: {QUANTISED}{kind}: weights that are quantised so cannot be edited; take the checkpoint in float32, "
        "bfloat16 or float16, and quantise what `unlearn export` writes, or one in 4 bits of bitsandbytes"
    )


def _refuse_unusual(path: Path, config: Config, said: Config) -> None:
    """Refuse what a quantisation in 4 bits may ask for besides, and a kind of model that nobody has tried it on."""
    family = FAMILIES.get(str(config["model_type"]))
    if family is not None and family.experts:
        raise ModelError(
            f"{path}: {QUANTISED}: this is a mixture of experts ({config['model_type']}), and none of these is edited "
            "in 4 bits; take the checkpoint that it was quantised from"
        )
    for key, usual in _USUAL.items():
        if said.get(key) not in usual:
            raise ModelError(
                f"{path}: {QUANTISED}: {key} is {_quoted(said[key])}; of weights in 4 bits it should be "
                f"{' or '.join(str(one) for one in usual if one is not None)}"
            )
    skipped = said.get("llm_int8_skip_modules")
    if skipped is not None and not (
        isinstance(skipped, list) and all(isinstance(one, str) for one in skipped)
    ):
        raise ModelError(
            f"{path}: {QUANTISED}: llm_int8_skip_modules should be a list of names of modules, or null"
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


def refuse_unlike(path: Path, empty: nn.Module, stored: Mapping[str, Stored]) -> None:
    """Refuse weights of other sizes than the configuration's, before memory for any of them is asked for."""
    for key, wanted in empty.state_dict().items():
        shape = tuple(wanted.shape)
        # In 4 bits they are all stored as (d_out, d_in), those of GPT-2 as well.
        turned = key in stored and stored[key].dtype in FOUR_BITS and _is_turned(empty, key)
        shape = shape[::-1] if turned else shape
        if key in stored and stored[key].shape != shape:
            raise ModelError(
                f"{stored[key].file}: {key} has the shape {stored[key].shape}, and by {path} it has {shape}; {AGAIN}"
            )
    needed = sum(parameter.numel() for parameter in empty.parameters())
    held = sum(tensor.numbers for tensor in stored.values())
    if needed > 2 * held:  # what it lacks otherwise has names, which are said once it is loaded
        raise ModelError(
            f"{path} describes a model of {needed:,} parameters, and its weights are {held:,}; {AGAIN}"
        )


def _is_turned(network: nn.Module, key: str) -> bool:
    return isinstance(network.get_submodule(key.rpartition(".")[0]), Conv1D)


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


def missing(empty: nn.Module, blocks: str, stored: Iterable[str]) -> list[str]:
    """Parameters of a model's blocks that its checkpoint lacks, whatever the blocks are called there.

    Args:
        empty: the model, without memory behind its weights.
        blocks: path of its blocks.
        stored: names of the checkpoint's tensors.
    """
    split = [key.split(".") for key in stored]
    endings = {".".join(parts[at:]) for parts in split for at in range(len(parts))}
    inside = [name for name, _ in empty.named_parameters() if name.startswith(f"{blocks}.")]
    before = f"{blocks.rpartition('.')[0]}."
    return sorted(name for name in inside if name.removeprefix(before) not in endings)


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
