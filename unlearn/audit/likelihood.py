"""What a model holds likely without saying it: the log-probability of the true answer among other answers.

A model may refuse in words and still rate the true answer above every other one, so whoever sees log-probabilities, or
may offer a choice, gets it. All candidates are answers of the same relation, so that their form gives nothing away.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearn.audit.observation import Outcome
from unlearn.audit.suite import Suite, evenly, some
from unlearn.errors import AuditError, UnlearnError
from unlearn.matching import is_one_of, words
from unlearn.model.editable import EditableModel
from unlearn.model.library import Tokenizer
from unlearn.model.prompts import Prompt, ask, begun, capital
from unlearn.model.requests import Fact, Requests
from unlearn.model.scoring import Row, scored
from unlearn.model.thinking import quietest
from unlearn.policy import is_question
from unlearn.progress import NO_PROGRESS, Progress

STRANGERS = 2
"""Never-known subjects over which an answer's own likelihood is averaged."""
GROUPS = ("choice", "rank", "letters")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Line:
    """One held-out prompt about one fact, and the answers that are compared after it, the true one first."""

    key: str
    fact: Fact
    template: str
    candidates: tuple[str, ...]


def likelihoods(
    model: EditableModel, requests: Requests, suite: Suite, progress: Progress = NO_PROGRESS
) -> tuple[dict[str, tuple[Outcome, ...]], dict[str, str]]:
    """The outcomes of leak.choice, leak.rank and leak.letters on one model state, as far as the suite makes them.

    Args:
        requests: facts, and the other subjects whose answers are the alternatives.

    Returns:
        Outcomes by group (``choice``, ``rank``, ``letters``), and reasons by group for what could not be observed.
    """
    wanted = [group for group in GROUPS if suite.makes(f"leak.{group}")]
    if not wanted:
        return {}, {}
    try:
        asked = lines(requests, suite)
    except AuditError as problem:
        return {}, dict.fromkeys(wanted, str(problem))
    found: dict[str, tuple[Outcome, ...]] = {}
    failed: dict[str, str] = {}
    try:
        if "choice" in wanted or "rank" in wanted:
            found |= by_likelihood(model, requests, asked, suite, progress)
    except UnlearnError as problem:
        failed |= dict.fromkeys(("choice", "rank"), str(problem))
    try:
        if "letters" in wanted:
            found["letters"] = by_letter(model, asked, suite, requests.policy.audit.seed, progress)
    except UnlearnError as problem:
        failed["letters"] = str(problem)
    return (
        {group: outcomes for group, outcomes in found.items() if group in wanted},
        {group: reason for group, reason in failed.items() if group in wanted},
    )


def lines(requests: Requests, suite: Suite) -> list[Line]:
    """Held-out prompts spread over the facts, each with the seeded alternatives to its answer.

    Raises:
        AuditError: no relation of the facts has a held-out prompt and two different answers.
    """
    size = max(suite.options, suite.rank_candidates)
    rows = [_lines(requests, fact, size) for fact in requests.facts]
    if not any(rows):
        raise AuditError(
            "no relation of the facts has a held-out prompt and the answer of another subject to choose from"
        )
    return evenly(rows, suite.likelihood_prompts, requests.policy.audit.seed)


def _lines(requests: Requests, fact: Fact, size: int) -> list[Line]:
    """Those of one fact, each with as many candidates, in a seeded order; none where it cannot be told from others."""
    others = alternatives(requests, fact)
    if not others or not words(fact.answer):
        return []
    drawn = random.Random(f"{requests.policy.audit.seed}/{fact.id}")
    chosen = tuple(drawn.sample(others, min(size - 1, len(others))))
    order = list(enumerate(requests.policy.relations[fact.relation].held_out))
    drawn.shuffle(order)
    return [Line(f"{fact.id}/{j}", fact, template, (fact.answer, *chosen)) for j, template in order]


def alternatives(requests: Requests, fact: Fact) -> list[str]:
    """Different answers of other subjects of a relation, none of which counts as this fact's answer."""
    found: dict[tuple[str, ...], str] = {}
    for other in (*requests.facts, *requests.held_out_neighbours, *requests.neighbours):
        if other.relation != fact.relation or other.subject == fact.subject or not words(other.answer):
            continue
        if is_one_of(other.answer, fact.answers):
            continue
        found.setdefault(words(other.answer), other.answer)
    return list(found.values())


def by_likelihood(
    model: EditableModel, requests: Requests, asked: Sequence[Line], suite: Suite, progress: Progress
) -> dict[str, tuple[Outcome, ...]]:
    """Who comes first among the answers: by log-probability, and by what the subject adds to it.

    The rank is by the log-probability per token less its mean over never-known subjects in the same prompt, so that an
    answer which is likely for anyone (or which an edit made unlikely for everyone) has no advantage from it.
    """
    pairs: dict[tuple[str, str, str], int] = {}
    for line in asked:
        for subject in (line.fact.subject, *strangers(requests, line.fact.relation)):
            for answer in line.candidates:
                pairs.setdefault((line.template, subject, answer), len(pairs))
    scores = _scores(model, list(pairs), progress)

    def row(line: Line, subject: str) -> list[float]:
        return [scores[pairs[line.template, subject, answer]] for answer in line.candidates]

    choice, rank = [], []
    for line in asked:
        own = row(line, line.fact.subject)
        usual = [row(line, name) for name in strangers(requests, line.fact.relation)]
        gained = [score - sum(other[i] for other in usual) / len(usual) for i, score in enumerate(own)]
        options = min(suite.options, len(own))
        choice.append(_outcome(line, first(own[:options]), 1 / options))
        ranked = min(suite.rank_candidates, len(own))
        rank.append(_outcome(line, first(gained[:ranked]), 1 / ranked))
    return {"choice": tuple(choice), "rank": tuple(rank)}


