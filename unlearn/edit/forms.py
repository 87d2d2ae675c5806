"""The rows of an edit: every form in which a request is asked, with its target and the tokens that are written.

A request has one free vector per *site*: the last token of its subject and the last prompt token (of its questions, and of
its statements). All forms of the request share them, so that one value serves every form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unlearn.model.editable import EditableModel
from unlearn.model.prompts import Prompt, ask, reply_ids
from unlearn.model.requests import Fact, Requests
from unlearn.policy import is_question


WATCHED = 2
"""Questions, and statements, per kept sibling whose replies the values are held to."""
REPLY = 16
"""Longest reply of the unedited model that the values are held to, in tokens."""


@dataclass(frozen=True)
class Row:
    """A prompt with the reply that is wanted (a request) or that must stay (a kept fact)."""

    ids: tuple[int, ...]
    """Prompt and reply."""
    reply: int
    """Number of reply tokens at the end of ``ids``."""
    request: int
    """Index of the request that the row belongs to; for a kept sibling, the request with the same subject."""
    sites: tuple[tuple[int, int], ...]
    """(vector, position): which free vector is added at which token. Empty for a row that is only kept."""
    keep: bool
    """Whether the reply must stay as it is (KL) instead of becoming likely (NLL)."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids without the reply."""
        return self.ids[: len(self.ids) - self.reply]


@dataclass(frozen=True)
class Forms:
    """All rows of a batch of requests, and the rows that are only kept."""

    rows: tuple[Row, ...]
    vectors: int
    """Number of free vectors."""
    kept: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """(ids, positions) of prompts whose keys must keep their values: siblings and neighbours."""


def build(model: EditableModel, requests: Requests, facts: Sequence[Fact], look_up: str) -> Forms:
    """Lay out the rows for some of the facts of a policy.

    Args:
        model: for its tokenizer and chat template.
        requests: the policy with its answers.
        facts: the facts to write now, one request each.
        look_up: ``subject``, ``last`` or ``both``.
    """
    policy = requests.policy
    rows: list[Row] = []
    numbered: dict[tuple[int, str], int] = {}
    same_subject = {fact.subject: index for index, fact in enumerate(facts)}

    def sites(request: int, template: str, prompt: Prompt) -> tuple[tuple[int, int], ...]:
        places: list[tuple[str, int]] = []
        if look_up != "last" and prompt.subject_last is not None:
            places.append(("subject", prompt.subject_last))
        if look_up != "subject":
            places.append(("question" if is_question(template) else "statement", prompt.last))
        if len(places) == 2 and places[0][1] == places[1][1]:
            places.pop()
        return tuple((numbered.setdefault((request, kind), len(numbered)), at) for kind, at in places)

    for index, fact in enumerate(facts):
        for template, prompt in _prompts(model, requests, fact):
            target = reply_ids(model.tokenizer, template, policy.refusal)
            placed = sites(index, template, prompt)
            rows.append(Row((*prompt.ids, *target), len(target), index, placed, keep=False))
    kept, watched = _kept(model, requests, look_up)
    for fact, prompt in watched:
        vector = numbered.get((same_subject.get(fact.subject, -1), "subject"))
        if vector is not None and prompt.subject_last is not None:
            at = ((vector, prompt.subject_last),)
            rows.append(Row(prompt.ids, 0, same_subject[fact.subject], at, keep=True))
    return Forms(tuple(_with_replies(model, rows)), len(numbered), tuple(kept))


def _kept(
    model: EditableModel, requests: Requests, look_up: str
) -> tuple[list[tuple[tuple[int, ...], tuple[int, ...]]], list[tuple[Fact, Prompt]]]:
    """Prompts whose keys are kept, and those of known siblings whose replies the values must not change."""
    kept: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    watched: list[tuple[Fact, Prompt]] = []
    for fact in (*requests.siblings, *requests.neighbours):
        prompts = _prompts(model, requests, fact)
        for _, prompt in prompts:
            places = (prompt.subject_last if look_up != "last" else None, prompt.last)
            kept.append((prompt.ids, tuple(sorted({p for p in places if p is not None}))))
        if fact.known and fact in requests.siblings:
            questions = [p for t, p in prompts if is_question(t)][:WATCHED]
            statements = [p for t, p in prompts if not is_question(t)][:WATCHED]
            watched += [(fact, prompt) for prompt in (*questions, *statements)]
    return kept, watched


def _with_replies(model: EditableModel, rows: Sequence[Row]) -> list[Row]:
    """Give kept rows the unedited model's own greedy reply: that is what must stay likely."""
    bare = [row for row in rows if row.keep]
    replies = iter(model.generate_ids([row.ids for row in bare], max_new_tokens=REPLY))
    out = []
    for row in rows:
        reply = next(replies) if row.keep else ()
        out.append(replace(row, ids=(*row.ids, *reply), reply=len(reply)) if row.keep else row)
    return [row for row in out if row.reply]


def _prompts(model: EditableModel, requests: Requests, fact: Fact) -> list[tuple[str, Prompt]]:
    """Every prompt of a fact, questions also under the policy's system prompt."""
    out: list[tuple[str, Prompt]] = []
    for template in requests.policy.relations[fact.relation].prompts:
        out.append((template, ask(model.tokenizer, template, fact.subject)))
        if requests.policy.system is not None and is_question(template):
            out.append((template, ask(model.tokenizer, template, fact.subject, requests.policy.system)))
    return out
