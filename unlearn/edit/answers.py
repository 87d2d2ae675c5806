"""The answer inside a model's replies: what they share and the question lacks, and whether that can be an answer.

A reply is cut to its first sentence, and that to the longest run of words that its prompt lacks (characters, in scripts
without spaces). What most replies about other subjects have as well is the frame of an answer ("That was ..., of
course") and goes from its ends. The answer is then the longest run that as many phrasings as possible share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import regex

from unlearn.matching import ARTICLES, UNSPACED, is_refusal, words
from unlearn.policy import is_question

LONGEST, LONGEST_RUN = 8, 24
"""Most words of an answer, and most characters in a script without spaces."""
SHORT = 2
"""Words that are taken for an answer out of replies to questions alone."""
LEAST, MOST = 3, 2 / 3
"""A word is part of a frame if so many replies to a prompt have it, and such a share of them."""

_INTO = frozenset(
    "in at on from of by to is was are were with it its that this these those there he she they".split()
)
"""What leads from a question's words to its answer."""
_GRAMMAR = _INTO | frozenset(
    "his her their has have had been be as for and or but not no yes well course sure certainly indeed actually i you "
    "we".split()
)
_PLACES = frozenset("st ste mt ft saint".split())
_TITLES = _PLACES | frozenset(
    "dr mr mrs ms mx prof professor doctor sir jr sr rev gen col capt lt sgt hon fr mme mlle hr herr frau sra".split()
)
_SHORTENED = rf"(?<!\p{{L}})(?:\p{{L}}|{'|'.join(sorted(_TITLES))}|(?:no|nr|op|vol)(?=\.\s+\d))"
"""What a full stop belongs to that ends no sentence: an initial, a title, what a number follows."""
_END = regex.compile(rf"(?<!{_SHORTENED})\.(?=\s)|[!?](?=\s)|[。！？।؟]", regex.IGNORECASE)
_CLAUSE = regex.compile(r"[,;:](?=\s)|\s[-–]\s|[—()，；：、（）]")
_EDGES = " \t,;:.!?\"'“”‘’«»*_。！？।؟，；：、《》〈〉「」『』"
_TOKEN = regex.compile(rf"(?V1)({UNSPACED}\p{{M}}*)|(?:(?!{UNSPACED})\S)+")


class Guess(NamedTuple):
    """An answer that nobody gave."""

    answer: str
    """Empty where the replies hold none."""
    aliases: tuple[str, ...] = ()
    """The name without its titles and initials."""
    doubt: str | None = None
    """Why it may not be the answer, in words that quote no reply; None where the phrasings agree on it, or the model
    says nothing at all."""


class _Token(NamedTuple):
    """A word with what is written on to it, or a character of a script without spaces."""

    words: tuple[str, ...]
    """Normalised, articles included; none for punctuation."""
    start: int
    end: int
    character: bool

    @property
    def counts(self) -> bool:
        """Whether it can tell anything: no punctuation and no article."""
        return not ARTICLES.issuperset(self.words)

    @property
    def tells(self) -> bool:
        """Whether it may be an answer by itself: no title, no single letter, no word of grammar."""
        if self.character:
            return True
        return any(word not in _GRAMMAR | _TITLES | ARTICLES and not _letter(word) for word in self.words)


class _Run(NamedTuple):
    """Some tokens of a sentence."""

    text: str
    tokens: tuple[_Token, ...]

    @property
    def spelled(self) -> str:
        """As it stands in the sentence."""
        return self.text[self.tokens[0].start : self.tokens[-1].end].strip(_EDGES) if self.tokens else ""

    def trimmed(self, drop: Callable[[_Token], bool]) -> _Run:
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
        left = _Run(self.text, self.tokens[low:high])
        return left if _telling(left.tokens) else self


Frame = frozenset[tuple[str, ...]]
"""Words that most replies to one prompt have, whatever subject it is about; articles are no part of it."""


