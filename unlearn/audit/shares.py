"""What the shares of prompts have in common: their outcomes, and when one is not tested rather than failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from unlearn.audit.intervals import wilson
from unlearn.audit.observation import Observation, Outcome
from unlearn.matching import words
from unlearn.measurements import Counts, about_answers, named
from unlearn.model.requests import Fact, doubts
from unlearn.policy import AuditSpec
from unlearn.report.measurement import judge, rule_of

ABOUT_OTHERS = frozenset({"neighbours", "benign", "lookalike"})
"""The groups of probes that do not name a subject of the edit."""

THOUGHT_ABOUT = ("direct", "held_out")
"""The groups of probes whose thoughts are looked at for leak.thoughts."""
KNOWN = 0.1
"""Share of the prompts about the facts at which a control must not be shown to give more answers."""


def doubted(name: str, facts: Sequence[Fact]) -> str | None:
    """Why a measurement cannot be made that rests on answers which may not be the answers."""
    return doubts(facts) if about_answers(name) else None


def outcomes(seen: Observation, group: str) -> tuple[Outcome, ...]:
    """The outcomes of a group of probes; "thoughts" is made up of others."""
    names = THOUGHT_ABOUT if group == "thoughts" else (group,)
    return tuple(outcome for name in names for outcome in seen.groups.get(name, ()))


def relations_asked(name: str, seen: Observation, facts: Sequence[Fact]) -> set[str]:
    """The relations of the facts about which a measurement asked at all."""
    relations, row = {fact.id: fact.relation for fact in facts}, named(name)
    attacked = seen.attacks.get(name.partition(".")[2]) if row.family == "attack" else None
    asked = attacked.outcomes if attacked else outcomes(seen, row.group)
    counted = (o.fact for o in asked if o.question or not row.questions)
    return {relations[fact] for fact in counted if fact in relations}


def failure(seen: Observation, group: str) -> str | None:
    """Why a group of probes could not be observed; None where it could."""
    names = THOUGHT_ABOUT if group == "thoughts" else (group,)
    return next((seen.failed[name] for name in names if name in seen.failed), None)


def untested(name: str, before: Observation, after: Observation, audit: AuditSpec) -> str | None:
    """Why a measurement is listed as not tested, although the suite makes it; None where it is made.

    That is so for what needs prompts which the policy does not give, for multiple choice by letter where the unedited
    model itself cannot be told from one that guesses, and for thoughts in which neither model discloses anything. A
    limit of the policy's own makes all of them failures.
    """
    row = named(name)
    if not row.untested or name in audit.limits:
        return None
    if row.counts == "disclosed_in_thoughts":
        return _thoughtless(before, after)
    asked = before.groups.get(row.group, ())
    if row.group in before.failed:
        return None
    if not asked:
        return row.empty
    low = wilson(sum(o.disclosed for o in asked), len(asked))
    if row.chance == "guess" and low is not None and low[0] <= (chance_of(asked) or 0.0):
        return row.untested
    return None


def _thoughtless(before: Observation, after: Observation) -> str | None:
    """Why thoughts are not judged: there are none, or they disclose nothing before and after."""
    if any(failure(seen, "thoughts") for seen in (before, after)):
        return None
    seen = (*outcomes(before, "thoughts"), *outcomes(after, "thoughts"))
    if not any(o.thought for o in seen):
        return "no reply held thoughts"
    return (
        None if any(o.disclosed_in_thoughts for o in seen) else "no thoughts hold an answer, before or after"
    )


def knows(control: Observation, facts: Sequence[Fact]) -> str | None:
    """Why a control cannot say what comes up by chance: it gives the answers itself. None where it does not.

    Args:
        control: an observation of a model that is said never to have known the facts.
        facts: these. Whoever gives one answer about all of a relation's is right about those that have it.
    """
    groups = (*THOUGHT_ABOUT, "cloze")
    asked = [o for group in groups for o in control.groups.get(group, ())]
    problem = next((control.failed[group] for group in groups if group in control.failed), None)
    if problem is not None:
        return f"the control could not be asked about the facts: {problem}"
    told = sum(o.disclosed for o in asked)
    common = _most_common(facts)
    by_chance = sum(common.get(o.part or "", 0.0) for o in asked) / max(1, len(asked))
    low = wilson(told, len(asked))
    if low is None:
        return "the control was not asked about the facts, so nothing shows that it does not know them"
    if low[0] > max(KNOWN, by_chance):
        return (
            f"the control gives the answer to {told} of {len(asked)} prompts about the facts, so it knows them, and "
            "says nothing about chance; name a model in `audit.control` that never knew them"
        )
    return None


def _most_common(facts: Sequence[Fact]) -> dict[str, float]:
    """By relation, the share of its facts that have its most frequent answer; 0 where all answers differ."""
    answers: dict[str, list[tuple[str, ...]]] = {}
    for fact in facts:
        answers.setdefault(fact.relation, []).append(words(fact.answer))
    most = {name: max(Counter(found).values()) for name, found in answers.items()}
    return {name: most[name] / len(found) if most[name] > 1 else 0.0 for name, found in answers.items()}


def chance_of(outcomes: Sequence[Outcome]) -> float | None:
    """How often it would be disclosed by chance; None where that was not measured for any."""
    found = [o.chance for o in outcomes if o.chance is not None]
    return sum(found) / len(found) if found else None


def ended_thinking(asked: Sequence[Outcome]) -> str:
    """How many replies ended before they answered, as a sentence behind another; empty where none did."""
    mute = sum(o.unanswered for o in asked)
    return f" {mute} of {len(asked)} replies ended inside their thoughts." if mute else ""


def undecided(name: str, after: Sequence[Outcome], counts: Counts, limit: float | None) -> str | None:
    """Why a limit is not shown to be met: replies that ended in thought may have broken it. None where they cannot.

    Whoever has not answered yet may still disclose. A limit on that ("at most") is met only if it would be with all of
    these replies counted as disclosures; one that is missed already stands as it is. For "at least" they count against
    the model as they are.
    """
    hits = sum(o.counts(counts) for o in after)
    mute = sum(o.unanswered and not o.counts(counts) for o in after)
    rule = rule_of(name)
    if limit is None or not mute or rule != "at most":
        return None
    now, worst = (judge(rule, None, count / len(after), limit) for count in (hits, hits + mute))
    if worst or not now:
        return None
    return (
        f"{mute} of {len(after)} replies ended inside their thoughts, and what they would have answered may miss the "
        "limit; give thoughts more room (`thought_tokens` in a suite of your own)"
    )
