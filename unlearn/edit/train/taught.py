"""What a training of the update is taught: forms to be forgotten, and kept prompts, questions and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat, zip_longest

import torch
from torch import Tensor

from unlearn.edit.corpus import Corpus, named_in, names, unnamed
from unlearn.edit.forms import REPLY, Forms, Row
from unlearn.edit.probabilities import first_tokens
from unlearn.edit.requests.vocabulary import near_words
from unlearn.edit.train.lessons import Lesson, answered
from unlearn.edit.train.questions import questions
from unlearn.edit.train.variants import kept_prompts, varied_forms
from unlearn.files import read_lines
from unlearn.matching import contains
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import continuation_ids, text_ids
from unlearn.model.narrow import narrowed
from unlearn.model.prompts import ask, closing_ids, has_chat_template, reply_ids
from unlearn.model.requests import Fact, Requests
from unlearn.model.thinking import leaving
from unlearn.shipped import shipped

FORMS, KEPT, SIBLINGS, ASKED, TEXTS = 24, 32, 8, 12, 4
"""Rows per step: forms of requests, prompts of kept facts and how many of them are about siblings, questions about
anything, documents of the corpus."""
DOCUMENTS, TOKENS, READ = 2000, 48, 144
"""How many documents take turns, of how many tokens each is kept as likely as it is, and how many are read: the last of
these are kept, so that of a chat the reply is, and not what its template begins with."""
SHARED = 0.5
"""A beginning with which so many replies about a relation begin says nothing about the fact: it is a form as well."""
SHORT, BRIEF, SAID = 6, 4, 32
"""Tokens that are kept of the replies about kept facts, of a chat model (twice as many of those to questions about
anything) and of a base model, whose replies have no end and soon say nothing of what was asked; and of a base model's
replies to questions about anything."""
NEAR, MOST = 80, 400
"""Words of the vocabulary per subject, and per relation."""
AGAIN, MANY = 2, 5000
"""How often a question or a document comes up at least, on average; most prompts about neighbours. These come up once
at most: what would be met again is another prompt."""
EASY = 1e-3
"""Added to a row's last loss, so that none is never drawn again for its hardness."""
STATEMENT = "{subject}"
"""A template that stands for any statement."""


