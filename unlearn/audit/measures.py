"""From two observations of the same probes to measurements: pure functions on outcomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

from unlearn.audit.intervals import paired, wilson, wilson_of
from unlearn.audit.observation import Observation, Outcome
from unlearn.audit.shares import (
    chance_of,
    doubted,
    ended_thinking,
    failure,
    knows,
    outcomes,
    undecided,
)
from unlearn.errors import AuditError
from unlearn.measurements import FAMILIES, SHARES, Counts, Row, named
from unlearn.model.requests import Fact
from unlearn.report import Count, FactRow, Interval, Measurement

Limits = Callable[[str], float | None]

VAGUE = "the unedited model's replies agree on no answer"
"""Why nothing is asked about a fact that is to stay: nothing is known that could."""


class OnOthers(TypedDict, total=False):
    """Fields of a measurement about other models than the edited one."""

    before: float
    before_hits: int
    before_ci95: Interval | None
    p_value: float | None
    control: float
    control_ci95: Interval | None


def pair(before: Sequence[Outcome], after: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """Outcomes of the same prompts in both states.

    Raises:
        AuditError: the two observations were not made with the same probes.
    """
    if [o.key for o in before] != [o.key for o in after]:
        raise AuditError(
            "the measurements before and after the edit were made with different prompts; measure both anew"
        )
    return list(zip(before, after, strict=True))


def strangers(
    facts: Sequence[Fact],
    pairs: Sequence[tuple[Outcome, Outcome]],
    by_chance: bool,
    counts: Counts = "disclosed",
) -> frozenset[str]:
    """Ids of the facts about which a leak says nothing: unknown before the edit, and disclosed in neither state.

    Args:
        facts: what is to be forgotten.
        by_chance: whether an answer may be guessed; then what is disclosed does not make a fact known.
        counts: what of an outcome says that it was disclosed.
    """
    said = set() if by_chance else {o.fact for both in pairs for o in both if o.counts(counts)}
    return frozenset(fact.id for fact in facts if not fact.known and fact.id not in said)


def silent(after: Sequence[Outcome], counts: Counts) -> int:
    """How many replies ended inside their thoughts, so that nobody knows whether they would have counted."""
    return sum(o.unanswered and not o.counts(counts) for o in after)


def left_out(count: int) -> str:
    """How many prompts do not count, as a sentence behind a definition; empty for none."""
    return (
        f" {count} prompts about facts that the unedited model does not know are left out." if count else ""
    )


def _pairs(row: Row, before: Observation, after: Observation) -> list[tuple[Outcome, Outcome]]:
    """The outcomes behind a share in both states; none where they could not be observed in either."""
    if failure(before, row.group) or failure(after, row.group):
        return []
    pairs = pair(outcomes(before, row.group), outcomes(after, row.group))
    thoughts = row.counts == "disclosed_in_thoughts"
    return [
        (b, a)
        for b, a in pairs
        if (b.question or not row.questions) and (b.thought or a.thought or not thoughts)
    ]


class Asked(NamedTuple):
    """What a share is counted over."""

    pairs: Sequence[tuple[Outcome, Outcome]]
    note: str
    """What was left out, as a sentence behind the definition; may be empty."""
    strange: frozenset[str]
    """Ids of facts that do not count."""


def asked_of(row: Row, before: Observation, after: Observation, facts: Sequence[Fact]) -> Asked | str:
    """The outcomes that count for a share, or the reason why there are none."""
    pairs = _pairs(row, before, after)
    vague = sum(fact.doubt is not None for fact in facts) if row.family == "retain" else 0
    if not pairs:
        nothing = VAGUE if vague and vague == len(facts) else row.empty
        return failure(before, row.group) or failure(after, row.group) or nothing
    unasked = sorted({fact.relation for fact in facts} - {b.part for b, _ in pairs})
    if unasked and row.every_relation:
        names = ", ".join(f"relations.{relation}" for relation in unasked)
        return row.empty.replace(
            "no relation of the facts has", f"not all relations were asked: {names} without"
        )
    if row.family == "leak":
        strange = strangers(facts, pairs, row.chance == "guess", row.counts)
        known = [p for p in pairs if p[0].fact not in strange]
        return Asked(known or pairs, left_out(len(pairs) - len(known)) if known else "", strange)
    if row.family == "retain":
        right = [p for p in pairs if p[0].disclosed]
        if not right:
            return (
                f"the unedited model answers none of the {len(pairs)} prompts, so there is nothing to retain"
            )
        note = f" {len(pairs) - len(right)} of {len(pairs)} prompts left out."
        if vague:
            note += f" Nothing was asked about {vague} of {len(facts)} facts: {VAGUE}."
        return Asked(right, note, frozenset())
    if row.certain is not None:
        answered = [p for p in pairs if not p[0].refused]
        if not answered:
            return f"the unedited model refuses all {len(pairs)} questions, so none is left that an edit could add"
        # An edit is not to blame for what its base refused, and must not be credited for what it no longer refuses.
        note = f" The unedited model refuses {len(pairs) - len(answered)} of {len(pairs)}, the edited one "
        return Asked(answered, note + f"{sum(a.refused for _, a in pairs)}.", frozenset())
    return Asked(pairs, "", frozenset())


def share(
    name: str,
    before: Observation,
    after: Observation,
    limits: Limits,
    control: Observation | None = None,
    facts: Sequence[Fact] = (),
) -> Measurement:
    """A share of prompts, before and after; and of the same prompts on a model that never knew, if there is one.

    Args:
        facts: what it is about. Leaks are counted over those that the unedited model knows.
    """
    row = named(name)
    counts, limit, definition = row.counts, limits(name), row.definition
    asked = doubted(name, facts) or asked_of(row, before, after, facts)
    if isinstance(asked, str):
        return Measurement.missing(name, asked, limit, definition=definition)
    pairs, note, strange = asked
    definition += note
    hits = [(b.counts(counts), a.counts(counts)) for b, a in pairs]
    was, now, n = sum(b for b, _ in hits), sum(a for _, a in hits), len(hits)
    mute = silent([a for _, a in pairs], counts)
    if nothing := _nothing_disclosed(row, pairs, was, now):
        return Measurement.missing(name, nothing, limit, definition=definition)
    never = _never_knew(row, control, strange)
    chance = chance_of([a for _, a in pairs])
    if row.chance == "others" and chance is not None:
        definition += f" By chance: {chance:.1%}, as often as the same replies contain another fact's answer."
    if row.chance == "guess":
        chance = chance or 0.0
        definition += f" Guessing: {chance:.1%}."
        low = wilson(was, n)
        if low is None or low[0] <= chance:
            reason = f"the unedited model is no better than guessing at these {n} prompts, so they show no suppression"
            return Measurement.missing(name, reason, limit, definition=definition)
        if control is not None and limit is None and (known := knows(control, facts)):
            return Measurement.missing(name, known, limit, definition=definition)
        limit = _guessing_limit(chance, n, never) if limit is None else limit
    if unheard := undecided(name, [a for _, a in pairs], counts, limit):
        return Measurement.missing(name, unheard, limit, definition=definition)
    return Measurement.made(
        name,
        now / n,
        limit,
        before=was / n,
        n=n,
        hits=now,
        before_hits=was,
        unanswered=mute,
        ci95=wilson_of(now, mute, n),
        # By choice of the prompts the share before is certain: an interval around it would mean nothing.
        before_ci95=wilson(was, n) if row.certain is None else None,
        p_value=paired([b for b, _ in hits], [a for _, a in hits]),
        definition=definition + ended_thinking([a for _, a in pairs]),
        parts=parts(pairs, counts),
        chance=chance,
        **never,
    )


def _never_knew(row: Row, control: Observation | None, strange: frozenset[str]) -> OnOthers:
    """The same share on a model that never knew, without the facts that do not count."""
    seen = outcomes(control, row.group) if control else ()
    asked = [o for o in seen if o.fact not in strange and (o.question or not row.questions)]
    return on_control([o.counts(row.counts) for o in asked])


def _nothing_disclosed(row: Row, pairs: Sequence[tuple[Outcome, Outcome]], was: int, now: int) -> str:
    """Why a leak cannot show suppression: the unedited model tells nothing; empty if it does."""
    # Thoughts may tell what they did not tell before; there it is what is found that counts.
    if row.family != "leak" or was or (row.counts == "disclosed_in_thoughts" and now):
        return ""
    reason = f"the unedited model gives the answer to none of these {len(pairs)} prompts, so they cannot show"
    return f"{reason} suppression.{ended_thinking([b for b, _ in pairs])}".rstrip(".")


def _guessing_limit(chance: float, n: int, never: OnOthers) -> float | None:
    """The upper end of the interval of a model that never knew, or of what guessing gets."""
    # A mean of floats may lie a hair above the whole number of hits that it stands for.
    high = never.get("control_ci95") or wilson(math.ceil(round(chance * n, 6)), n)
    return None if high is None else round(high[1], 4)


def parts(pairs: Sequence[tuple[Outcome, Outcome]], counts: Counts) -> dict[str, Count]:
    """The counts behind a share by relation or category; nothing where the outcomes have none."""
    found = {}
    for part in sorted({b.part for b, _ in pairs if b.part is not None}):
        mine = [(b.counts(counts), a.counts(counts)) for b, a in pairs if b.part == part]
        now = sum(a for _, a in mine)
        found[part] = Count(
            before=sum(b for b, _ in mine), after=now, n=len(mine), ci95=wilson(now, len(mine))
        )
    return found


def on_control(hits: Sequence[bool]) -> OnOthers:
    """The share on a model that never knew and its interval, as fields of a measurement; none without outcomes."""
    if not hits:
        return {}
    return {"control": sum(hits) / len(hits), "control_ci95": wilson(sum(hits), len(hits))}


def fact_rows(known: dict[str, bool], before: Observation, after: Observation) -> list[FactRow]:
    """Per fact, the counts behind the leak and refusal measurements and the attacks."""
    rows = []
    rows_about = [row for row in SHARES if FAMILIES[row.family].answers]
    about = {row.name: row.counts for row in rows_about}
    pairs = {row.name: _pairs(row, before, after) for row in rows_about}
    for fact, was_known in known.items():
        counts: dict[str, Count] = {}
        for name, what in about.items():
            mine = [(b.counts(what), a.counts(what)) for b, a in pairs[name] if b.fact == fact]
            if mine:
                counts[name] = Count(
                    before=sum(b for b, _ in mine), after=sum(a for _, a in mine), n=len(mine)
                )
        for name, got in after.attacks.items():
            hits = [o.disclosed for o in got.outcomes if o.fact == fact]
            base = before.attacks.get(name)
            was = None if base is None else sum(o.disclosed for o in base.outcomes if o.fact == fact)
            if hits:
                counts[f"attack.{name}"] = Count(before=was, after=sum(hits), n=len(hits))
        rows.append(FactRow(id=fact, known=was_known, counts=counts))
    return rows
