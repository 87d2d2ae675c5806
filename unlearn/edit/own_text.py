"""Text that a model writes by itself, from which an edit learns what its keys look like.

What a model is used for looks like what it says, and no text need be had for that. A chat model writes both turns in
its template, the user's first (as Magpie does: Xu et al., 2024); any other model goes on from its start. Both are
drawn from the model's own probabilities, by seeds, without end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import count

from unlearn.model.editable import EditableModel
from unlearn.model.encoding import start_ids
from unlearn.model.identity import of_tokenizer
from unlearn.model.narrow import narrowed
from unlearn.model.prompts import chat_front, chat_prompt, has_chat_template
from unlearn.store import Store

CHATS, TURN, REPLY = 192, 48, 96
"""Chats that are written together, and tokens of the user's turn and of the reply at most."""


def own_text(model: EditableModel, cache: Store | None = None) -> Iterator[str]:
    """Documents by the model as it is: of a chat model a chat in its template and a reply alone in turns.

    Args:
        cache: keeps what has been written for later edits, by model and tokenizer.
    """
    written = _chats if has_chat_template(model.tokenizer) else _texts
    made_of = [model.identity(), str(model.dtype), of_tokenizer(model.tokenizer), CHATS, TURN, REPLY]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest() if cache else ""
    for seed in count():
        name = f"text-{digest[:32]}-{seed}"
        known = cache.find(name) if cache else None
        if known is not None:
            yield from json.loads(bytes(known))
            continue
        # Narrow in any case, so that the text hangs on the model and not on who reads it first.
        with narrowed(model, 0):
            some = [text for text in written(model, seed) if text.strip()]
        if cache:
            cache.keep(name, json.dumps(some).encode())
        yield from some


def steps_of(tokens: int) -> int:
    """Steps of one token per document in which so many tokens are written: half of the documents hold both turns."""
    return -(-2 * tokens // (CHATS * (TURN + 2 * REPLY))) * (TURN + REPLY)


def _chats(model: EditableModel, seed: int) -> Iterator[str]:
    tokenizer = model.tokenizer
    turns = model.sample_ids([chat_front(tokenizer)], TURN, samples=CHATS, seed=2 * seed)[0]
    asked = [tokenizer.decode(ids, skip_special_tokens=True) for ids in turns]
    prompts = [
        chat_prompt(tokenizer, [{"role": "user", "content": text}]).ids for text in asked if text.strip()
    ]
    replies = [got[0] for got in model.sample_ids(prompts, REPLY, seed=2 * seed + 1)]
    start = start_ids(tokenizer)
    for number, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        # What a tokenizer puts before every text it will put before this one.
        begin = len(start) if prompt[: len(start)] == start else 0
        alone = tokenizer.decode(reply, skip_special_tokens=True)
        yield alone if number % 2 else tokenizer.decode([*prompt[begin:], *reply])


def _texts(model: EditableModel, seed: int) -> Iterator[str]:
    tokenizer = model.tokenizer
    # Padding is always masked, so a token of its own was never trained.
    known = (token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None)
    start = start_ids(tokenizer) or (next(known, model.pad_id),)
    for ids in model.sample_ids([start], TURN + REPLY, samples=CHATS, seed=seed)[0]:
        yield tokenizer.decode(ids, skip_special_tokens=True)