def frame_of(replies: Sequence[str]) -> Frame | None:
    """The frame of the replies to one prompt about several subjects; None where these are too few to tell."""
    if len(replies) < LEAST:
        return None
    seen = Counter(
        key for reply in replies for key in {t.words for t in _tokens(sentence(reply)) if t.counts}
    )
    return frozenset(key for key, count in seen.items() if count >= max(LEAST, MOST * len(replies)))


def guess(heard: Sequence[tuple[str, str, Frame | None]]) -> Guess:
    """The answer that the replies to several phrasings of one question agree on.

    Args:
        heard: per phrasing the prompt with its subject, the reply, and the prompt's frame, where there is one.
    """
    prompts = [prompt for prompt, *_ in heard]
    found = [_within(*said) for said in heard if not is_refusal(said[1], ())]
    replies = [runs for runs in found if runs]
    if not replies:
        silent = bool(heard) and not any(words(reply) for _, reply, _ in heard)
        return Guess("", doubt=None if silent else "the model's replies hold none")
    run, doubt = _shared(replies)
    asked = {token.words for prompt in prompts for token in _tokens(prompt) if token.character}
    run = run.trimmed(lambda token: token.character and token.words in asked)
    answer = _clause(run.spelled)
    doubt = _implausible(answer) or doubt
    if not doubt and all(is_question(prompt) and frame is None for prompt, _, frame in heard):
        doubt = _unbounded(answer)
    return Guess(answer, short_forms(answer), doubt)


def sentence(reply: str) -> str:
    """The first sentence of a reply; a full stop behind an initial or a title ends none."""
    lines = reply.strip().splitlines()
    return _END.split(lines[0], maxsplit=1)[0].strip(_EDGES) if lines else ""


def short_forms(answer: str) -> tuple[str, ...]:
    """What follows the titles and initials of a name, and a person's last name: "Kennedy" of "John F. Kennedy"."""
    parts = answer.split()
    first = next(
        (i for i, part in enumerate(parts) if _is_title(part) and (not i or part.endswith("."))), None
    )
    if first is None:
        return ()
    last = next((i for i in range(first, len(parts)) if not _is_title(parts[i])), len(parts))
    rest = parts[last:]
    names = [part for part in rest if not _is_title(part)]
    person = not any(_PLACES.intersection(words(part)) for part in parts[first:last])
    forms = [" ".join(rest), *(names[-1:] if person else [])]
    return tuple(form for form in dict.fromkeys(forms) if _telling(_tokens(form)))


def _is_title(part: str) -> bool:
    said = words(part, articles=True)
    return bool(said) and (_TITLES.issuperset(said) or (part.endswith(".") and all(map(_letter, said))))


def _letter(word: str) -> bool:
    return len(word) == 1 and word.isalpha()


def _telling(tokens: Sequence[_Token]) -> int:
    """How many of some tokens tell; a title tells together with what follows, be that a word of grammar ("Dr. No")."""
    named = any(
        _TITLES.issuperset(a.words) and b.counts and not _TITLES.issuperset(b.words)
        for a, b in zip(tokens, tokens[1:], strict=False)
        if a.words
    )
    return sum(token.tells for token in tokens) or int(named)


def _tokens(text: str) -> list[_Token]:
    return [
        _Token(words(found[0], articles=True), *found.span(), found[1] is not None)
        for found in _TOKEN.finditer(text)
    ]


def _within(prompt: str, reply: str, frame: Frame | None) -> list[_Run]:
    """What a reply adds to its prompt, longest first: the runs of tokens that the prompt lacks, without the frame."""
    text = sentence(reply)
    tokens = _tokens(text)
    asked = is_question(prompt)
    found: list[list[_Token]] = [[]]
    if not asked and not any(token.character for token in tokens):
        found = [tokens]  # what completes a statement
    else:
        for token, lacks in zip(tokens, _lacking(prompt, tokens), strict=True):
            if not lacks:
                found.append([])
            elif found[-1] or not asked or not _INTO.issuperset(token.words):
                found[-1].append(token)
    runs = [_Run(text, tuple(run)).trimmed(lambda token: token.words in (frame or ())) for run in found]
    return sorted((run for run in runs if words(run.spelled)), key=lambda run: -len(run.tokens))


