"""From text to token ids: the one rule for everything that a model is given to read.

A text begins with what the tokenizer's post-processor puts in front (usually the BOS token), once, and nothing is put
behind it: a tokenizer may close what it encodes with the end token, and a model that reads it has been told that the
text is over. What a chat template renders brings its own markup, and gets nothing at all (``apply_chat_template``).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from tokenizers.processors import TemplateProcessing

from unlearn.model.library import Tokenizer

ANCHOR = "\n"
"""A text whose tokens hardly ever merge with what follows it."""
_SAMPLES = ("a", "1", "\n", "一")
"""Texts of which any tokenizer has a token for at least one."""


class Encoded(NamedTuple):
    """A text as token ids, and the characters that each of them stands for."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """Per id, a range of characters of the text; an empty one at what the tokenizer adds."""


def encoded(tokenizer: Tokenizer, text: str, rendered: bool = False) -> Encoded:
    """Encode a whole text.

    Args:
        rendered: whether a chat template has written it, markup included.
    """
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    start = [] if rendered else _lacking(tokenizer, made["input_ids"])
    return Encoded((*start, *made["input_ids"]), (*((0, 0) for _ in start), *made["offset_mapping"]))


def text_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a whole text, behind the tokenizer's start token if it has one."""
    ids = plain_ids(tokenizer, text)
    return [*_lacking(tokenizer, ids), *ids]


def _lacking(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """What is still to be put in front of a text: nothing where it brings the start token itself."""
    start = list(start_ids(tokenizer))
    return [] if ids[: len(start)] == start else start


def start_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What the tokenizer's post-processor puts in front of a text: the BOS token, as a rule, or nothing."""
    for sample in _SAMPLES:
        made = tokenizer(sample, return_special_tokens_mask=True)
        added = made["special_tokens_mask"]
        if 0 in added:
            return tuple(made["input_ids"][: len(list(takewhile(bool, added)))])
    return ()


def started(tokenizer: Tokenizer, row: Sequence[int]) -> int:
    """How many of a row's ids, at its beginning, are the tokenizer's start or the BOS token that a chat opens with."""
    start = start_ids(tokenizer)
    if start and tuple(row[: len(start)]) == start:
        return len(start)
    return int(bool(row) and row[0] == tokenizer.bos_token_id)


def opening(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer for a library that lets it add its special tokens: one that closes texts becomes one that does not.

    Returns:
        The tokenizer itself where it puts nothing behind a text, or else a copy.
    """
    start, made = start_ids(tokenizer), tokenizer(_SAMPLES[0])["input_ids"]
    if len(made) == len(start) + len(plain_ids(tokenizer, _SAMPLES[0])):
        return tokenizer
    copied = copy.deepcopy(tokenizer)
    names = tokenizer.convert_ids_to_tokens(start)
    copied.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*names, "$A"], special_tokens=list(zip(names, start, strict=True))
    )
    return copied


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a piece of text, with nothing in front."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def continuation_ids(tokenizer: Tokenizer, text: str, before: str = ANCHOR) -> list[int]:
    """Token ids of a text that goes on from another: those of both together, less those of the other alone.

    Tokenizers of SentencePiece's kind mark the beginning of a text, and a continuation begins none.

    Args:
        before: what it follows; where the two merge into one token at the border, ``ANCHOR`` stands for it.
    """
    for start in (before, ANCHOR):
        head, whole = plain_ids(tokenizer, start), plain_ids(tokenizer, start + text)
        if whole[: len(head)] == head:
            return whole[len(head) :]
    return plain_ids(tokenizer, text)
