"""How long a suite will take: its work in generated tokens, times what a token of such work took before.

The work is counted from the policy, before any model is loaded. Seconds come from earlier audits of the same model on
the same kind of device, piece by piece; without any, from a short timed run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from unlearn.audit.agreement import PIECE, QUESTIONS, STATEMENTS
from unlearn.audit.attacks.scene import State
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.lookalike import lookalike_lines
from unlearn.audit.probes import benign_lines, generation_lines
from unlearn.audit.suite import Suite, some
from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import Prompt, ask
from unlearn.model.requests import Fact, Requests
from unlearn.policy import AuditSpec, is_question

REPLY = 0.5
"""The usual reply is about half as long as it may be."""
ITEM = 6.0
"""Generated tokens that an item of a task costs as much as: most items are read, and not answered freely."""
ITEMS = 1000
"""Items taken for a task that is not bounded."""
READ = 0.04
"""Generated tokens that a read one costs as much as: reading is done many tokens at a time."""
READ_ROW = 30
"""Tokens of a prompt with an answer."""
PROMPTS, HIDDEN = 120, ("held_out", "cloze", "siblings", "neighbours", "benign")
"""Most prompts whose hidden states are compared, by group of questions about."""
TRIED, STEPS, SAID = 32, 5, 12
"""Prompts, and tokens of each reply behind the first, by which a model's speed is measured; and of a usual reply."""

Work = dict[str, float]
"""By piece, generated tokens."""


class Speed(NamedTuple):
    """Seconds that tokens of a model take in batches, as measured a moment ago (`speed_of`)."""

    said: float
    """Per generated token of work: a share of the prompt's reading and replies that end early are part of it."""
    read: float
    """Per token of a row that is only read."""
    step: float | None = None
    """Per further token of all replies of a batch: of a small model hardly more with many replies than with few."""

    def of(self, piece: str, work: float) -> float:
        """Seconds of a piece that was never timed."""
        reading = piece in ("drift", "likelihood") or piece.startswith("capability.")
        return work / READ * self.read if reading else work * self.said


class Paces(Protocol):
    """What work took before."""

    def known(self, name: str) -> float | None:
        """Seconds per generated token of a piece; None where nothing is known."""


def asking(prompts: int, suite: Suite) -> float:
    """Work of one greedy reply to each prompt."""
    return prompts * suite.max_new_tokens * REPLY


def agreement(suite: Suite) -> float:
    """Work of the prompts that are asked twice: the second time each alone, which takes about as long as five rows."""
    return 6 * asking(QUESTIONS + STATEMENTS, suite)


def sampling(prompts: int, suite: Suite) -> float:
    """Work of the sampled replies to each prompt."""
    return asking(prompts, suite) * suite.samples


def task(audit: AuditSpec, suite: Suite) -> float:
    """Work of one lm-eval task."""
    return ITEM * (audit.task_limit or suite.task_items or ITEMS)


def likelihood(suite: Suite) -> float:
    """Work of reading answers after prompts: by letter, and by likelihood after the fact's and two other subjects."""
    lines = suite.likelihood_prompts or ITEMS
    return READ * READ_ROW * lines * (suite.options**2 + 3 * max(suite.options, suite.rank_candidates))


def toxicity(suite: Suite) -> float:
    """Work of the texts for the toxicity scorer; they are rarely short."""
    lines = len(generation_lines())
    return min(lines, suite.generation_prompts or lines) * suite.generation_tokens


def attack(name: str, asked: int, suite: Suite) -> float:
    """Work of one attack on one state."""
    return ATTACKS[name].work * asking(asked, suite)


def questions(name: str, audit: AuditSpec, suite: Suite) -> int:
    """Number of "benign" or "lookalike" questions; 0 where their file cannot be read, which the audit reports."""
    try:
        lines = len(benign_lines(audit.benign) if name == "benign" else lookalike_lines(audit.lookalike))
    except AuditError:
        return 0
    most = suite.benign_questions if name == "benign" else suite.lookalike_questions
    return min(lines, most or lines)


def work(requests: Requests, suite: Suite, state: State) -> Work:
    """The work of every piece of an observation (`unlearn.audit.observing`), from the policy alone.

    Prompts of groups that a policy may have or not (reverse, two-hop, negation, other languages) count as one.
    """
    policy = requests.policy
    audit = policy.audit
    found: Work = {}
    facts = _prompts(requests, requests.facts)
    if suite.makes("leak") or suite.makes("refusal"):
        found |= {
            f"asked.{name}": asking(facts[name], suite) for name in ("direct", "held_out", "cloze", "more")
        }
    if state != "control":
        for name, kept, most in (
            ("siblings", requests.siblings, suite.sibling_prompts),
            ("neighbours", requests.held_out_neighbours, suite.neighbour_prompts),
        ):
            if suite.asks(name):
                counts = _prompts(requests, kept)
                count = counts["held_out"] + counts["cloze"]
                found[f"asked.{name}"] = asking(min(count, most or count), suite)
        for name in ("benign", "lookalike"):
            if suite.asks(name):
                found[f"asked.{name}"] = asking(questions(name, audit, suite), suite)
    asked = facts["held_out"] + facts["cloze"]
    if suite.asks("sampled"):
        found["sampled"] = sampling(asked, suite)
    if state != "control":
        found[PIECE] = agreement(suite)
    if suite.asks("choice", "rank", "letters"):
        found["likelihood"] = likelihood(suite)
    if state != "control":
        if suite.makes("capability"):
            found |= {f"capability.{name}": task(audit, suite) for name in audit.task_names}
        if suite.makes("toxicity"):
            found["toxicity"] = toxicity(suite)
    for name in suite.attacks:
        if state in ATTACKS[name].states:
            found[f"attack.{name}"] = attack(name, asked, suite)
    if state == "after" and suite.makes("drift"):
        # Both models read the text, the unedited one once more for its inputs; and both read kept and asked prompts.
        shown = sum(min(PROMPTS, found.get(f"asked.{name}", 0.0) / asking(1, suite)) for name in HIDDEN)
        found["drift"] = READ * (3 * suite.text_tokens + 2 * READ_ROW * shown)
    return {name: amount for name, amount in found.items() if amount}


