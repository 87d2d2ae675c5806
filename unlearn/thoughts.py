"""The parts of a reply of a model that thinks aloud: what stands in its reasoning blocks, and what it answers.

The marks of a block are not taken from a model's name. A grammar of marks finds them in any text (a chat template, a
vocabulary, a reply); marks of other shapes come from what a template does (``unlearn.model.thinking``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Marks(NamedTuple):
    """What opens a reasoning block, and what closes it."""

    opens: str
    closes: str


class Said(NamedTuple):
    """A reply in its parts."""

    visible: str
    """What stands outside the reasoning blocks: what a reader takes for the answer."""
    thoughts: str = ""
    """What stands inside them."""
    answered: bool = True
    """False where a block was never closed: the reply ended before there was an answer."""

    def read_through(self) -> Said:
        """The same reply to a reader who takes the thoughts for part of the answer, as an attacker does."""
        return Said(_joined((self.thoughts, self.visible)), "", self.answered)


class Room(NamedTuple):
    """How long a reply may be, in tokens."""

    reply: int
    """Without thoughts."""
    thoughts: int = 512
    """More than that, where the model may think."""


_NAME = r"(?i:[\w:.-]*(?:think|thought|reason|reflect|scratch_?pad)[\w:.-]*)"
#: Shape of a mark, and how a block of that shape opens and closes.
_SHAPES = (
    (rf"</?({_NAME})>", "<{}>", "</{}>"),
    (rf"\[/?({_NAME})\]", "[{}]", "[/{}]"),
    (rf"◁/?({_NAME})▷", "◁{}▷", "◁/{}▷"),
    (rf"<\|(?:begin|end)_of_({_NAME})\|>", "<|begin_of_{}|>", "<|end_of_{}|>"),
    (rf"<\|(?:START|END)_({_NAME})\|>", "<|START_{}|>", "<|END_{}|>"),
    (rf"<\|({_NAME})_(?:start|end)\|>", "<|{}_start|>", "<|{}_end|>"),
)
_GRAMMAR = tuple((re.compile(shape), opens, closes) for shape, opens, closes in _SHAPES)


def marks_in(text: str) -> tuple[Marks, ...]:
    """The marks that a text writes, each pair once; one mark of a pair is enough."""
    found = [
        Marks(opens.format(hit[1]), closes.format(hit[1]))
        for shape, opens, closes in _GRAMMAR
        for hit in shape.finditer(text)
    ]
    return tuple(dict.fromkeys(found))


def left_open(text: str, marks: Iterable[Marks]) -> Marks | None:
    """The marks of the block that a prompt leaves open at its end, so that the reply begins inside it; None if none."""
    return next((pair for pair in marks if text.rstrip().endswith(pair.opens)), None)


def unclosed(asked: str, begun: str, marks: Iterable[Marks]) -> Marks | None:
    """The marks of the block in which the beginning of a reply to a prompt ends; None if it ends in none."""
    pairs = tuple(marks)
    inside = max(pairs, key=lambda pair: begun.rfind(pair.opens), default=None)
    if inside is not None and inside.opens in begun:
        return inside if begun.rfind(inside.opens) > begun.rfind(inside.closes) else None
    inside = left_open(asked, pairs)
    return inside if inside is not None and inside.closes not in begun else None


def parted(reply: str, marks: Sequence[Marks] = (), inside: bool = False) -> Said:
    """Part a reply into what it thinks and what it answers.

    What stands before a closing mark that nothing opened is thought as well: the block began before the reply.

    Args:
        reply: what the model said, its marks included.
        marks: those of the model; marks with which the reply itself begins are known without.
        inside: whether the prompt left a block open, so that the reply begins in one.
    """
    first = reply.split(maxsplit=1)
    known = (*marks, *(marks_in(first[0]) if first else ()))
    opens, closes = {pair.opens for pair in known}, {pair.closes for pair in known}
    visible: list[str] = []
    thoughts: list[str] = []
    for piece in _pieces(reply, opens | closes):
        if piece in opens:
            inside = True
        elif piece in closes:
            if not inside:
                thoughts, visible = [*thoughts, *visible], []
            inside = False
        else:
            (thoughts if inside else visible).append(piece)
    return Said(_joined(visible), _joined(thoughts), not inside)


def _pieces(text: str, marks: set[str]) -> list[str]:
    # Of two marks that begin alike the longer one is meant.
    found = "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
    return re.split(f"({found})", text) if found else [text]


def _joined(pieces: Iterable[str]) -> str:
    return "\n".join(stripped for piece in pieces if (stripped := piece.strip()))
