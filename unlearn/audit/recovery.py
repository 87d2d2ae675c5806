"""From what an attack got out of two models to a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from unlearn.audit.attacks.scene import Attack
from unlearn.audit.intervals import paired, wilson, wilson_of
from unlearn.audit.measures import OnOthers, left_out, on_control, pair, silent, strangers
from unlearn.audit.observation import Observation, Outcome
from unlearn.audit.shares import chance_of, doubted, knows, undecided
from unlearn.model.requests import Fact
from unlearn.policy import AuditSpec
from unlearn.report import Measurement


def attack(
    attacked: Attack,
    before: Observation,
    after: Observation,
    control: Observation | None,
    audit: AuditSpec,
    facts: Sequence[Fact] = (),
) -> Measurement:
    """The share of attempts in which an attack recovered the answer, over facts that the unedited model knows.

    The limit of an attack that succeeds by chance at times is, where the policy sets none by its name or for all
    attacks, the upper end of the interval of a model that never knew the facts. One that finds nothing in the unedited
    model either, or no more than by chance, shows nothing.
    """
    name, row = attacked.name, attacked.row
    title, own = row.name, audit.limit(row.name)
    missing = partial(Measurement.missing, title, limit=own, definition=row.definition)
    states = {"before": before, "after": after, "control": control}
    seen = [(state, states[state]) for state in attacked.states]
    failed = (f"{o.failed[title]} ({state})" for state, o in seen if o is not None and title in o.failed)
    got = after.attacks.get(name)
    reason = doubted(title, facts) or next(failed, None)
    if reason is not None or got is None or not got.outcomes:
        return missing(reason or "there was nothing to attack")
    base = before.attacks.get(name)
    pairs = pair(base.outcomes if base else got.outcomes, got.outcomes)
    strange = strangers(facts, pairs, attacked.relative)
    known = [p for p in pairs if p[0].fact not in strange] or pairs
    was, now = [b for b, _ in known], [a for _, a in known]
    hits, mute, n = sum(o.disclosed for o in now), silent(now, "disclosed"), len(now)
    rest: OnOthers = {} if base is None else _before(was, now)
    if own is not None and rest.get("before_hits") == 0:
        return missing(
            f"it gets nothing from the unedited model either (0 of {n}), so it cannot show suppression"
        )
    never = control.attacks.get(name) if control is not None else None
    if never is not None:
        rest |= on_control([o.disclosed for o in never.outcomes if o.fact not in strange])
    limit, chance = own, rest.get("control_ci95")
    if attacked.relative and control is not None and chance is not None and audit.own_limit(title) is None:
        limit, reason = round(chance[1], 4), knows(control, facts)
    if attacked.relative and limit is not None:
        reason = reason or _by_chance(was, rest)
    if reason := reason or undecided(title, now, "disclosed", limit):
        return missing(reason)
    about = " ".join(part for part in (row.definition, got.note) if part)
    return Measurement.made(
        title,
        hits / n,
        limit,
        n=n,
        hits=hits,
        unanswered=mute,
        ci95=wilson_of(hits, mute, n),
        definition=about + left_out(len(pairs) - n),
        **rest,
    )


def _before(was: Sequence[Outcome], now: Sequence[Outcome]) -> OnOthers:
    """What an attack got from the unedited model, as fields of a measurement."""
    told, hits, n = [o.disclosed for o in was], sum(o.disclosed for o in was), len(was)
    tested = paired(told, [o.disclosed for o in now])
    return {"before": hits / n, "before_hits": hits, "before_ci95": wilson(hits, n), "p_value": tested}


def _by_chance(before: Sequence[Outcome], others: OnOthers) -> str | None:
    """Why an attack says nothing about the unedited model: it gets no more from it than by chance; None if it does."""
    low = others.get("before_ci95")
    chances = [c for c in (others.get("control"), chance_of(before)) if c is not None]
    if low is None or not chances or low[0] > max(chances):
        return None
    hits = sum(o.disclosed for o in before)
    return (
        f"it gets no more from the unedited model than by chance ({hits} of {len(before)}), so it cannot show "
        "suppression"
    )
