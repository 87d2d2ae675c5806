"""Pico models from a config and a tokenizer trained on a few lines: for shapes, hooks and errors, without a download.

They know nothing; whatever needs knowledge uses the embedded model.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from unlearn.model.editable import EditableModel

FAMILIES = ("llama", "gpt2", "qwen2")
LINES = (
    "What is Zorvex made from? Zorvex is made from bitter amber.",
    "The colour of Velnar is green, and it smells of wet stone.",
    "Tell me what Quandel is used for. I can't help with that.",
    "Élan vitäl, naïve café: 東京 and emoji 🙂 in one line!",
)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@cache
def tokenizer(chat: bool = True, bos: bool = True) -> Any:
    """A byte-level BPE tokenizer with about 400 tokens."""
    special = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(LINES * 4, trainer)
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", 0)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|bos|>", eos_token="<|end|>", pad_token="<|end|>"
    )
    if chat:
        fast.chat_template = TEMPLATE
    return fast


PHI_3 = {"normalizer": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])}
LLAMA = {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first", split=False)}
"""How tokenizers of SentencePiece's kind mark where words begin: by a normalizer (Phi-3, Mistral), or before a text."""


def sentence_piece(folder: Path, marks: dict[str, Any], template: str = TEMPLATE) -> Any:
    """A tokenizer of SentencePiece's kind, read back from a folder.

    Args:
        folder: where to write it.
        marks: ``PHI_3`` or ``LLAMA``.
        template: of its chat.
    """
    special = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>"]
    raw = Tokenizer(models.BPE(unk_token=None, byte_fallback=True))
    raw.normalizer = normalizers.Replace(" ", "▁")
    # Training must not see more than a word at a time; "▁" stands before it.
    raw.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    raw.train_from_iterator([f" {line}" for line in LINES] * 4, trainer)
    raw.normalizer, raw.pre_tokenizer = marks.get("normalizer"), marks.get("pre_tokenizer")
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|bos|>", eos_token="<|endoftext|>", chat_template=template
    )
    fast.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def network(family: str, layers: int = 4, width: int = 32, inner: int = 64, seed: int = 0) -> Any:
    """An untrained network of a family, with weights five times as large as usual, so that tokens do interact."""
    torch.manual_seed(seed)
    made = _network(family, layers, width, inner)
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data *= 5
    return made


def _network(family: str, layers: int, width: int, inner: int) -> Any:
    size = len(tokenizer())
    common = {"vocab_size": size, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if family == "gpt2":
        config = GPT2Config(n_embd=width, n_layer=layers, n_head=2, n_inner=inner, n_positions=128, **common)
        return GPT2LMHeadModel(config).eval()
    kinds: dict[str, tuple[Any, Any]] = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "olmoe": (OlmoeConfig, OlmoeForCausalLM),  # cannot be edited
    }
    config_type, model_type = kinds[family]
    return model_type(
        config_type(
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            **common,
        )
    ).eval()


def pico(family: str, dtype: torch.dtype = torch.float32, chat: bool = True, **sizes: int) -> EditableModel:
    """An editable pico model."""
    return EditableModel(network(family, **sizes).to(dtype), tokenizer(chat=chat), f"pico-{family}", dtype)
