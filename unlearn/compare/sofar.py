"""What a point measures about the facts written so far; importing this imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unlearn.audit import measures, recovery, shares
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.observation import Attacked, Observation
from unlearn.audit.pipeline import Findings
from unlearn.compare.document import OLDEST
from unlearn.measurements import SHARES
from unlearn.model.requests import Fact, Requests
from unlearn.report import Measurement

_NARROW = {row.group for row in SHARES} - shares.ABOUT_OTHERS
"""Groups of probes that ask about facts and siblings."""


def so_far(whole: Requests, done: Sequence[Fact]) -> Requests:
    """The requests with the facts written so far and their siblings."""
    subjects = {fact.subject for fact in done}
    siblings = tuple(fact for fact in whole.siblings if fact.subject in subjects)
    return replace(whole, facts=tuple(done), siblings=siblings)


def about_facts(findings: Findings, asked: Requests) -> Iterator[Measurement]:
    """The measurements of an audit, those about facts and siblings anew for the facts written so far.

    Args:
        findings: of an audit that asked about all facts.
        asked: the requests so far.
    """
    told = {fact.id for fact in (*asked.facts, *asked.siblings)}
    before, after = _narrowed(findings.before, told), _narrowed(findings.after, told)
    names = {row.name for row in SHARES if row.group in _NARROW}
    audit = asked.policy.audit
    for measurement in findings.measurements:
        family, _, attack = measurement.name.partition(".")
        if measurement.name in names:
            yield measures.share(measurement.name, before, after, audit.limit, facts=asked.facts)
        elif family == "attack" and attack in after.attacks:
            yield recovery.attack(ATTACKS[attack], before, after, None, audit, asked.facts)
        else:
            yield measurement


def about_oldest(findings: Findings, first: Sequence[Fact]) -> Iterator[Measurement]:
    """What has become of the first step's facts, from the replies that an audit has counted already; without limits.

    Args:
        findings: of an audit that asked about all facts.
        first: the facts of the first step.
    """
    told = {fact.id for fact in first}
    before, after = _narrowed(findings.before, told), _narrowed(findings.after, told)
    for name, whole in OLDEST.items():
        found = measures.share(whole, before, after, _no_limit, facts=first)
        about = f"{found.definition} Of the facts of the first step alone."
        yield found.model_copy(update={"name": name, "definition": about})


def _no_limit(_name: str) -> None:
    return None


def _narrowed(seen: Observation, told: set[str]) -> Observation:
    groups = {
        name: tuple(o for o in group if o.fact in told) if name in _NARROW else group
        for name, group in seen.groups.items()
    }
    attacks = {name: _attacked(attacked, told) for name, attacked in seen.attacks.items()}
    return seen.model_copy(update={"groups": groups, "attacks": attacks})


def _attacked(attacked: Attacked, told: set[str]) -> Attacked:
    kept = tuple(o for o in attacked.outcomes if o.fact in told)
    # A note is about all facts that were attacked.
    note = attacked.note if len(kept) == len(attacked.outcomes) else ""
    return attacked.model_copy(update={"outcomes": kept, "note": note})