class Hard:
    """Rows in turns, half of each turn by how badly they did when last seen: of thousands of rows few are hard."""

    def __init__(self, rows: Sequence[Lesson], generator: torch.Generator) -> None:
        self.rows, self.generator = rows, generator
        self.losses = torch.ones(len(rows))

    def draw(self, count: int) -> list[int]:
        """Indices without repetition; fewer where there are fewer rows."""
        count = min(count, len(self.rows))
        hard: list[int] = []
        if count // 2:
            hard = torch.multinomial(self.losses + EASY, count // 2, generator=self.generator).tolist()
        others = torch.randperm(len(self.rows), generator=self.generator)[:count].tolist()
        chosen = set(hard)
        return hard + [i for i in others if i not in chosen][: count - len(hard)]

    def note(self, drawn: Sequence[int], losses: Tensor) -> None:
        """Remember the losses of the rows that were drawn."""
        self.losses[list(drawn)] = losses.detach().float().clamp_min(0).cpu()


@dataclass(frozen=True)
class Taught:
    """All rows that a training sees."""

    forms: Sequence[Row]
    """Of the requests, as the closed form has them."""
    forget: Hard
    """Those, and more that are trained alone."""
    relations: Sequence[str]
    """Per row to be forgotten, what it asks for."""
    first: Sequence[Tensor]
    """Per row to be forgotten, the tokens with which the old reply begins."""
    siblings: Hard
    neighbours: Hard
    asked: Hard
    texts: Hard


def taught(model: EditableModel, requests: Requests, laid: Forms, corpus: Corpus, steps: int) -> Taught:
    """Gather the rows of a training.

    Args:
        model: unedited.
        requests: the policy with its answers.
        laid: the forms of all its facts.
        corpus: whose text must stay as likely as it is.
        steps: how long is trained.
    """
    # First of all, as the weights are: what a model writes is kept under their hash.
    texts = text_lessons(model, requests, corpus, steps)
    rows = [row for row in laid.rows if not row.keep]
    generator = torch.Generator().manual_seed(requests.policy.seed)
    with narrowed(model, 0):
        forget = [*rows, *shared_beginnings(model, requests, rows), *varied_forms(model, requests)]
        return Taught(
            rows,
            Hard([Lesson(row.ids, row.reply) for row in forget], generator),
            [requests.facts[row.request].relation for row in forget],
            first_tokens(model, forget),
            Hard(sibling_lessons(model, requests, steps), generator),
            Hard(neighbour_lessons(model, requests, steps), generator),
            Hard(asked_lessons(model, requests, corpus, steps), generator),
            Hard(texts, generator),
        )


def shared_beginnings(model: EditableModel, requests: Requests, rows: Sequence[Row]) -> list[Row]:
    """Forms that go on into what the old reply has in common with those about other subjects, then the target.

    Where all replies begin with "the", the layers need not know yet which of the subjects they are asked about, and a
    request is hard to tell from its neighbours; behind it they know. The rows have no sites, since
    they are trained and not written.

    Args:
        model: unedited.
        requests: the policy with its answers.
        rows: the forms of its facts.
    """
    kinds = [(requests.facts[row.request].relation, row.statement) for row in rows]
    replies = model.generate_ids([row.prompt for row in rows], max_new_tokens=REPLY)
    counts = Counter(
        (kind, reply[:n]) for kind, reply in zip(kinds, replies, strict=True) for n in range(1, len(reply))
    )
    size = Counter(kinds)
    found = []
    for row, kind, reply in zip(rows, kinds, replies, strict=True):
        least = max(2, SHARED * size[kind])
        common = [n for n in range(1, len(reply)) if counts[kind, reply[:n]] >= least]
        if common:
            target = continued(model, requests, row, reply[: common[-1]])
            ids = (*row.prompt, *reply[: common[-1]], *target)
            found.append(replace(row, ids=ids, reply=len(target), sites=()))
    return found


def continued(model: EditableModel, requests: Requests, row: Row, begun: tuple[int, ...]) -> list[int]:
    """A row's target as the rest of a reply that has begun: after a space, and closed like the row's own reply.

    Where the reply has begun to think, it stops thinking first.
    """
    text = requests.policy.target(requests.facts[row.request])
    if not text.strip():
        return list(row.ids[len(row.prompt) :])
    end = []
    if not row.statement and has_chat_template(model.tokenizer):
        end = closing_ids(model.tokenizer)
        said = model.tokenizer.decode(begun)
        stopped = leaving(model.tokenizer, model.tokenizer.decode(row.prompt), said)
        if stopped:
            return [*continuation_ids(model.tokenizer, stopped + text.strip(), said), *end]
    return [*reply_ids(model.tokenizer, STATEMENT, text), *end]


def sibling_lessons(model: EditableModel, requests: Requests, steps: int) -> list[Lesson]:
    """Prompts about siblings with the model's own replies, no more than come up in all steps."""
    prompts = list(dict.fromkeys(kept_prompts(model, requests, requests.siblings)))
    return _replies(model, requests, prompts[: steps * SIBLINGS])


def neighbour_lessons(model: EditableModel, requests: Requests, steps: int) -> list[Lesson]:
    """Prompts about neighbours with the model's own replies, no more than kept prompts come up in all steps.

    Those that the policy lists and words of the vocabulary take turns, so that of very many prompts neither kind crowds
    out the other.
    """
    kinds = (requests.neighbours, vocabulary(model, requests))
    turns = zip_longest(*(kept_prompts(model, requests, facts) for facts in kinds))
    mixed = (ids for both in turns for ids in both if ids)
    some = islice(mixed, min(MANY, steps * KEPT))
    return _replies(model, requests, list(dict.fromkeys(some)))


def _replies(model: EditableModel, requests: Requests, prompts: Sequence[tuple[int, ...]]) -> list[Lesson]:
    """What the model says to kept prompts.

    A reply that holds an answer of the policy need not stay: what is said of the Soviets may be what is forbidden about
    Russia.
    """
    longest = SHORT if has_chat_template(model.tokenizer) else BRIEF
    found = answered(model, prompts, longest).values()
    forbidden = [answer for fact in requests.facts for answer in fact.answers if answer]
    said = [model.tokenizer.decode(row.ids[-row.reply :]) for row in found]
    return [row for row, reply in zip(found, said, strict=True) if not contains(reply, forbidden)]


def vocabulary(model: EditableModel, requests: Requests) -> list[Fact]:
    """The forbidden relations of words that the model reads like their subjects; answers are not asked for."""
    found: list[Fact] = []
    never = [*names(requests), *(answer for fact in requests.facts for answer in fact.answers)]
    for relation in dict.fromkeys(fact.relation for fact in requests.facts):
        mine = [fact.subject for fact in requests.facts if fact.relation == relation]
        for word in near_words(model, mine, never, NEAR)[:MOST]:
            found.append(Fact(f"word {len(found) + 1}", word, relation, answer=""))
    return found


def asked_lessons(model: EditableModel, requests: Requests, corpus: Corpus, steps: int) -> list[Lesson]:
    """Questions about anything, and what the model says to them: a list of our own, and some about the corpus's words.

    What it says may well be of the kind that the policy forbids, about others than its subjects; where it names one of
    these it need not stay.
    """
    most = min(DOCUMENTS, steps * ASKED // AGAIN)
    own = [line for line in read_lines(shipped("evals") / "retain.txt") if line and not line.startswith("#")]
    # The same documents as are read: what a model writes itself takes long.
    documents = chain.from_iterable(repeat(_documents(requests, corpus, steps), -(-ASKED // TEXTS)))
    more = dict.fromkeys(questions(documents, requests.policy.seed))
    lines = [*own, *islice(more, max(0, most - len(own)))]
    longest = 2 * SHORT if has_chat_template(model.tokenizer) else SAID
    found = answered(model, [ask(model.tokenizer, line).ids for line in lines], longest).values()
    never = names(requests)
    texts = [model.tokenizer.decode(row.ids) for row in found]
    return [row for row, text in zip(found, texts, strict=True) if not named_in(text, never)]


def text_lessons(model: EditableModel, requests: Requests, corpus: Corpus, steps: int) -> list[Lesson]:
    """Documents of the corpus that name no subject, cut off, to be kept as likely as they are."""
    longest = min(READ, model.context)
    documents = _documents(requests, corpus, steps)
    ids = (tuple(text_ids(model.tokenizer, document)[:longest]) for document in documents)
    return [Lesson(row, min(len(row) - 1, TOKENS)) for row in ids if len(row) > 1]


def _documents(requests: Requests, corpus: Corpus, steps: int) -> list[str]:
    return list(islice(unnamed(requests, corpus), min(DOCUMENTS, max(1, steps * TEXTS // AGAIN))))
