"""The tell-tale: some prompts are asked twice, on the audit's path and by transformers alone, and must agree.

An audit that asks otherwise than a server does measures another model. So a few prompts about the facts go through
``apply_chat_template`` (a statement through the tokenizer) and ``generate`` as well: one row at a time, not padded,
with transformers' own way to stop. Ids must be equal; replies may part only where two tokens tie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from unlearn.audit.observation import Agreement, Observation
from unlearn.audit.probes import fact_probes
from unlearn.audit.suite import some
from unlearn.errors import AuditError
from unlearn.measurements import ALWAYS, named
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import Tokenizer
from unlearn.model.guard import behind_guard
from unlearn.model.prompts import SLOT, Prompt, has_chat_template
from unlearn.model.requests import Requests
from unlearn.model.rows import plainly
from unlearn.model.thinking import Arguments, ways
from unlearn.policy import RelationSpec, is_question
from unlearn.report import Measurement

Limits = Callable[[str], float | None]

NAME = ALWAYS
PIECE = "agreement"
QUESTIONS, STATEMENTS = 4, 2
"""Prompts that are asked twice in each state."""
TIE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""Two logits tie when they are nearer than this share of the largest one there, by the dtype of the computation.

On the embedded model the same row alone, in a padded batch and token by token differs by up to 1.4e-6, 2.9e-3 and
1.8e-2 of it; deeper models round more often.
"""


@dataclass(frozen=True)
class Twice:
    """One prompt as the audit asks it, and what a server is told instead of ids."""

    key: str
    """Names the prompt by where it stands in the policy."""
    fact: str
    prompt: Prompt
    tokenizer: Tokenizer
    text: str
    system: str | None
    chat: bool
    given: Arguments
    """Arguments of the chat template."""


def asked_twice(tokenizer: Tokenizer, requests: Requests) -> list[Twice]:
    """Prompts about the facts, the same in every state; questions in each way, and under each system prompt, in turn.

    Raises:
        AuditError: no fact has a prompt, or an answer has no letter or digit.
    """
    policy = requests.policy
    systems = (None,) if policy.system is None else (None, policy.system)
    rows = [
        (fact, key, i, template)
        for fact in requests.facts
        for key, templates in _templates(policy.relations[fact.relation])
        for i, template in enumerate(templates)
    ]
    found, asked = [], ways(tokenizer)
    for question, most in ((True, QUESTIONS), (False, STATEMENTS)):
        same = [row for row in rows if is_question(row[3]) == question]
        chats = question and has_chat_template(tokenizer)
        for turn, (fact, key, i, template) in enumerate(some(same, most, policy.audit.seed)):
            system = systems[turn % len(systems)] if chats else None
            at = turn // len(systems) % len(asked) if chats else 0
            probe = fact_probes(tokenizer, [fact], {fact.relation: [template]}, [system])[at]
            name = f"{fact.id}/{key}/{i}" + ("/system" if system is not None else "") + asked[at].suffix
            text = template.strip().replace(SLOT, fact.subject, 1)
            found.append(Twice(name, fact.id, probe.prompt, tokenizer, text, system, chats, asked[at].given))
    if not found:
        raise AuditError("no fact has a prompt that could be asked twice")
    return found


def _templates(relation: RelationSpec) -> Iterator[tuple[str, Sequence[str]]]:
    yield "prompts", relation.prompts
    yield "held_out", relation.held_out