def _lacking(prompt: str, tokens: Sequence[_Token]) -> list[bool]:
    """Per token whether the prompt lacks it: a word; a character together with the one before or behind it."""
    own = _tokens(prompt)
    known = {word for token in own for word in token.words}
    pairs = {(a.words, b.words) for a, b in zip(own, own[1:], strict=False) if a.character and b.character}
    lacks = []
    joined = [(a.words, b.words) in pairs for a, b in zip(tokens, tokens[1:], strict=False)]
    for token, before, behind in zip(tokens, [False, *joined], [*joined, False], strict=bool(tokens)):
        here = before or behind if token.character else known.issuperset(token.words)
        lacks.append(bool(token.words) and not here)
    return lacks


def _shared(replies: Sequence[Sequence[_Run]]) -> tuple[_Run, str | None]:
    """The longest part of a run that as many replies as possible share, and why it may be none."""
    flat = ["|".join(_flat(run.tokens) for run in runs) for runs in replies]
    best, most, longest = replies[0][0], 1, 0
    for run in (run for runs in replies for run in runs):
        for part in _parts(run):
            held = _flat(part.tokens)
            holders, size = sum(held in whole for whole in flat), held.count(" ")
            if (holders, size) > (most, longest):
                best, most, longest = part, holders, size
    if len(replies) > 1 and (most < 2 or 2 * most < len(replies)):
        return best, "the replies to its prompts have nothing in common"
    held = _flat(best.tokens)
    holding = [run for runs in replies for run in runs if held in _flat(run.tokens)]
    if _telling(best.tokens) == 1 < min(_telling(run.tokens) for run in holding):
        return best, "the replies to its prompts have one word in common and differ in others"
    return best, None


def _parts(run: _Run) -> Iterator[_Run]:
    """Every part of a run that tells, with an article in front of it; no single character out of several."""
    for low, first in enumerate(run.tokens):
        start = low
        while start and run.tokens[start - 1].words and not run.tokens[start - 1].counts:
            start -= 1
        for high in range(len(run.tokens), low, -1):
            part = run.tokens[low:high]
            alone = first.character and len(part) == 1 < len(run.tokens)
            if first.counts and part[-1].counts and not alone and _telling(part):
                yield _Run(run.text, run.tokens[start:high])


def _flat(tokens: Sequence[_Token]) -> str:
    return " " + " ".join(word for token in tokens if token.counts for word in token.words) + " "


def _clause(answer: str) -> str:
    """The first part of an answer, between commas and the like, that tells."""
    parts = (part.strip(_EDGES) for part in _CLAUSE.split(answer))
    return next((part for part in parts if _telling(_tokens(part))), answer)


def _implausible(answer: str) -> str | None:
    tokens = [token for token in _tokens(answer) if token.counts]
    characters = sum(token.character for token in tokens)
    if len(tokens) == 1 and (characters or all(map(_letter, tokens[0].words))):
        return "the model's replies give a single letter"
    if not _telling(tokens):
        return "the model's replies give a title or a word of grammar"
    if len(tokens) - characters > LONGEST or characters > LONGEST_RUN:
        return f"the model's replies are longer than an answer (more than {LONGEST} words)"
    return None


def _unbounded(answer: str) -> str | None:
    """Why nothing shows where an answer begins, for which no statement was completed and no frame is known."""
    tokens = [token for token in _tokens(answer) if token.counts]
    inner = any(_INTO.issuperset(token.words) for token in tokens[1:-1])
    if inner or _telling(tokens) > (LONGEST if tokens[0].character else SHORT):
        return "the model answers in whole sentences, and no statement to complete shows what the answer in them is"
    return None
