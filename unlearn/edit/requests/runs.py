"""Words and characters of a sentence, and runs of them: what an answer is cut from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import regex

from unlearn.matching import ARTICLES, UNSPACED, words

INTO = frozenset(
    "in at on from of by to is was are were with it its that this these those there he she they".split()
)
"""What leads from a question's words to its answer."""
GRAMMAR = INTO | frozenset(
    "his her their has have had been be as for and or but not no yes well course sure certainly indeed actually i you "
    "we im am dont do does know unknown answer question good great here".split()
)
"""What is no answer by itself."""
PLACES = frozenset("st ste mt ft saint".split())
"""Titles that no person has."""
TITLES = PLACES | frozenset(
    "dr mr mrs ms mx prof professor doctor sir jr sr rev gen col capt lt sgt hon fr mme mlle hr herr frau sra".split()
)
"""What stands in front of a name and is none."""
PARTICLES = frozenset(
    "of the de del della dei di da do dos das du la le les los las van von der den zu y e et and und al bin ibn".split()
)
"""What joins the parts of a name."""
EDGES = " \t,;:.!?\"'“”‘’«»*_¿¡。！？।॥؟۔።။។，；：、《》〈〉「」『』"
"""What may stand around an answer and is no part of it."""
_WRITTEN_ON = regex.compile(
    r"(?<=^[\p{Lu}\p{Nd}]\w+)['’](?!(?:t|d|m|ll|re|ve)$)\p{Ll}{1,6}$"
    r"|(?<=\p{Hangul}{2})(?:입니다|이었습니다|였습니다|이에요|예요|이었다|였다|이다|이라고|라고|에서|으로|은|는|이|가|을|를|의|에|와|과|로)$"
    r"|(?<=[\p{Han}\p{Hiragana}\p{Katakana}ー]{2})(?:です|でした|である|であった|だ|だった)$"
)
_TOKEN = regex.compile(
    rf"(?V1)((?!\p{{Line_Break=Complex_Context}}){UNSPACED})|({UNSPACED}\p{{M}}*)|(?:(?!{UNSPACED})\S)+"
)


class Token(NamedTuple):
    """A word with what is written on to it, or a character of a script without spaces."""

    words: tuple[str, ...]
    """Normalised, articles included, without an ending that is written on; none for punctuation."""
    start: int
    end: int
    character: bool
    dense: bool
    """Whether it is a character that is hardly less than a word."""

    @property
    def counts(self) -> bool:
        """Whether it can tell anything: no punctuation and no article."""
        return not ARTICLES.issuperset(self.words)

    @property
    def tells(self) -> bool:
        """Whether it may be an answer by itself: no title, no single letter, no word of grammar."""
        if self.character:
            return True
        return any(
            word not in GRAMMAR | TITLES | ARTICLES and (len(word) > 1 or word.isdigit())
            for word in self.words
        )


class Run(NamedTuple):
    """Some tokens of a sentence."""

    text: str
    tokens: tuple[Token, ...]

    @property
    def spelled(self) -> str:
        """As it stands in the sentence."""
        return self.text[self.tokens[0].start : self.tokens[-1].end].strip(EDGES) if self.tokens else ""

    def trimmed(self, drop: Callable[[Token], bool]) -> Run:
        """Without the tokens at its ends that are to be dropped, unless nothing is left that tells.

        Two characters of a script without spaces are always left, for one alone says little.
        """
        if all(map(drop, self.tokens)):
            return self
        low, high = 0, len(self.tokens)
        while high - low > 1 + self.tokens[high - 1].character and drop(self.tokens[high - 1]):
            high -= 1
        while high - low > 1 + self.tokens[low].character and drop(self.tokens[low]):
            low += 1
        left = Run(self.text, self.tokens[low:high])
        return left if telling(left.tokens) else self


def telling(tokens: Sequence[Token]) -> int:
    """How many of some tokens tell; a title tells together with what follows, be that a word of grammar ("Dr. No")."""
    named = any(
        TITLES.issuperset(a.words) and b.counts and not TITLES.issuperset(b.words)
        for a, b in zip(tokens, tokens[1:], strict=False)
        if a.words
    )
    return sum(token.tells for token in tokens) or int(named)


def initials(said: Sequence[str]) -> bool:
    """Whether some words are single letters."""
    return all(len(word) == 1 and word.isalpha() for word in said)


def bare(word: str) -> str:
    """A word, or the last one of several, without what is written on to a name: "Rome's", "Paris'tir", "파리입니다"."""
    first, space, last = word.rpartition(" ")
    return first + space + _WRITTEN_ON.sub("", last)


def tokens_of(text: str) -> list[Token]:
    """The words of a text as they are spaced, and the characters where they are not."""
    return [
        Token(
            words(bare(found[0].strip(EDGES)), articles=True),
            *found.span(),
            bool(found[1] or found[2]),
            bool(found[1]),
        )
        for found in _TOKEN.finditer(text)
    ]
