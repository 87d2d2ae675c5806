"""Tokenizers as they differ between families: what stands around a text, how words are marked, how a chat is put."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import processors

from tests import pico


@dataclass(frozen=True)
class Kind:
    """One way to be a tokenizer."""

    words: str
    """``bytes`` (byte-level BPE), ``normalizer`` or ``first`` (two ways of SentencePiece)."""
    start: tuple[str, ...] = ()
    """What the post-processor puts in front of a text."""
    end: tuple[str, ...] = ()
    """What it puts behind."""
    template: str | None = None
    """Of a chat; None for a base model."""
    named: bool = False
    """Whether the template is the default one among several with names."""
    system: bool = True
    """Whether it takes a system turn."""


BOS = "<|bos|>"
_TURN = "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n"
_ASKS = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"


def _chat(turn: str = _TURN, head: str = "", asks: str = _ASKS) -> str:
    return head + "{% for m in messages %}" + turn + "{% endfor %}" + asks


MARKUP = _chat()
"""Turns in markup, and no start token (ChatML)."""
BEGUN = _chat(head="{{ bos_token }}")
"""The same behind a start token."""
DEFAULT_SYSTEM = _chat(
    head="{% if messages[0].role != 'system' %}<|system|>\nYou are kind.<|end|>\n{% endif %}"
)
"""A system turn of the template's own where the conversation has none."""
NO_SYSTEM = _chat(
    head="{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
    turn="<|{{ 'assistant' if m.role == 'assistant' else 'user' }}|>\n{{ m.content | trim }}<|end|>\n",
)
"""A system turn is refused; contents are trimmed."""
BRACKETS = _chat(
    head="{{ bos_token }}",
    turn="{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% elif m.role == 'system' %}[SYS] {{ m.content }} [/SYS]{% else %}[INST] {{ m.content }} [/INST]{% endif %}",
    asks="",
)
"""Brackets in plain text, and nothing that opens a reply."""
SPACED = _chat(turn=" <|{{ m.role }}|> {{ m.content }} <|end|> ", asks=" <|assistant|> ")
"""Spaces around everything."""
THINKS = _chat(
    asks="{% if add_generation_prompt %}<|assistant|>\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Thoughts that an argument switches off."""
THINKING = _chat(asks="{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}")
"""A reply that opens with thoughts."""
PLAIN = _chat(turn="{{ m.role | capitalize }}: {{ m.content }}\n", asks="Assistant:")
"""No markup at all."""
CHATS = (MARKUP, BEGUN, DEFAULT_SYSTEM, NO_SYSTEM, BRACKETS, SPACED, THINKS, THINKING, PLAIN)

FAMILIES = {
    "gpt2": Kind("bytes"),
    "gptj": Kind("bytes"),
    "gpt_neox": Kind("bytes"),
    "llama 2": Kind("normalizer", (BOS,), template=BRACKETS),
    "llama 3": Kind("bytes", (BOS,), template=BEGUN),
    "mistral": Kind("first", (BOS,), template=BRACKETS),
    "mistral closed": Kind("first", (BOS,), ("<|endoftext|>",), template=BRACKETS),
    "qwen2": Kind("bytes", template=DEFAULT_SYSTEM),
    "qwen3": Kind("bytes", template=THINKS),
    "phi": Kind("bytes"),
    "phi3": Kind("normalizer", (BOS,), template=MARKUP),
    "smollm3": Kind("bytes", template=THINKS),
    "granite": Kind("bytes", template=MARKUP, named=True),
    "gemma": Kind("normalizer", (BOS,), template=NO_SYSTEM, system=False),
    "gemma2": Kind("normalizer", (BOS,), template=NO_SYSTEM, system=False),
    "gemma3_text": Kind("normalizer", (BOS,), template=BEGUN),
    "gemma3": Kind("normalizer", (BOS,), template=BEGUN),
    "olmo2": Kind("bytes", template=BEGUN),
    "qwen3_moe": Kind("bytes", template=THINKS),
    "mixtral": Kind("first", (BOS,), template=BRACKETS),
    "gpt_oss": Kind("bytes", template=DEFAULT_SYSTEM),
}
"""By family, in its manner: made here, small, and with the habits that its tokenizers have."""

KINDS = st.builds(
    Kind,
    words=st.sampled_from(["bytes", "normalizer", "first"]),
    start=st.sampled_from([(), (BOS,), ("<|user|>",), ("<|user|>", BOS)]),
    end=st.sampled_from([(), ("<|end|>",), ("<|end|>", "<|user|>")]),
    template=st.sampled_from([None, *CHATS]),
    named=st.booleans(),
).map(lambda kind: Kind(**{**vars(kind), "system": kind.template != NO_SYSTEM}))
"""Any of them."""


@cache
def _raw(words: str) -> Any:
    if words == "bytes":
        return pico.tokenizer(chat=False)
    marks = {"normalizer": pico.PHI_3, "first": pico.LLAMA}[words]
    with tempfile.TemporaryDirectory() as folder:
        return pico.sentence_piece(Path(folder), marks)


@cache
def tokenizer(kind: Kind) -> Any:
    """A tokenizer of a kind."""
    made = copy.deepcopy(_raw(kind.words))
    around = [*kind.start, *kind.end]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*kind.start, "$A", *kind.end],
        special_tokens=list(zip(around, made.convert_tokens_to_ids(around), strict=True)),
    )
    made.chat_template = kind.template
    if kind.named and kind.template is not None:
        made.chat_template = {"tool_use": "{{ 'tools' }}", "default": kind.template}
    return made
