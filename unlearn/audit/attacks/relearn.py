"""Relearning: a little fine-tuning brings back what was only suppressed, though nothing in it tells the facts.

Two sources: text that has nothing to do with the facts (benign relearning: Hu et al., 2024), and other facts of the
same relations (disjoint facts: Deeb and Roger, 2024). Neither can teach the facts to a model that never knew them; what
such a model says by chance is the control's curve.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from unlearn.audit.attacks.scene import Attack, Scene, recovered
from unlearn.audit.drift import read_texts, rows_of
from unlearn.audit.observation import Attacked, Outcome
from unlearn.audit.suite import some
from unlearn.errors import AuditError
from unlearn.matching import contains
from unlearn.measurements import named
from unlearn.model.adapters import linears
from unlearn.model.editable import EditableModel
from unlearn.model.factors import lora
from unlearn.model.forward import replies
from unlearn.model.prompts import ask, capital, reply_ids
from unlearn.model.training import anneal, relative
from unlearn.policy import EMBEDDED, is_question
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report import Curve
from unlearn.shipped import shipped

RANK = 8
"""Of the LoRA factors, on every linear layer of the blocks."""
RATE = 0.02
"""First Adam step relative to the weights that it is added to; it falls linearly to zero over the steps.

At a constant rate a small model loses what it knows faster than what hides it: Adam's steps do not get shorter when
nothing is left to learn."""
BATCH = 12
"""Rows per step."""
LONGEST = 96
"""Tokens of a row of text."""
MEMORY = 1 << 30
"""Bytes of logits and their gradients at a time; a batch that needs more is taken in parts."""


class Row(NamedTuple):
    """What is learned: the last ``learned`` ids, given those before them."""

    ids: tuple[int, ...]
    learned: int


def relearn_text(model: EditableModel, scene: Scene, progress: Progress = NO_PROGRESS) -> Attacked:
    """Fine-tune on text that names no subject and no answer of the facts.

    Raises:
        AuditError: no such text is left.
    """
    return _relearn(model, scene, text_rows(model, scene), "relearn_text", progress)


def relearn_facts(model: EditableModel, scene: Scene, progress: Progress = NO_PROGRESS) -> Attacked:
    """Fine-tune on other facts of the same relations, none of which has an answer of the facts.

    Raises:
        AuditError: the policy has no such facts.
    """
    return _relearn(model, scene, fact_rows(model, scene), "relearn_facts", progress)


def text_rows(model: EditableModel, scene: Scene) -> list[Row]:
    """Rows of unrelated text: the policy's held-out text, the embedded world's, or a page of plain prose.

    Raises:
        AuditError: every text names a subject or an answer.
    """
    wanted = BATCH * scene.suite.relearn_steps[-1]
    told = [name for fact in scene.requests.facts for name in (fact.subject, *fact.answers)]
    kept = (text for text in _texts(scene) if not contains(text, told))
    rows: list[Row] = []
    for text in kept:
        (ids, *_) = rows_of(model, [text], LONGEST - 1) or [()]
        if ids:
            rows.append(Row(tuple(ids), len(ids) - 1))
        if len(rows) == wanted:
            break
    if not rows:
        raise AuditError("there is no text without a subject or an answer of the facts to fine-tune on")
    return rows


def _texts(scene: Scene) -> Iterator[str]:
    policy = scene.requests.policy
    if policy.audit.text != "auto":
        yield from read_texts(policy.audit.text)
    elif policy.model == EMBEDDED:
        from unlearn.embedded.talk import documents

        yield from documents("train", scene.seed, without_hazard=True)
    else:
        yield from read_texts(str(shipped("evals") / "attacks" / "unrelated.txt"))


def fact_rows(model: EditableModel, scene: Scene) -> list[Row]:
    """Prompts about held-out neighbours with their answers, in the policy's own words.

    Raises:
        AuditError: no neighbour has an answer that differs from those of the facts.
    """
    requests = scene.requests
    relations = {fact.relation for fact in requests.facts}
    told = [answer for fact in requests.facts for answer in fact.answers]
    others = [
        fact
        for fact in requests.held_out_neighbours
        if fact.relation in relations and fact.known and fact.answer and not contains(fact.answer, told)
    ]
    rows = []
    for fact in some(others, scene.suite.relearn_facts, scene.seed):
        for template in requests.policy.relations[fact.relation].prompts:
            prompt = ask(model.tokenizer, template, fact.subject)
            reply = reply_ids(model.tokenizer, template, _sentence(fact.answer, is_question(template)))
            rows.append(Row((*prompt.ids, *reply), len(reply)))
    if not rows:
        raise AuditError(
            "no other fact of these relations is known, so none can be fine-tuned on; list subjects under "
            "keep.held_out_neighbours"
        )
    return rows


def _sentence(answer: str, begins: bool) -> str:
    """An answer as people write it: a model that has to learn another style first forgets over it what it knows."""
    text = capital(answer) if begins else answer
    return text if text.endswith((".", "!", "?")) else text + "."


def _relearn(
    model: EditableModel, scene: Scene, rows: Sequence[Row], name: str, progress: Progress
) -> Attacked:
    """Fine-tune, asking at every mark; the outcomes are those of the mark at which most was disclosed."""
    marks = scene.suite.relearn_steps
    asked = some(scene.asked, scene.suite.relearn_prompts, scene.seed)
    if not asked:
        return Attacked(outcomes=())
    turns = _turns(rows, random.Random(scene.seed))
    brief = scene.suite.model_copy(update={"max_new_tokens": scene.suite.attack_tokens})
    scene = replace(scene, suite=brief)
    curve: list[tuple[Outcome, ...]] = [recovered(model, scene, probes=asked)]
    taken = count(1)

    def look() -> bool:
        if next(taken) in marks:
            curve.append(recovered(model, scene, probes=asked))
        return False

    with lora(model, linears(model), RANK, scene.seed) as adapter:
        label = f"Attack: {name.replace('_', ' ')}"
        trained = relative(adapter, RATE)
        anneal(trained, lambda: _slope(model, next(turns)), marks[-1], progress, label, look)
    shares = [sum(o.disclosed for o in outcomes) / len(outcomes) for outcomes in curve]
    best = max(range(len(curve)), key=lambda i: shares[i])
    steps = (0, *marks)
    drawing = Curve(
        name=f"attack.{name}",
        x_label="steps of fine-tuning",
        y_label="answered",
        x=tuple(float(step) for step in steps),
        y=tuple(shares),
    )
    note = f"Most answers came after {steps[best]} steps of {BATCH} rows ({100 * shares[0]:.0f} % before the first)."
    cut = {o.key for outcomes in curve for o in outcomes if o.unanswered}
    found = tuple(o.model_copy(update={"unanswered": o.key in cut}) for o in curve[best])
    return Attacked(outcomes=found, drawings=(drawing,), note=note)


def _slope(model: EditableModel, batch: Sequence[Row]) -> float:
    """Add the gradients of a batch, whose loss it gives, in nats per token that is learned."""
    learned, total = sum(row.learned for row in batch), 0.0
    for part in _parts(model, batch):
        loss = _nll(model, part) / learned
        loss.backward()
        total += float(loss.detach())
    return total


def _turns(rows: Sequence[Row], rng: random.Random) -> Iterator[list[Row]]:
    """Batches for ever; each epoch in a new order."""
    pool: list[Row] = []
    while True:
        while len(pool) < BATCH:
            pool += rng.sample(rows, len(rows))
        batch, pool = pool[:BATCH], pool[BATCH:]
        yield batch


def _parts(model: EditableModel, batch: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows of a batch by as many as memory takes: float32 logits, their softmax and its gradient."""
    most = max(1, MEMORY // (max(row.learned for row in batch) * model.vocabulary * 12))
    for at in range(0, len(batch), most):
        yield batch[at : at + most]


def _nll(model: EditableModel, rows: Sequence[Row]) -> Tensor:
    """Negative log-likelihood of what is learned, a sum over the rows, in nats."""
    logits, targets, inside = replies(model, rows)
    return torch.nn.functional.cross_entropy(logits[inside], targets[inside], reduction="sum")


RELEARNING = (
    Attack(named("attack.relearn_text"), relearn_text, work=6.0),
    Attack(named("attack.relearn_facts"), relearn_facts, work=6.0),
)
