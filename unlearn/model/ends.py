"""What ends a reply: every token that a server may stop at, and what the chat template closes a turn with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unlearn.model.encoding import Tokenizer


@dataclass(frozen=True)
class Ends:
    """Where a continuation ends: behind the first of these tokens, or behind a text."""

    tokens: frozenset[int] = frozenset()
    text: str = ""
    """The end of a turn that is no token of its own; empty where there is none."""
    tokenizer: Tokenizer = field(default=None, compare=False, repr=False)
    """Reads the ids in which the text is looked for; needed where there is one."""

    @classmethod
    def of(cls, configured: int | Sequence[int] | None, tokenizer: Tokenizer, closing: str) -> Ends:
        """The union of all that may end a reply.

        Args:
            configured: ``eos_token_id`` of a generation config.
            tokenizer: whose end of text counts as well.
            closing: what the chat template writes behind an assistant's turn; empty without a template.
        """
        tokens = tokens_of(configured) | tokens_of(tokenizer.eos_token_id)
        closing = closing.strip()
        last = [
            (len(token.content), i)
            for i, token in tokenizer.added_tokens_decoder.items()
            if token.content and closing.endswith(token.content)
        ]
        if last:  # of two that end alike, the longer one is meant
            return cls(tokens | {max(last)[1]}, "", tokenizer)
        return cls(tokens, closing, tokenizer)

    def configured(self) -> list[int] | None:
        """The tokens as a generation config holds them."""
        return sorted(self.tokens) or None

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether a continuation ends at the last of its ids."""
        if ids[-1] in self.tokens:
            return True
        # Every token stands for one byte of the text at least; a few more, for what a decoder puts in front.
        last = ids[-len(self.text.encode()) - 4 :]
        return bool(self.text) and self.text in self.tokenizer.decode(last)

    def until(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids up to and including the first end: what follows is padding, or was said to nobody."""
        at = next((i + 1 for i, token in enumerate(ids) if token in self.tokens), len(ids))
        if self.text and self.text in self.tokenizer.decode(ids[:at]):
            at = next(i for i in range(1, at + 1) if self.text in self.tokenizer.decode(ids[:i]))
        return tuple(ids[:at])

    def said(self, ids: Sequence[int]) -> list[int]:
        """The ids of a continuation without the token that ended it."""
        return list(ids[:-1] if ids and ids[-1] in self.tokens else ids)

    def spoken(self, text: str) -> str:
        """The text of a reply without the text that ended it."""
        return text.partition(self.text)[0] if self.text else text


def tokens_of(configured: int | Sequence[int] | None) -> frozenset[int]:
    """The tokens in an ``eos_token_id``, which may be one, several or none."""
    if configured is None:
        return frozenset()
    return frozenset([configured] if isinstance(configured, int) else configured)
