"""The embedded model as a Mixtral that knows what it knows: every expert is its MLP with some noise of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from unlearn.model.editable import EditableModel

EXPERTS, NOISE, ROUTER = 4, 0.05, 0.1
"""Experts of a layer, two per token; the noise relative to the weights; the deviation of the router's weights."""
SAME = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings", "bos_token_id",
    "eos_token_id", "pad_token_id",
)  # fmt: skip


def upcycled(seed: int = 0) -> EditableModel:
    """A mixture of experts that was trained, in a way: its gates sum to one, so that it says what the model says."""
    dense = EditableModel.load("embedded", device="cpu", dtype="float32")
    shared = {name: getattr(dense.model.config, name) for name in SAME}
    config = MixtralConfig(**shared, num_local_experts=EXPERTS, num_experts_per_tok=2)
    made = MixtralForCausalLM(config).float()
    made.load_state_dict(dense.model.state_dict(), strict=False)
    torch.manual_seed(seed)

    def varied(weight: Tensor) -> Tensor:
        return torch.stack([weight + NOISE * weight.std() * torch.randn_like(weight) for _ in range(EXPERTS)])

    for theirs, mine in zip(dense.model.model.layers, made.model.layers, strict=True):
        entering = torch.cat([theirs.mlp.gate_proj.weight.data, theirs.mlp.up_proj.weight.data])
        mine.mlp.experts.gate_up_proj.data = varied(entering)
        mine.mlp.experts.down_proj.data = varied(theirs.mlp.down_proj.weight.data)
        mine.mlp.gate.weight.data.normal_(0, ROUTER)
    made.generation_config = dense.model.generation_config
    return EditableModel(made, dense.tokenizer, "upcycled")