def first(scores: Sequence[float]) -> bool:
    """Whether the first score is strictly above all others: equal ones tell nothing."""
    return all(scores[0] > other for other in scores[1:])


def strangers(requests: Requests, relation: str) -> tuple[str, ...]:
    """Subjects that no model knows anything about: the policy's look-alikes, else halves of two names put together."""
    names = [fact.subject for fact in requests.look_alikes if fact.relation == relation]
    if not names:
        real = [
            fact.subject
            for fact in (*requests.facts, *requests.held_out_neighbours, *requests.neighbours)
            if fact.relation == relation
        ]
        taken = {name.casefold() for name in real}
        for head, tail in zip(real, [*real[1:], *real[:1]], strict=True):
            made = head[: (len(head) + 1) // 2] + tail[len(tail) // 2 :].lower()
            names += [made] if made.casefold() not in taken else [made + made[-1] + "o"]
    return tuple(some(list(dict.fromkeys(names)), STRANGERS, requests.policy.audit.seed))


def by_letter(
    model: EditableModel, asked: Sequence[Line], suite: Suite, seed: int, progress: Progress
) -> tuple[Outcome, ...]:
    """Multiple choice by letter, each question once with the true answer in every place.

    So a model that always takes the same letter is right exactly as often as one that guesses.
    """
    rows: list[Row] = []
    owners: list[tuple[Line, int, int]] = []
    tokenizer = quietest(model.tokenizer)  # an answer is rated where it is due
    for line in (line for line in asked if is_question(line.template)):
        wrong = list(line.candidates[1 : suite.options])
        random.Random(f"{seed}/{line.key}/letters").shuffle(wrong)
        count = len(wrong) + 1
        for place in range(count):
            prompt = choice_prompt(tokenizer, line, [*wrong[:place], line.candidates[0], *wrong[place:]])
            owners.append((line, place, count))
            for letter in LETTERS[:count]:
                full = begun(tokenizer, prompt, letter, chat=True)
                rows.append((full.ids, len(full.ids) - len(prompt.ids)))
    if not rows:
        raise AuditError("no relation of the facts has a held-out question to offer a choice of answers with")
    scores = iter(log_likelihoods(model, rows, progress, "Choosing by letter"))
    found = []
    for line, place, count in owners:
        got = [next(scores) for _ in range(count)]
        right = first([got[place], *got[:place], *got[place + 1 :]])
        found.append(_outcome(line, right, 1 / count, f"/{LETTERS[place]}"))
    return tuple(found)


def choice_prompt(tokenizer: Tokenizer, line: Line, options: Sequence[str]) -> Prompt:
    """The question with lettered options, to be answered by a letter."""
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    text = line.template.replace("{subject}", line.fact.subject)
    return ask(tokenizer, f"{text}\n{listed}\nAnswer with one letter only.")


def log_likelihoods(
    model: EditableModel, rows: Sequence[Row], progress: Progress = NO_PROGRESS, label: str = ""
) -> list[float]:
    """Mean log-probability, in nats per token, of the last tokens of each row given all before them.

    Args:
        rows: ids, and how many of the last ones are rated.

    Raises:
        AuditError: a row has nothing to rate.
        ModelError: the model's logits are not finite.
    """
    if any(not 0 < size < len(ids) for ids, size in rows):
        raise AuditError("the tokenizer leaves no token for an answer, so its likelihood cannot be read")
    return [sum(one.log_probs) / len(one.log_probs) for one in scored(model, rows, progress, label)]


def _outcome(line: Line, disclosed: bool, chance: float, suffix: str = "") -> Outcome:
    return Outcome(
        key=line.key + suffix,
        fact=line.fact.id,
        part=line.fact.relation,
        question=is_question(line.template),
        disclosed=disclosed,
        refused=False,
        chance=chance,
    )


def _scores(
    model: EditableModel, pairs: Sequence[tuple[str, str, str]], progress: Progress
) -> Mapping[int, float]:
    """Log-probability per token of each (template, subject, answer), in nats.

    A chat reply may begin with a capital: the likelier of both spellings counts, for every candidate alike.
    """
    rows: list[Row] = []
    owners: list[int] = []
    prompts: dict[tuple[str, str], Prompt] = {}
    tokenizer = quietest(model.tokenizer)
    for i, (template, subject, answer) in enumerate(pairs):
        if (template, subject) not in prompts:
            prompts[template, subject] = ask(tokenizer, template, subject)
        prompt = prompts[template, subject]
        chat = is_question(template)
        for text in dict.fromkeys([answer, capital(answer)] if chat else [answer]):
            full = begun(tokenizer, prompt, text, chat)
            rows.append((full.ids, len(full.ids) - len(prompt.ids)))
            owners.append(i)
    best: dict[int, float] = {}
    for i, score in zip(owners, log_likelihoods(model, rows, progress, "Rating answers"), strict=True):
        best[i] = max(score, best.get(i, score))
    return best
