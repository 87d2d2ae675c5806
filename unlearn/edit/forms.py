"""The rows of an edit: every form in which a request is asked, with its target and the tokens that are written.

A request has one free vector per *site*: the last token of its subject, or the last prompt token and the tokens of the
target after it (of its questions, and of its statements). All forms of a kind share them, so that one value serves
every form. The target's own tokens are written because one token cannot carry a sentence (AnyEdit, Jiang et al., 2025,
writes a token per chunk; here every token of a short target is one).

A form may also be read after texts that the model has written itself (ROME's prefixes), so that the value at a subject
does not depend on the subject standing at the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import Prompt, Tokenizer, ask, has_chat_template, plain_prompt, reply_ids
from unlearn.model.requests import Fact, Requests
from unlearn.model.rows import left_pad, plainly
from unlearn.model.thinking import Way, way_of, ways
from unlearn.policy import Policy, is_question

WATCHED = 2
"""Questions, and statements, per kept sibling whose replies the values are held to."""
LENT = 5
"""About how many prompts of each kept fact lend their keys."""
REPLY = 16
"""Longest reply of the unedited model that values are held to, or that is trained on, in tokens."""


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
    statement: bool = False
    """Whether the reply goes on with a text: a statement to complete."""
    weight: float = 1.0
    """Of its columns: what stands after sampled texts weighs as much as one form, all texts together."""

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
    """(ids, positions) of prompts whose keys must keep their values: siblings, neighbours and look-alikes."""


def fits(model: EditableModel, fact: str, tokens: int) -> None:
    """Raise ModelError if a prompt of a fact (by id), with its refusal, is longer than the model's context."""
    if tokens > model.context:
        raise ModelError(
            f"fact {fact}: a prompt with its refusal has {tokens} tokens, and "
            f"{model.name} takes {model.context}; shorten the prompt or the refusal"
        )


def build(
    model: EditableModel,
    requests: Requests,
    facts: Sequence[Fact],
    look_up: str,
    keeps: bool = True,
    window: int = 1,
    prefixes: int = 0,
) -> Forms:
    """Lay out the rows for some of the facts of a policy.

    Args:
        facts: the facts to write now, one request each.
        look_up: ``subject``, ``last`` or ``both``.
        keeps: whether the method protects the keys of siblings and neighbours.
        window: target tokens per site of ``last``: a value at the last token before each chunk of so many.
        prefixes: after how many sampled texts each plain form is read as well.

    Raises:
        ModelError: a prompt with its target is longer than the model's context.
    """
    sites = _Sites(model, requests.policy, facts, look_up, window)
    rows = _asked(model, requests, facts, sites, contexts(model, prefixes, requests.policy.seed))
    rows += _held(model, requests, facts, sites)
    for row in rows:
        fits(model, facts[row.request].id, len(row.ids))
    kept = _kept(model, requests, look_up) if keeps else ()
    return Forms(tuple(_with_replies(model, rows)), len(sites.numbered), kept)


class _Sites:
    """Where the values of each fact are written, and the number of the free vector that each place has."""

    def __init__(
        self, model: EditableModel, policy: Policy, facts: Sequence[Fact], look_up: str, window: int
    ) -> None:
        self.policy, self.facts, self.look_up, self.window = policy, facts, look_up, window
        self.ways = ways(model.tokenizer)
        self.numbered: dict[tuple[int, str], int] = {}

    def of(
        self, request: int, template: str, prompt: Prompt, target: Sequence[int]
    ) -> tuple[tuple[int, int], ...]:
        """(vector, position) of one form of a request."""
        places: dict[int, str] = {}
        where = where_of(self.policy, self.facts[request].relation, self.look_up)
        if where != "subject":
            # In another way the reply begins behind other tokens, and with others.
            asked = "question" + (way_of(self.ways, prompt.text).suffix if prompt.chat else "")
            kind = asked if is_question(template) else "statement"
            places |= {prompt.last + j: f"{kind}.{j}" for j in range(0, len(target), self.window)}
        if where != "last" and prompt.subject_last is not None:
            places[prompt.subject_last] = "subject"
        return tuple(
            (self.numbered.setdefault((request, kind), len(self.numbered)), at)
            for at, kind in sorted(places.items())
        )


def _asked(
    model: EditableModel, requests: Requests, facts: Sequence[Fact], sites: _Sites, texts: Sequence[str]
) -> list[Row]:
    """Every form of every fact with its target; plain ones also behind sampled texts."""
    rows = []
    for index, fact in enumerate(facts):
        for template, prompt in prompts_of(model, requests, fact):
            target = target_of(model, requests.policy, fact, prompt)
            statement = not is_question(template)
            written = [] if prompt.chat else [text + template for text in texts]
            after = [ask(model.tokenizer, text, fact.subject) for text in written]
            for number, read in enumerate([prompt, *after]):
                placed = sites.of(index, template, read, target)
                weight = 1.0 if not number else 1 / len(after)
                rows.append(Row((*read.ids, *target), len(target), index, placed, False, statement, weight))
    return rows


