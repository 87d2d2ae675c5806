"""From a policy's prompt template to token ids, and to the look-up token inside them.

Ids are built by concatenation and positions come from offset mappings; what a text becomes is tokenised behind what it
follows. A *question* (it ends in ``?``, ``.`` or ``!``) is asked in the tokenizer's chat template, when it has one; a
*statement* is a text to complete and is never put into a template, so that it probes what the model writes next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unlearn.errors import ModelError
from unlearn.model.cached import shared_front
from unlearn.model.encoding import Encoded, Tokenizer, continuation_ids, encoded
from unlearn.model.guard import behind_guard
from unlearn.model.templates import MARK, rendered
from unlearn.model.thinking import leaving
from unlearn.policy import is_question

SLOT = "{subject}"
"""Where a template takes its subject."""


@dataclass(frozen=True)
class Prompt:
    """A prompt that is ready to be fed: nothing is added to its ids later on."""

    text: str
    """The text behind the ids, markup of the chat template included."""
    ids: tuple[int, ...]
    """Token ids, with a start token where a server's prompt has one (``unlearn.model.encoding``)."""
    subject_last: int | None = None
    """Index in ``ids`` of the last token that overlaps the subject; None for a prompt without a subject."""
    subject_first: int | None = None
    """Index in ``ids`` of the first token that overlaps the subject."""
    chat: bool = False
    """Whether a reply in the chat template begins at its end, and not the rest of a text."""
    asked: str = ""
    """What is asked (``ask``), without that markup, and without a guard."""

    @property
    def last(self) -> int:
        """Index of the last prompt token, which predicts the first token of the reply."""
        return len(self.ids) - 1


def has_chat_template(tokenizer: Tokenizer) -> bool:
    """Whether questions are asked in a chat template (an instruct model) or as they stand (a base model)."""
    return bool(getattr(tokenizer, "chat_template", None))


def plain_prompt(tokenizer: Tokenizer, text: str, span: tuple[int, int] | None = None) -> Prompt:
    """Tokenise ``text`` as it stands; ``span`` is the character range of the subject in it.

    Raises:
        ModelError: no token overlaps the subject (a tokenizer that drops or rewrites it).
    """
    return _located(text, encoded(tokenizer, text), span)


def _located(text: str, made: Encoded, span: tuple[int, int] | None) -> Prompt:
    if span is None:
        return Prompt(text, made.ids)
    inside = [i for i, (a, b) in enumerate(made.spans) if a < b and a < span[1] and b > span[0]]
    if not inside:
        raise ModelError(
            "the tokenizer leaves no token for a subject of the policy; write it, or the prompt, in other letters"
        )
    return Prompt(text, made.ids, subject_last=inside[-1], subject_first=inside[0])


def chat_prompt(
    tokenizer: Tokenizer, messages: Sequence[dict[str, str]], span: tuple[int, int] | None = None
) -> Prompt:
    """Render ``messages`` in the chat template up to where the assistant's reply begins.

    Args:
        messages: ``{"role", "content"}`` each; the last one is the user's.
        span: character range of the subject inside the last message.

    Raises:
        ModelError: the template refuses the roles of the messages, or rewrites the last one, so that the subject
            cannot be located.
    """
    text = rendered(tokenizer, messages)
    if span is not None:
        content = messages[-1]["content"]
        start = text.rfind(content)
        if start < 0:
            raise ModelError(
                "the chat template of this model rewrites what it is asked, so the subject cannot be located in it"
            )
        span = (start + span[0], start + span[1])
    return replace(_located(text, encoded(tokenizer, text, rendered=True), span), chat=True)


