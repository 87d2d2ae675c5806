"""Where a report is not what an audit of its policy gives: other limits, less measured, facts or warnings gone.

The numbers themselves are not asked for again; that is `unlearn audit`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.intervals import wilson
from unlearn.audit.pipeline import not_tested
from unlearn.audit.shares import ABOUT_OTHERS
from unlearn.audit.suite import Suite
from unlearn.measurements import DIRECT, SHARES, row_of
from unlearn.policy import Policy
from unlearn.report import Measurement, Report
from unlearn.thoughts import Room

ELICITED = 24
"""Tokens of a reply by which a fact counts as known (``edit.requests.resolve.LENGTH``): a longer one may tell later."""


def unlimited(report: Report, policy: Policy) -> Iterator[str]:
    """One sentence for each fact, limit and way of judging in which a report differs from its policy.

    Args:
        report: consistent in itself (``consistency.contradictions``).
        policy: in force when it was made.
    """
    wanted, ids = [fact.id for fact in policy.facts], [fact.id for fact in report.facts]
    if wanted != ids:
        gone = [name for name in wanted if name not in ids]
        yield f"its facts are not the policy's ({len(ids)} for {len(wanted)}{f'; {gone[0]} is gone' if gone else ''})"
    for measured in report.measurements:
        yield from (f"{measured.name}: {what}" for what in _judged(measured, policy))


def unexpected(report: Report, policy: Policy, suite: Suite, control: bool) -> Iterator[str]:
    """One sentence for each thing in which a report differs from what an audit gives by its suite.

    Args:
        report: consistent in itself (``consistency.contradictions``).
        policy: in force when it was made.
        control: whether the audit had a model that never knew the facts.
    """
    made = {m.name: m for m in report.measurements}
    for measured in report.measurements:
        if (
            measured.after is not None
            and _controlled(measured.name)
            and (measured.control is not None) != control
        ):
            yield f"{measured.name}: the control {'is gone' if control else 'is one that the policy does not name'}"
    yield from (f"{name} is not there: {why}" for name, why in _missing(made, report, policy, suite))
    known = [fact.known for fact in report.facts]
    owed = tuple(not_tested(policy, known, suite))
    if report.not_tested[-len(owed) :] != owed:
        yield "what it lists as not tested is not what its suite and its facts leave out"
    if suite.max_new_tokens <= ELICITED and suite.thought_tokens <= Room(ELICITED).thoughts:
        yield from _disclosed_unknown(report)


def _judged(m: Measurement, policy: Policy) -> Iterator[str]:
    if m.judged != policy.audit.judge:
        yield f"it is judged by {m.judged!r}, and the policy says {policy.audit.judge!r}"
    limit = _limit(m, policy)
    if m.limit != limit:
        said, owed = ("none" if value is None else f"{value:g}" for value in (m.limit, limit))
        yield f"its limit is {said}, and the policy's {owed}"


def _limit(m: Measurement, policy: Policy) -> float | None:
    """The limit that the policy gives a measurement, or the interval of chance where it gives none."""
    audit, limit = policy.audit, policy.audit.limit(m.name)
    row = row_of(m.name)
    if m.after is None or row is None:
        return limit
    if row.chance == "control" and audit.own_limit(m.name) is None and m.control_ci95 is not None:
        return round(m.control_ci95[1], 4)
    if row.chance == "guess" and limit is None:
        by_chance = math.ceil(round((m.chance or 0.0) * m.n, 6))
        chance = m.control_ci95 or (wilson(by_chance, m.n) if 0 <= by_chance <= m.n else None)
        return None if chance is None else round(chance[1], 4)
    return limit


def _controlled(name: str) -> bool:
    """Whether a control, where there is one, is measured as well."""
    if name.startswith("attack."):
        attack = ATTACKS.get(name.removeprefix("attack."))
        return attack is not None and "control" in attack.states
    row = row_of(name)
    return row is not None and row in SHARES and row.group not in {*ABOUT_OTHERS, "siblings"}


def _missing(
    made: Mapping[str, Measurement], report: Report, policy: Policy, suite: Suite
) -> Iterator[tuple[str, str]]:
    """Names of measurements that should be there, and who says so."""
    by_suite = f"the suite {suite.name} makes it"
    for name in suite.measurements:
        several = name in ("capability", "toxicity")  # one per task, and one or two per scorer
        if not several and name not in made and not _excused(name, report, policy):
            yield name, by_suite
    if suite.makes("capability"):
        yield from (
            (f"capability.{task}", "the policy names the task")
            for task in policy.audit.task_names
            if f"capability.{task}" not in made
        )
    scores = [name for name in made if name.startswith("toxicity.") and not name.endswith(".share")]
    if suite.makes("toxicity") and not scores:
        yield "toxicity", by_suite
    yield from (
        (f"{name}.share", by_suite)
        for name in scores
        if made[name].after is not None and f"{name}.share" not in made
    )
    for name in policy.audit.limits:
        if name not in made and not any(other.startswith(f"{name}.") for other in made):
            yield name, "the policy sets a limit for it"


def _excused(name: str, report: Report, policy: Policy) -> bool:
    """Whether a share may be missing although the suite makes it: the report must say so, and the policy agree."""
    row = row_of(name)
    if row is None or not row.untested or name in policy.audit.limits:
        return False
    thoughts = row.counts == "disclosed_in_thoughts"
    thought = [fact.counts[name] for fact in report.facts if thoughts and name in fact.counts]
    if any(count.before or count.after for count in thought):
        return False
    used = [policy.relations[fact.relation] for fact in policy.facts]
    given = any(relation.further.get(row.group) for relation in used)
    return not given and any(item.startswith(f"{name} (") for item in report.not_tested)


def _disclosed_unknown(report: Report) -> Iterator[str]:
    for fact in report.facts:
        asked = fact.counts.get(DIRECT)
        if asked is not None and not fact.known and asked.n and asked.before == asked.n:
            yield f"{fact.id} is called unknown, and the unedited model answers each of the policy's prompts"
