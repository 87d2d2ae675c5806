"""GGUF files of pico models, written as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType
from gguf.quants import quantize

from tests import pico

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
IN_A_BLOCK = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write(
    path: Path,
    extra: dict[str, np.ndarray] | None = None,
    quantised: bool = False,
    tokenizer: bool = True,
    rope: RopeScalingType | None = None,
) -> Any:
    """Write a pico Llama as a GGUF file, and return the network that it was made from.

    Args:
        path: of the file.
        extra: further tensors, by name.
        quantised: the down-projections as Q8_0, as a released file would have them.
        tokenizer: with one, as a released file has.
        rope: how positions are scaled, by a factor of 8.
    """
    network = pico.network("llama")
    config = network.config
    writer = GGUFWriter(path, "llama")
    writer.add_name("pico")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if rope is not None:
        writer.add_rope_scaling_type(rope)
        writer.add_rope_scaling_factor(1.0 if rope == RopeScalingType.NONE else 8.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        _add_tokenizer(writer)
    for name, tensor in network.state_dict().items():
        values = tensor.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                values = _rotated(values, heads)
        if quantised and "down_proj" in name:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(_name(name), quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(_name(name), np.ascontiguousarray(values))
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return network


def _add_tokenizer(writer: GGUFWriter) -> None:
    tokenizer = pico.tokenizer()
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = set(tokenizer.all_special_tokens) | {"<|user|>", "<|assistant|>", "<|system|>"}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in rules["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(True)
    writer.add_chat_template(pico.TEMPLATE)


def _rotated(values: np.ndarray, heads: int) -> np.ndarray:
    """Query and key rows in the order that llama.cpp keeps them: halves of a head side by side become pairs."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    inner, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{IN_A_BLOCK[inner]}.{kind}"