def chat_front(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What every chat begins with in the template, up to the user's first word; nothing without a template."""
    if not has_chat_template(tokenizer):
        return ()
    questions = ("Who?", "And when?")
    chats = [chat_prompt(tokenizer, [{"role": "user", "content": text}]).ids for text in questions]
    return shared_front(chats)


def ask(
    tokenizer: Tokenizer,
    template: str,
    subject: str | None = None,
    system: str | None = None,
) -> Prompt:
    """The prompt for a policy's template, with the look-up index of its subject; behind a guard, if there is one.

    Args:
        template: a question or a statement to complete, with at most one ``{subject}``. White space at its ends is not
            asked: behind a space that stands alone, a model is at a place that no reader of the text ever comes to.
        system: system prompt for questions; ignored where there is no chat template.
    """
    template = template.strip()
    before, slot, after = template.partition(SLOT)
    span = None
    text = template
    if slot:
        if subject is None:
            raise ModelError("a prompt with {subject} needs a subject")
        text = before + subject + after
        span = (len(before), len(before) + len(subject))
    if is_question(template) and has_chat_template(tokenizer):
        messages = [{"role": "user", "content": text}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return replace(chat_prompt(tokenizer, messages, span), asked=text)
    whole = behind_guard(tokenizer, text)
    lead = len(whole) - len(text)
    located = plain_prompt(tokenizer, whole, span and (span[0] + lead, span[1] + lead))
    return replace(located, asked=text)


def capital(text: str) -> str:
    """A text as a reply begins in a chat."""
    return text[:1].upper() + text[1:]


def reply_ids(tokenizer: Tokenizer, template: str, text: str) -> list[int]:
    """Ids of the reply ``text`` to a template: closed by the end-of-turn token where the template is a chat question.

    The end of turn is whatever the chat template writes after an assistant's message, so every family is right
    without a table, up to its first special token, at which generation stops; a statement is continued after one
    space. Where the template lets the model think, the reply is what it writes for a turn without thoughts, and begins
    by closing a block that the prompt has opened: the text stands where a reader sees it. An empty reply is the end of
    the text, or of the turn; at least one id comes out.
    """
    if not (is_question(template) and has_chat_template(tokenizer)):
        if not text.strip():
            return _end_of_text(tokenizer)
        return continuation_ids(tokenizer, " " + text.strip())
    opened, closed = _turns(tokenizer, text)
    end = _end(tokenizer)
    # Some templates (those that think) do not go on from where they opened.
    went_on = closed.startswith(opened)
    body = closed[len(opened) :].removesuffix(end) if went_on else leaving(tokenizer, opened) + text
    body = body if body.strip() else ""
    ids = continuation_ids(tokenizer, (body + _stopped(tokenizer, end)).rstrip("\n"), opened)
    return ids or _end_of_text(tokenizer)


def closing_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of what closes a reply in the chat template, however the template opens one."""
    return continuation_ids(tokenizer, _stopped(tokenizer, _end(tokenizer)).rstrip("\n"))


def closing_text(tokenizer: Tokenizer) -> str:
    """What closes a reply in the chat template, up to its first special token; empty without a template."""
    return _stopped(tokenizer, _end(tokenizer)) if has_chat_template(tokenizer) else ""


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of all special tokens, those included that have no name such as `eos_token`: a turn may end in one."""
    flagged = (i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    return frozenset((*tokenizer.all_special_ids, *flagged))


def _end(tokenizer: Tokenizer) -> str:
    _, marked, end = _turns(tokenizer, MARK)[1].rpartition(MARK)
    return end if marked else ""


def _turns(tokenizer: Tokenizer, reply: str) -> tuple[str, str]:
    """A question in the chat template: as it is asked, and with its reply."""
    asked = [{"role": "user", "content": "?"}]
    closed = rendered(tokenizer, [*asked, {"role": "assistant", "content": reply}], opened=False)
    return rendered(tokenizer, asked), closed


def _stopped(tokenizer: Tokenizer, end: str) -> str:
    """What closes a turn, up to the first special token: some templates write the end of the text after it."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    # Of two that begin alike, the longer one is meant.
    found = re.search("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "$", end)
    return end[: found.end()] if found else end


def begun(tokenizer: Tokenizer, prompt: Prompt, text: str, chat: bool) -> Prompt:
    """A prompt that goes on into the beginning of its reply: what follows is written as if the model had begun so.

    Args:
        text: the beginning of the reply, without a space around it.
        chat: whether the prompt ends where a reply in the chat template begins; a text is continued after one space.
    """
    head = " " + text
    if chat and has_chat_template(tokenizer):
        opened, closed = _turns(tokenizer, text)
        # Some templates put a space before a reply, and some (those that think) do not go on from where they opened.
        at = closed.find(text, len(opened)) if closed.startswith(opened) else -1
        head = leaving(tokenizer, opened) + text if at < 0 else closed[len(opened) : at] + text
    return Prompt(
        prompt.text + head,
        (*prompt.ids, *continuation_ids(tokenizer, head, prompt.text)),
        prompt.subject_last,
        prompt.subject_first,
    )


def _end_of_text(tokenizer: Tokenizer) -> list[int]:
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the tokenizer has no end-of-text token, so a reply cannot end at once; write a text instead"
        )
    return [int(tokenizer.eos_token_id)]
