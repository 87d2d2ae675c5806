"""A pico model of every family, from a config: 3 layers, 32 wide, with the family's peculiarities switched on.

Windows are shorter than the rows, every other layer has no positions (SmolLM3), logits are capped where the family caps
them, and biases and norm weights are random, so that a pass that forgets one of them gives other numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests import pico

LAYERS, WIDTH, INNER, WINDOW = 3, 32, 48, 4
EXPERTS, EACH = 4, 12
"""Experts of a mixture, and how wide each is: all together as wide as an MLP."""
_GATED: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_GEMMA: dict[str, Any] = {**_GATED, "head_dim": 8}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
_LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 28,
    "patch_size": 14,
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_inner": INNER, "n_positions": 64}),
    "gptj": (
        "gptj",
        {
            "n_embd": WIDTH,
            "n_layer": LAYERS,
            "n_head": 2,
            "n_inner": INNER,
            "n_positions": 64,
            "rotary_dim": 8,
        },
    ),
    "pythia": ("gpt_neox", {**_GATED, "rotary_pct": 0.25}),
    "neox-serial": ("gpt_neox", {**_GATED, "use_parallel_residual": False}),
    "llama": ("llama", {**_GATED, "attention_bias": True, "mlp_bias": True}),
    "llama-3.2": ("llama", {**_GATED, "rope_parameters": _LLAMA_3_ROPE, "tie_word_embeddings": True}),
    "mistral": ("mistral", {**_GATED, "sliding_window": WINDOW}),
    "qwen2": (
        "qwen2",
        {**_GATED, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {**_GEMMA, "tie_word_embeddings": True}),
    "phi": ("phi", {**_GATED, "qk_layernorm": True}),
    "phi3": ("phi3", {**_GATED, "sliding_window": WINDOW}),
    "smollm3": (
        "smollm3",
        {
            **_GATED,
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "layer_types": _MIXED,
        },
    ),
    "granite": (
        "granite",
        {
            **_GATED,
            "residual_multiplier": 0.22,
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "attention_multiplier": 0.25,
            "mlp_bias": True,
        },
    ),
    "gemma": ("gemma", _GEMMA),
    "gemma2": (
        "gemma2",
        {
            **_GEMMA,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 8,
        },
    ),
    "gemma3-text": ("gemma3_text", {**_GEMMA, "sliding_window": WINDOW, "layer_types": _MIXED}),
    "gemma3": (
        "gemma3",
        {
            "text_config": {**_GEMMA, "sliding_window": WINDOW, "layer_types": _MIXED, "vocab_size": 400},
            "vision_config": _VISION,
            "mm_tokens_per_image": 4,
        },
    ),
    "olmo2": ("olmo2", _GATED),
    "qwen3-moe": (
        "qwen3_moe",
        {
            **_GEMMA,
            "moe_intermediate_size": EACH,
            "num_experts": EXPERTS,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
    ),
    "mixtral": (
        "mixtral",
        {**_GATED, "intermediate_size": EACH, "num_local_experts": EXPERTS, "sliding_window": WINDOW},
    ),
    "gpt-oss": (
        "gpt_oss",
        {
            **_GEMMA,
            "intermediate_size": EACH,
            "num_local_experts": EXPERTS,
            "num_experts_per_tok": 2,
            "sliding_window": WINDOW,
            "layer_types": _MIXED,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        },
    ),
}
"""By the name of a case: ``config.model_type`` and what to change in its configuration."""

MIXTURES = ("qwen3-moe", "mixtral", "gpt-oss")
"""The cases of mixtures of experts."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "olmoe": ({**_GATED, "num_experts": 4}, "mixtures of experts"),
    "qwen2_moe": ({**_GATED, "num_experts": 4}, "mixtures of experts"),
    "t5": ({}, "encoder-decoders"),
    "qwen2_5_vl": ({}, "multimodal"),
    "mamba": ({}, "this version knows gemma, gemma2, .*qwen3, .*smollm3"),
    "bloom": ({}, "this version knows gemma, gemma2"),
}
"""By ``config.model_type``: a configuration that is not edited, and what the refusal says."""


def config(model_type: str, changes: dict[str, Any]) -> Any:
    """A configuration with the pico tokenizer's vocabulary."""
    size = len(pico.tokenizer())
    common = {"vocab_size": size, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if "text_config" in changes:
        changes = {**changes, "text_config": {**changes["text_config"], **common}}
        common = {}
    return AutoConfig.for_model(model_type, **{**common, **changes})


def network(case: str, seed: int = 0) -> Any:
    """An untrained network of a case, float32, with weights so large that tokens do interact."""
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config(*CASES[case])).eval()
    for name, parameter in made.named_parameters():
        if "vision" in name:
            continue
        if parameter.dim() > 1:
            parameter.data *= 12
        else:  # biases from zero, norms from one
            parameter.data += 0.3 * torch.randn_like(parameter)
    return made


@cache
def kept(case: str) -> Any:
    """One editable model per case for all tests that put it back."""
    from unlearn.model.editable import EditableModel

    return EditableModel(network(case), pico.tokenizer(), f"pico-{case}")