def _held(model: EditableModel, requests: Requests, facts: Sequence[Fact], sites: _Sites) -> list[Row]:
    """Prompts about other things that are known of the same subjects, with no reply yet.

    Elsewhere than at the subject a value is not added to anything that a sibling's prompt reads.
    """
    about: dict[str, list[int]] = {}
    for index, fact in enumerate(facts):
        about.setdefault(fact.subject, []).append(index)
    rows = []
    for fact in requests.siblings:
        for request in about.get(fact.subject, ()):
            vector = sites.numbered.get((request, "subject"))
            if fact.known and vector is not None:
                for prompt in _watched(prompts_of(model, requests, fact)):
                    if prompt.subject_last is not None:
                        rows.append(Row(prompt.ids, 0, request, ((vector, prompt.subject_last),), keep=True))
    return rows


STARTS = ("The", "Therefore", "Because", "I", "You")
"""What the sampled texts begin with (as published for MEMIT and AlphaEdit)."""
SHORT, LONG = 5, 10
"""Their lengths in tokens, in turn (as published for ROME)."""
CHOICES = 5
"""The most probable tokens among which each token is drawn."""


@torch.inference_mode()
def contexts(model: EditableModel, count: int, seed: int) -> list[str]:
    """Texts that the model writes itself, each closed by a full stop and a space, to stand before a prompt.

    Args:
        seed: of the sampling; the global generators are left as they were.
    """
    found = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), plainly(model.model, model.ends):
        torch.manual_seed(seed)
        for number in range(count):
            start = plain_prompt(model.tokenizer, STARTS[number % len(STARTS)])
            ids, mask = left_pad([start.ids], model.pad_id, model.device)
            out = model.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=LONG if number % 2 else SHORT,
                do_sample=True,
                temperature=1.0,
                top_k=CHOICES,
                top_p=1.0,
                pad_token_id=model.pad_id,
            )[0]
            text = model.tokenizer.decode(out, skip_special_tokens=True)
            # Braces would be read as a place for the subject.
            found.append(" ".join(text.replace("{", "").replace("}", "").split()).rstrip(" .") + ". ")
    return found


def _watched(prompts: Sequence[tuple[str, Prompt]]) -> list[Prompt]:
    """The prompts of a sibling to whose replies the values are held."""
    questions = [prompt for template, prompt in prompts if is_question(template)]
    statements = [prompt for template, prompt in prompts if not is_question(template)]
    return [*questions[:WATCHED], *statements[:WATCHED]]


def where_of(policy: Policy, relation: str, look_up: str) -> str:
    """Where values of a relation are written: as the relation says, else as the method does (``look_up``)."""
    return policy.relations[relation].look_up or look_up


def target_of(model: EditableModel, policy: Policy, fact: Fact, prompt: Prompt) -> list[int]:
    """The token ids that a fact's prompt is to be answered with."""
    if not prompt.chat:
        return reply_ids(model.tokenizer, "", policy.target(fact))
    return reply_ids(way_of(ways(model.tokenizer), prompt.text).tokenizer, "?", policy.target(fact))


def _kept(
    model: EditableModel, requests: Requests, look_up: str
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Prompts of siblings and neighbours, with the positions whose keys must keep their values."""
    kept = []
    used = {where_of(requests.policy, fact.relation, look_up) for fact in requests.facts}
    for number, fact in enumerate((*requests.siblings, *requests.neighbours, *requests.look_alikes)):
        prompts = prompts_of(model, requests, fact)
        # A few prompts each, taken in turn, so that all of a relation's forms come up among many subjects.
        step = max(1, len(prompts) // LENT)
        for _, prompt in prompts[number % step :: step]:
            places = {None if used == {"last"} else prompt.subject_last, prompt.last} - {None}
            kept.append((prompt.ids, tuple(sorted(p for p in places if p is not None))))
    return tuple(kept)


def _with_replies(model: EditableModel, rows: Sequence[Row]) -> list[Row]:
    """Give kept rows the unedited model's own greedy reply: that is what must stay likely."""
    bare = [row for row in rows if row.keep]
    replies = iter(model.generate_ids([row.ids for row in bare], max_new_tokens=REPLY))
    out = []
    for row in rows:
        reply = next(replies) if row.keep else ()
        out.append(replace(row, ids=(*row.ids, *reply), reply=len(reply)) if row.keep else row)
    return [row for row in out if row.reply]


def variants(policy: Policy, template: str, asked: Sequence[Way]) -> list[tuple[Tokenizer, str | None]]:
    """In which ways a prompt is asked: tokenizers, each with a system prompt or none.

    Args:
        asked: the ways of the model's tokenizer.
    """
    plain = asked[0].tokenizer
    if not (is_question(template) and has_chat_template(plain)):
        return [(plain, None)]
    systems = (None,) if policy.system is None else (None, policy.system)
    return [(way.tokenizer, system) for system in systems for way in asked]


def prompts_of(model: EditableModel, requests: Requests, fact: Fact) -> list[tuple[str, Prompt]]:
    """Every prompt of a fact.

    A chat model's questions are asked in every way of its template, also under the policy's system prompt.
    """
    asked = ways(model.tokenizer)
    return [
        (template, ask(tokenizer, template, fact.subject, system))
        for template in requests.policy.relations[fact.relation].prompts
        for tokenizer, system in variants(requests.policy, template, asked)
    ]