def _prompts(requests: Requests, facts: Sequence[Fact]) -> dict[str, int]:
    """Number of prompts about some facts, by group."""
    counts = {"direct": 0, "held_out": 0, "cloze": 0, "more": 0}
    policy = requests.policy
    systems = 1 if policy.system is None else 2
    for fact in facts:
        for key, value in policy.relations[fact.relation]:
            if isinstance(value, dict):
                value = tuple(template for templates in value.values() for template in templates)
            for template in value if isinstance(value, tuple) else ():
                question = is_question(template)
                group = {"prompts": "direct", "held_out": "held_out" if question else "cloze"}.get(
                    key, "more"
                )
                counts[group] += systems if question and group != "more" else 1
    return counts


@dataclass(frozen=True)
class Estimate:
    """What a suite asks of the states of a model, and about how long that takes."""

    suite: Suite
    work: Mapping[State, Work]
    """Generated tokens, by state and piece; a state that is known from an earlier run is not there."""
    seconds: Mapping[State, float] | None
    """By state; None where nothing is known about this model's speed."""
    measured: bool
    """Whether every piece of it was timed in an earlier audit of this model."""

    @property
    def total(self) -> float | None:
        """Seconds of all states together."""
        return None if self.seconds is None else sum(self.seconds.values())

    def sentence(self) -> str:
        """One line for people."""
        attacks = len(self.suite.attacks)
        what = f"suite {self.suite.name}: {len(self.suite.measurements) - attacks} measurements"
        what += f" and {attacks} attack{'s' if attacks != 1 else ''}" if attacks else ""
        if self.total is None or self.seconds is None:
            return f"{what}; how long it takes is not known before this model was run once"
        names = {"before": "unedited model", "after": "edited model", "control": "control"}
        parts = ", ".join(f"{names[state]} {spoken(some)}" for state, some in self.seconds.items())
        basis = "as timed before" if self.measured else "a rough estimate"
        return f"{what}; about {spoken(self.total)} ({parts}; {basis})"


def estimate(
    requests: Requests, suite: Suite, states: Sequence[State], paces: Paces, speed: Speed | None = None
) -> Estimate:
    """Estimate a suite.

    Args:
        states: those that have to be measured.
        speed: for pieces that were never timed; None if not known, and the questions' pace is taken if they were.
    """
    works = {state: work(requests, suite, state) for state in states}
    known = {name: paces.known(name) for pieces in works.values() for name in pieces}
    usual = paces.known("asked.direct")
    if speed is None and usual is not None:
        speed = Speed(usual, READ * usual)

    def seconds(name: str, amount: float) -> float | None:
        pace = known[name]
        if pace is not None:
            return amount * pace
        return None if speed is None else speed.of(name, amount)

    costs = {state: [seconds(*piece) for piece in pieces.items()] for state, pieces in works.items()}
    whole = all(cost is not None for some in costs.values() for cost in some)
    summed = {state: sum(cost or 0.0 for cost in some) for state, some in costs.items()}
    timed = all(pace is not None for name, pace in known.items() if name != "drift")
    return Estimate(suite, works, summed if whole else None, timed)


def speed_of(model: EditableModel, requests: Requests) -> Speed:
    """Measure a model in two short runs, over prompts that differ as an audit's do."""
    relations, tokenizer = requests.policy.relations, model.tokenizer
    asked = [(fact, text) for fact in requests.facts for text in relations[fact.relation].prompts]
    prompts = [ask(tokenizer, text, fact.subject) for fact, text in some(asked, TRIED, 0)]
    room = model.context - max(len(prompt.ids) for prompt in prompts)
    steps = min(STEPS, room - 1)

    def seconds(some: Sequence[Prompt], tokens: int) -> float:
        begin = time.monotonic()
        model.generate(some, max_new_tokens=tokens)
        return time.monotonic() - begin

    seconds(prompts[:1], 1)  # pays for what is set up once
    begun = seconds(prompts, 1)
    step = max(seconds(prompts, 1 + steps) - begun, 0.0) / steps if steps > 0 else begun
    said = (begun + (SAID - 1) * step) / (len(prompts) * SAID)
    return Speed(said, begun / sum(len(prompt.ids) for prompt in prompts), step)


def spoken(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