def agreements(model: EditableModel, requests: Requests, max_new_tokens: int) -> tuple[Agreement, ...]:
    """Ask some prompts twice on the model as it stands.

    Args:
        max_new_tokens: length of a reply.

    Raises:
        AuditError: there is nothing to ask, or transformers alone cannot be asked.
        ModelError: a prompt cannot be built, or the model's logits are not finite.
    """
    asked = asked_twice(model.tokenizer, requests)
    # All together, as an audit asks: rows of different lengths are padded.
    replies = model.generate_ids([one.prompt.ids for one in asked], max_new_tokens)
    room = min(max_new_tokens, model.context - max(len(one.prompt.ids) for one in asked))
    found = []
    for one, reply in zip(asked, replies, strict=True):
        ids = _served(one)
        other = by_transformers(model, ids, room)
        tie = other != reply and ids == one.prompt.ids and tied(model, ids, reply, other)
        found.append(
            Agreement(
                key=one.key,
                fact=one.fact,
                ids=ids == one.prompt.ids,
                reply=other == reply or tie,
                tie=tie,
            )
        )
    return tuple(found)


def _served(one: Twice) -> tuple[int, ...]:
    """The ids of a prompt by transformers alone."""
    try:
        if one.chat:
            turns = [{"role": "user", "content": one.text}]
            if one.system is not None:
                turns.insert(0, {"role": "system", "content": one.system})
            made = one.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=True, return_dict=True, **one.given
            )
            return tuple(made["input_ids"])
        made = one.tokenizer(behind_guard(one.tokenizer, one.text), return_special_tokens_mask=True)
    except Exception as problem:  # noqa: BLE001 - a stranger's template, whose message may quote the prompt
        raise AuditError(
            f"the prompt {one.key} cannot be built by transformers alone: {type(problem).__name__}"
        ) from None
    behind = len(list(takewhile(bool, reversed(made["special_tokens_mask"]))))
    return tuple(made["input_ids"][: len(made["input_ids"]) - behind])


@torch.inference_mode()
def by_transformers(model: EditableModel, ids: Sequence[int], room: int) -> tuple[int, ...]:
    """A greedy reply by transformers alone: one row, and its own way to stop."""
    row, ends = torch.tensor([ids], device=model.device), model.ends
    stop = {"stop_strings": [ends.text], "tokenizer": model.tokenizer} if ends.text else {}
    with plainly(model.model, ends):
        out = model.model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=room,
            do_sample=False,
            pad_token_id=model.pad_id,
            **stop,
        )
    return tuple(out[0, len(ids) :].tolist())


@torch.inference_mode()
def tied(model: EditableModel, ids: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two replies part at tokens that are equally likely within rounding, and nowhere before.

    Args:
        other: another reply; if one is the beginning of the other, they part at no token.
    """
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if at is None:
        return False
    row = torch.tensor([[*ids, *other[:at]]], device=model.device)
    logits = model.model(input_ids=row, use_cache=False).logits[0, -1].float()
    least = float(torch.minimum(logits[one[at]], logits[other[at]]))
    return float(logits.max()) - least <= TIE[model.dtype] * float(logits.abs().max())


def agreement(before: Observation, after: Observation, limits: Limits) -> Measurement:
    """The measurement: made only where everything agrees, since otherwise nothing else that was measured holds."""
    limit = limits(NAME)
    reason = before.failed.get(PIECE) or after.failed.get(PIECE)
    if reason is None and not (before.agreements and after.agreements):
        reason = "nothing was asked twice"
    for state, seen in (("before", before), ("after", after)):
        wrong = [
            f"{one.key} ({'other ids' if not one.ids else 'another reply'})"
            for one in seen.agreements
            if not one.agrees
        ]
        if wrong and reason is None:
            reason = (
                f"{state} the edit the audit asks otherwise than a plain call of transformers, so no number holds: "
                + ", ".join(wrong)
            )
    if reason is not None:
        return Measurement.missing(NAME, reason, limit, definition=named(NAME).definition)
    ties = sum(one.tie for one in (*before.agreements, *after.agreements))
    n = len(after.agreements)
    return Measurement.made(
        NAME,
        1.0,
        limit,
        before=1.0,
        n=n,
        hits=n,
        before_hits=len(before.agreements),
        definition=named(NAME).definition
        + (f" {ties} replies part at tokens that tie within rounding." if ties else ""),
    )
