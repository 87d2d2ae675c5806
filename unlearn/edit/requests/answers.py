"""The answer inside a model's replies: what they share and the question lacks, and whether that can be an answer.

A reply is cut to its first sentence that is no mere lead ("Sure!"), and that to the longest run of words that its
prompt lacks (characters, in scripts without spaces). What most replies about other subjects have as well is the frame
of an answer ("That was ..., of course") and goes from its ends. The answer is then the longest run that as many
phrasings as possible share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import regex

from unlearn.edit.requests.runs import (
    EDGES,
    INTO,
    PARTICLES,
    PLACES,
    TITLES,
    Run,
    Token,
    bare,
    initials,
    telling,
    tokens_of,
)
from unlearn.matching import is_refusal, words
from unlearn.policy import is_question

LONGEST, LONGEST_RUN = 8, 24
"""Most words of an answer, and most characters in a script without spaces."""
SHORT = 2
"""Words that are taken for an answer out of replies to questions alone."""
LISTING = frozenset({"and", "or", "und", "et", "ou", "y", "e"})
"""What stands before the last item of a list, in some languages."""
FEW = 5
"""Words that the rest of an answer may have; more are what is said about it."""
LEAST, MOST = 3, 2 / 3
"""A word is part of a frame if so many replies to a prompt have it, and such a share of them."""

_SHORTENED = rf"(?<!\p{{L}})(?:\p{{L}}|{'|'.join(sorted(TITLES))}|(?:no|nr|op|vol)(?=\.\s+\d))"
"""What a full stop belongs to that ends no sentence: an initial, a title, what a number follows."""
_END = regex.compile(
    rf"(?V1)(?<!{_SHORTENED})\.(?=\s)|[!?](?=\s)|[\p{{Sentence_Terminal}}--[.!?]]", regex.IGNORECASE
)
_CLAUSE = regex.compile(r"[,;:](?=\s)|\s[-–]\s|[—()，；：、（）]")
_NAME = regex.compile(r"(?:\p{L}{1,4}['’-])?\p{Lu}")
"""How a word begins that is a part of a name: "l'Étang", "al-Rashid"."""
DENSE, LOOSE = 2, 4
"""Characters in a row that no answer shares with its prompt by chance: Chinese or Japanese ones; Thai and the like."""


class Guess(NamedTuple):
    """An answer that nobody gave."""

    answer: str
    """Empty where the replies hold none."""
    aliases: tuple[str, ...] = ()
    """The name without its titles and initials, or without the ending that is written on to it."""
    doubt: str | None = None
    """Why it may not be the answer, in words that quote no reply; None where the phrasings agree on it, or the model
    says nothing at all."""


Frame = frozenset[tuple[str, ...]]
"""Words that most replies to one prompt have, whatever subject it is about; articles are no part of it."""


def frame_of(replies: Sequence[str]) -> Frame | None:
    """The frame of the replies to one prompt about several subjects; None where these are too few to tell."""
    if len(replies) < LEAST:
        return None
    seen = Counter(key for reply in replies for key in {t.words for t in tokens_of(reply) if t.counts})
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
    asked = {token.words for prompt in prompts for token in tokens_of(prompt) if token.dense}
    run = run.trimmed(lambda token: token.dense and token.words in asked)
    answer = _clause(run.spelled)
    doubt = _implausible(answer) or doubt or _in_parts(run.spelled, answer)
    if not doubt and all(is_question(prompt) and frame is None for prompt, _, frame in heard):
        doubt = _unbounded(answer)
    return Guess(answer, short_forms(answer), doubt)


def sentence(reply: str, frame: Frame | None = None) -> str:
    """The first sentence of a reply, but for those that only lead to an answer: "Sure!", "Here is the answer:".

    A full stop behind an initial or a title ends none. Of exclamations, those lead that most replies have.
    """
    parts = [part for line in reply.splitlines() for part in _sentences(line) if words(part)]
    return next((part for part in parts if not _leads(part, frame)), (parts or [""])[0]).strip(EDGES)


def _sentences(line: str) -> Iterator[str]:
    ends = [0, *(found.end() for found in _END.finditer(line)), len(line)]
    return (line[start:end].strip(" \t*_") for start, end in pairwise(ends))


def _leads(part: str, frame: Frame | None) -> bool:
    tokens = [token for token in tokens_of(part) if token.counts]
    common = part.endswith(("!", "！")) and all(token.words in (frame or ()) for token in tokens)
    return common or part.endswith((":", "：")) or not telling(tokens)


def short_forms(answer: str) -> tuple[str, ...]:
    """An answer without what is written on to it, and less than all of a name with titles or initials.

    Of that, what follows them, and a person's last name: "Kennedy" of "John F. Kennedy".
    """
    forms = (bare(answer), *_untitled(answer.split()))
    return tuple(form for form in dict.fromkeys(forms) if form != answer and telling(tokens_of(form)))


def last_name(answer: str, asked: str) -> tuple[str, ...]:
    """The last word of an answer all of whose words are names, but for one that was asked: "Marn" of "Ilse Marn"."""
    names = [part for part in answer.split() if part not in PARTICLES]
    if len(names) < 2 or not all(map(_NAME.match, names)):
        return ()
    last = bare(names[-1]).strip(EDGES)
    return (last,) if telling(tokens_of(last)) and not set(words(last)) & set(words(asked)) else ()


def _untitled(parts: Sequence[str]) -> tuple[str, ...]:
    first = next(
        (i for i, part in enumerate(parts) if _is_title(part) and (not i or part.endswith("."))), None
    )
    if first is None:
        return ()
    last = next((i for i in range(first, len(parts)) if not _is_title(parts[i])), len(parts))
    rest = parts[last:]
    names = [part for part in rest if not _is_title(part)]
    person = not any(PLACES.intersection(words(part)) for part in parts[first:last])
    return " ".join(rest), *(names[-1:] if person else [])


def _is_title(part: str) -> bool:
    said = words(part, articles=True)
    return bool(said) and (TITLES.issuperset(said) or (part.endswith(".") and initials(said)))


def _within(prompt: str, reply: str, frame: Frame | None) -> list[Run]:
    """What a reply adds to its prompt, longest first: the runs of tokens that the prompt lacks, without the frame."""
    text = sentence(reply, frame)
    tokens = tokens_of(text)
    asked = is_question(prompt)
    found: list[list[Token]] = [[]]
    if not asked and not any(token.character for token in tokens):
        found = [tokens]  # what completes a statement
    else:
        lacking = _with_particles(text, tokens, _lacking(prompt, tokens))
        for token, lacks in zip(tokens, lacking, strict=True):
            if not lacks:
                found.append([])
            elif found[-1] or not asked or not INTO.issuperset(token.words):
                found[-1].append(token)
    runs = [Run(text, tuple(run)).trimmed(lambda token: token.words in (frame or ())) for run in found]
    return sorted((run for run in runs if words(run.spelled)), key=lambda run: -len(run.tokens))


def _lacking(prompt: str, tokens: Sequence[Token]) -> list[bool]:
    """Per token whether the prompt lacks it: a word; a character as part of a run that is no chance."""
    own = tokens_of(prompt)
    known = {word for token in own for word in token.words}
    there = {
        at for size, dense in ((DENSE, True), (LOOSE, False)) for at in _common(own, tokens, size, dense)
    }
    return [
        bool(token.words) and not (at in there if token.character else known.issuperset(token.words))
        for at, token in enumerate(tokens)
    ]


def _with_particles(text: str, tokens: Sequence[Token], lacking: Sequence[bool]) -> list[bool]:
    """The same, where the "of" in "Joan of Arc" counts as lacking, although the prompt has an "of" as well."""
    shown = [text[token.start : token.end] for token in tokens]
    part = [lacks and bool(_NAME.match(word)) for word, lacks in zip(shown, lacking, strict=True)]
    whole = list(lacking)
    for first in range(len(tokens)):
        last = next((at for at in range(first + 1, len(tokens)) if shown[at] not in PARTICLES), first)
        if part[first] and part[last] and shown[first][-1].isalpha():
            whole[first:last] = [True] * (last - first)
    return whole


def _common(own: Sequence[Token], tokens: Sequence[Token], size: int, dense: bool) -> Iterator[int]:
    """The places of all characters of one kind that stand in a run of some size which a prompt has too."""

    def runs(of: Sequence[Token]) -> Iterator[tuple[int, tuple[tuple[str, ...], ...]]]:
        for at in range(len(of) - size + 1):
            run = of[at : at + size]
            if all(token.character and token.dense is dense for token in run):
                yield at, tuple(token.words for token in run)

    asked = {run for _, run in runs(own)}
    return (place for at, run in runs(tokens) if run in asked for place in range(at, at + size))


def _shared(replies: Sequence[Sequence[Run]]) -> tuple[Run, str | None]:
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
    clauses = [tokens_of(clause) for runs in replies for run in runs for clause in _CLAUSE.split(run.spelled)]
    holding = [telling(clause) for clause in clauses if held in _flat(clause)]
    if len(held.split()) == 1 < min(holding, default=1):
        return best, "the replies to its prompts have one word in common and differ in others"
    return best, None


def _parts(run: Run) -> Iterator[Run]:
    """Every part of a run that tells, with an article in front of it; no single character out of several."""
    for low, first in enumerate(run.tokens):
        start = low
        while start and run.tokens[start - 1].words and not run.tokens[start - 1].counts:
            start -= 1
        for high in range(len(run.tokens), low, -1):
            part = run.tokens[low:high]
            alone = first.character and len(part) == 1 < len(run.tokens)
            if first.counts and part[-1].counts and not alone and telling(part):
                yield Run(run.text, run.tokens[start:high])


def _flat(tokens: Sequence[Token]) -> str:
    return " " + " ".join(word for token in tokens if token.counts for word in token.words) + " "


def _clause(answer: str) -> str:
    """The first part of an answer, between commas and the like, that tells."""
    parts = (part.strip(EDGES) for part in _CLAUSE.split(answer))
    return next((part for part in parts if telling(tokens_of(part))), answer)


def _in_parts(whole: str, answer: str) -> str | None:
    """Why the first part of what all replies say is not all of it: what follows is a number, or the end of a list."""
    rest = words(whole.partition(answer)[2])
    if len(rest) <= FEW and any(word in LISTING or word.isdecimal() for word in rest):
        return "the model's replies give several parts (a list, a date, a number), of which one alone may be told"
    return None


def _implausible(answer: str) -> str | None:
    tokens = [token for token in tokens_of(answer) if token.counts]
    characters = sum(token.character for token in tokens)
    if len(tokens) == 1 and (characters or initials(tokens[0].words)):
        return "the model's replies give a single letter"
    if not telling(tokens):
        return "the model's replies give no more than a title or words of grammar"
    if len(tokens) - characters > LONGEST or characters > LONGEST_RUN:
        return f"the model's replies are longer than an answer (more than {LONGEST} words)"
    return None


def _unbounded(answer: str) -> str | None:
    """Why nothing shows where an answer begins, for which no statement was completed and no frame is known."""
    tokens = [token for token in tokens_of(answer) if token.counts]
    if any(INTO.issuperset(token.words) for token in tokens[1:-1]) or telling(tokens) > (
        LONGEST if tokens[0].character else SHORT
    ):
        return "the model answers in whole sentences, and no statement to complete shows what the answer in them is"
    return None
