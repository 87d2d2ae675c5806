"""What a training of the update is taught: forms to be forgotten, and kept prompts, questions and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from unlearn.edit.corpus import EMBEDDED, Corpus, names, unnamed
from unlearn.edit.forms import REPLY, Forms, Row
from unlearn.edit.probabilities import first_tokens
from unlearn.edit.train.lessons import Lesson, answered, drawn
from unlearn.edit.train.questions import questions
from unlearn.edit.train.shortened import shortened_forms, shortened_kept
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import continuation_ids, text_ids
from unlearn.model.prompts import ask, closing_ids, has_chat_template, reply_ids
from unlearn.model.requests import Requests
from unlearn.model.thinking import leaving

FORMS, KEPT, ASKED, TEXTS = 24, 40, 6, 4
"""Rows per step: forms of requests, kept prompts, questions about anything, documents of the corpus."""
DOCUMENTS, TOKENS = 2000, 64
"""How many documents take turns, and how much of each is read."""
SHARED = 0.5
"""A beginning with which so many replies about a relation begin says nothing about the fact: it is a form as well."""
BRIEF, SAID = 4, 32
"""Tokens of the replies that are kept of a model without chat template, which have no end and soon say nothing of what
was asked; and of what is said to questions about anything."""
EASY = 1e-3
"""Added to a row's last loss, so that none is never drawn again for its hardness."""
STATEMENT = "{subject}"
"""A template that stands for any statement."""


def converses(corpus: Corpus) -> bool:
    """Whether a corpus is one of questions and answers; of files and data sets that is not known."""
    return corpus.name == EMBEDDED


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
    first: Sequence[Tensor]
    """Per row to be forgotten, the tokens with which the old reply begins."""
    kept: Hard
    asked: Hard
    texts: Hard


def taught(model: EditableModel, requests: Requests, laid: Forms, corpus: Corpus, steps: int) -> Taught:
    """Gather the rows of a training.

    Args:
        model: unedited.
        requests: the policy with its answers.
        laid: the forms of all its facts, and the kept prompts.
        corpus: whose text must stay as likely as it is.
        steps: how long is trained.
    """
    rows = [row for row in laid.rows if not row.keep]
    forget = [*rows, *shared_beginnings(model, requests, rows)]
    spare = []
    if not has_chat_template(model.tokenizer):
        forget += shortened_forms(model, requests)
        spare = shortened_kept(model, requests)
    first = first_tokens(model, forget)
    generator = torch.Generator().manual_seed(requests.policy.seed)
    kept = [*(ids for ids, _ in laid.kept), *spare]
    return Taught(
        rows,
        Hard([Lesson(row.ids, row.reply) for row in forget], generator),
        first,
        Hard(kept_lessons(model, kept, steps, generator), generator),
        Hard(asked_lessons(model, requests, corpus, steps), generator),
        Hard(text_lessons(model, requests, corpus), generator),
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


def kept_lessons(
    model: EditableModel, prompts: Sequence[tuple[int, ...]], steps: int, generator: torch.Generator
) -> list[Lesson]:
    """Kept prompts with the model's own replies; of very many, no more than come up twice."""
    most = steps * KEPT // 2
    if len(prompts) > most:
        prompts = drawn(prompts, most, generator)
    longest = REPLY if has_chat_template(model.tokenizer) else BRIEF
    return list(answered(model, prompts, longest).values())


def asked_lessons(model: EditableModel, requests: Requests, corpus: Corpus, steps: int) -> list[Lesson]:
    """Questions about anything, and what the model says to them, unless the corpus is one of questions and answers.

    What it says may well be of the kind that the policy forbids, about others than its subjects; where it names one of
    these it need not stay.
    """
    if converses(corpus):
        return []
    most = min(DOCUMENTS, steps * ASKED // 2)
    lines = islice(questions(unnamed(requests, corpus), requests.policy.seed), most)
    found = answered(model, [ask(model.tokenizer, line).ids for line in lines], SAID).values()
    never = names(requests)
    texts = [model.tokenizer.decode(row.ids) for row in found]
    return [row for row, text in zip(found, texts, strict=True) if not any(name in text for name in never)]


def text_lessons(model: EditableModel, requests: Requests, corpus: Corpus) -> list[Lesson]:
    """Documents of the corpus that name no subject, cut off, to be kept as likely as they are."""
    documents = islice(unnamed(requests, corpus), DOCUMENTS)
    ids = (tuple(text_ids(model.tokenizer, document)[:TOKENS]) for document in documents)
    return [Lesson(row, len(row) - 1) for row in ids if len(row) > 1]
