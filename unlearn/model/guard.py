"""A system prompt that stands before everything a model is asked, as a tokenizer: the weights stay as they are.

Prompts are built from the tokenizer alone (``unlearn.model.prompts``, chat templates in lm-eval), so a guarded copy of
it reaches all of them. Chat questions get the text as a system turn: the chat template itself is extended, so that a
saved tokenizer keeps the guard. What is no chat (a statement to complete, a base model) gets it as leading text.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence

from unlearn.errors import ModelError
from unlearn.model.encoding import Tokenizer, plain_ids, started
from unlearn.model.templates import attempted, headed

GAP = "\n\n"
"""Between the guard and what follows it, wherever the two share a turn or a text."""
_TEXT, _TURN = "unlearn_guard", "unlearn_guard_turn"


def guarded(tokenizer: Tokenizer, text: str) -> Tokenizer:
    """A copy of a tokenizer that puts a system prompt before everything.

    Args:
        tokenizer: a fast tokenizer, with or without a chat template; left alone.

    Raises:
        ModelError: the chat template drops both a system turn and the head of a user turn.
    """
    made = copy.deepcopy(tokenizer)
    setattr(made, _TEXT, text)
    setattr(made, _TURN, text + GAP)
    if not getattr(tokenizer, "chat_template", None):
        return made
    asked = [{"role": "user", "content": "?"}]
    for first in (_system_turn(text), _user_turn(text)):
        made.chat_template = headed(tokenizer, first)
        full = attempted(made, asked, opened=False)
        if text.strip() not in full:
            continue
        bos = tokenizer.bos_token or ""
        plain = attempted(tokenizer, asked, opened=False).removeprefix(bos)
        if full.endswith(plain):  # the guard is a turn of its own
            setattr(made, _TURN, full.removeprefix(bos).removesuffix(plain))
        return made
    raise ModelError(
        "the chat template of this model drops a system prompt; the guard cannot stand in a chat"
    )


def text_of(tokenizer: Tokenizer) -> str | None:
    """The system prompt of a guarded tokenizer; None for any other."""
    return getattr(tokenizer, _TEXT, None)


def behind_guard(tokenizer: Tokenizer, text: str) -> str:
    """A text that is no chat, behind the system prompt of a guarded tokenizer; as it stands for any other."""
    guard = text_of(tokenizer)
    return text if guard is None else guard + GAP + text


def leading_ids(tokenizer: Tokenizer, row: Sequence[int]) -> tuple[int, ...]:
    """What a guarded tokenizer puts into a row of ids, after its start token if it has one; nothing for any other one.

    A row that begins with the markup of a chat gets a system turn (a second one, if it has one), another the text.
    """
    text = text_of(tokenizer)
    if text is None:
        return ()
    body = row[started(tokenizer, row) :]
    chat = bool(body) and body[0] in tokenizer.get_added_vocab().values()
    return tuple(plain_ids(tokenizer, getattr(tokenizer, _TURN) if chat else text + GAP))


def _literal(text: str) -> str:
    """A string literal of Jinja, which reads the escapes of Python's; JSON's are among them."""
    return json.dumps(text, ensure_ascii=False)


def _system_turn(text: str) -> str:
    """Jinja that adds a system turn, or puts the guard at the head of the one that is there."""
    return (
        "{% if messages and messages[0]['role'] == 'system' %}"
        "{% set messages = [{'role': 'system', 'content': "
        + _literal(text + GAP)
        + " + messages[0]['content']}] + messages[1:] %}{% else %}"
        "{% set messages = [{'role': 'system', 'content': " + _literal(text) + "}] + messages %}{% endif %}"
    )


def _user_turn(text: str) -> str:
    """Jinja for templates without a system turn (Gemma): the guard stands at the head of the first turn."""
    return (
        "{% set messages = [{'role': messages[0]['role'], 'content': "
        + _literal(text + GAP)
        + " + messages[0]['content']}] + messages[1:] %}"
    )
