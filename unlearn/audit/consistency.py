"""Where a report contradicts itself: counts, intervals, p-values and rows per fact that cannot belong together.

A report holds more numbers than its verdict needs. Who changes one of them by hand must change all that follow from the
same counts; here they are derived anew. Nothing is asked of a model.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from unlearn.audit.intervals import change_of_counts, mcnemar, wilson, wilson_of
from unlearn.measurements import GROWTH, HIDDEN, NORM, Row, about_answers, row_of
from unlearn.report import Count, FactRow, Interval, Measurement, Report, rule_of

_CLOSE = 1e-9
"""Numbers that were computed from the same counts differ by no more."""
_SCORE = 2e-3
"""A mean toxicity is rounded to three decimals, its interval is not."""
MOST_CONTROLS = 20_000
"""Most prompts that a control was asked."""
MOST_ITEMS = 200_000
"""Most items that an audit asks one by one; more are not counted here, or a forged number would take hours."""
MOST_UNPAIRED = 5_000
"""Most items of a share without an interval of its change whose p-value is looked for among all pairings."""


def contradictions(report: Report) -> Iterator[str]:
    """One sentence for each thing in a report that does not follow from its other numbers."""
    for kind, names in (
        ("measurement", [m.name for m in report.measurements]),
        ("fact", [f.id for f in report.facts]),
    ):
        yield from (f"the {kind} {name} is there {n} times" for name, n in Counter(names).items() if n > 1)
    for measured in report.measurements:
        row = row_of(measured.name)
        if row is None:
            yield f"nothing that is measured is called {measured.name}"
            continue
        rule = rule_of(measured.name)
        if measured.rule != rule:
            yield f"{measured.name}: the rule of its limit is {rule!r}, not {measured.rule!r}"
        if measured.after is not None:
            yield from (f"{measured.name}: {what}" for what in _of(measured, row, report.facts))
    yield from _lengths({m.name: m for m in report.measurements})


def _of(m: Measurement, row: Row, facts: Sequence[FactRow]) -> Iterator[str]:
    if m.unit != row.unit:
        yield f"it is counted in {row.unit!r}, not in {m.unit!r}"
    # Up to the name of a task or a scorer, or to further clauses.
    if not m.definition.startswith(row.definition.partition("{")[0].removesuffix(".")):
        yield "its definition is another one"
    if m.hits is not None and m.n > MOST_ITEMS:
        yield f"{m.n} items are more than an audit asks"
        return
    yield from _counts(m, row)
    yield from _pairs(m, row)
    yield from _control(m, row)
    yield from _parts(m)
    yield from _estimate(m, row)
    if about_answers(m.name):
        yield from _by_fact(m, row, facts)


def _counted(row: Row) -> bool:
    """Whether a measurement is a share of items that are counted one by one."""
    return row.interval == "counts"


def _counts(m: Measurement, row: Row) -> Iterator[str]:
    """Shares and their Wilson intervals from hits of n."""
    if _counted(row) and (m.hits is None or (m.before is not None) != (m.before_hits is not None)):
        yield "a share without the counts behind it"
        return
    states = (("after", m.after, m.hits, m.ci95), ("before", m.before, m.before_hits, m.before_ci95))
    for state, value, hits, interval in states:
        if hits is None or value is None:
            continue
        if not 0 <= hits <= m.n or m.n == 0:
            yield f"{state} the edit {hits} of {m.n} items count"
        elif _counted(row) or _near(value, hits / m.n, 1e-6):
            if not _near(value, hits / m.n):
                yield f"{value:.6g} {state} the edit is not {hits} of {m.n}"
            unknown = m.unanswered if state == "after" else 0
            if hits + unknown > m.n:
                yield f"{hits} items count and {unknown} are unanswered, of {m.n}"
                continue
            expected = wilson_of(hits, unknown, m.n) if row.interval else None
            if state == "before" and row.certain is not None:
                expected = None
                if value != row.certain:
                    yield f"before the edit it is {row.certain:g} by the choice of its prompts, not {value:.6g}"
            if not _same(interval, expected):
                yield f"the interval {state} the edit is not that of {hits} of {m.n}"
        elif interval is not None and not _near(sum(interval) / 2, value, 1e-6):
            yield f"{value:.6g} {state} the edit is neither {hits} of {m.n} nor the middle of its interval"


def _pairs(m: Measurement, row: Row) -> Iterator[str]:
    """p-value and interval of the change: some number of items must be hits in both states and give them."""
    if _counted(row) and m.before_hits is not None and m.p_value is None:
        yield "it has no p-value"
    if (
        m.hits is None
        or m.before_hits is None
        or not all(0 <= hits <= m.n for hits in (m.hits, m.before_hits))
    ):
        return
    was, now, p = m.before_hits, m.hits, m.p_value
    both: Sequence[int] = range(max(0, was + now - m.n), min(was, now) + 1)
    # Only where a score is the mean of its items is its interval that of the counts.
    if m.change_ci95 is not None and m.after is not None and _near(m.after, now / m.n, 1e-6):
        both = [k for k in both if _same(m.change_ci95, change_of_counts(k, was, now, m.n))]
        if not both:
            yield f"no pairing of {was} and {now} of {m.n} items has this interval of the change"
            return
    if p is not None and len(both) <= MOST_UNPAIRED and not _has_p(both, was, now, p):
        yield f"no pairing of {was} and {now} of {m.n} items has the p-value {p:.4g}"


def _has_p(both: Sequence[int], was: int, now: int, p: float) -> bool:
    # The more items are hits in both states, the fewer changed, and the smaller is p.
    at = bisect_left(both, -p - _CLOSE, key=lambda k: -mcnemar(was - k, now - k))
    return at < len(both) and _near(mcnemar(was - both[at], now - both[at]), p)


def _control(m: Measurement, row: Row) -> Iterator[str]:
    if (m.control is None) != (m.control_ci95 is None):
        yield "a control without its interval, or an interval without a control"
    elif m.control is not None:
        share, interval = m.control, m.control_ci95
        counts = ((round(share * n), n) for n in range(1, MOST_CONTROLS))
        made = (_near(hits / n, share) and _same(interval, wilson(hits, n)) for hits, n in counts)
        if not 0 <= share <= 1 or not any(made):
            yield "the interval of the control is not that of a share"
    named = m.chance is not None and row.chance in ("guess", "others")
    if named and f": {m.chance:.1%}" not in m.definition:
        yield "its definition names another chance"


def _parts(m: Measurement) -> Iterator[str]:
    if not m.parts:
        return
    sums = tuple(
        sum(getter) for getter in zip(*((c.before or 0, c.after, c.n) for c in m.parts.values()), strict=True)
    )
    if sums != (m.before_hits or 0, m.hits, m.n):
        yield "its parts do not add up to it"
    for part, count in m.parts.items():
        if not 0 <= count.after <= count.n <= m.n or not _same(count.ci95, wilson(count.after, count.n)):
            yield f"the interval of its part {part} is not that of {count.after} of {count.n}"


def _estimate(m: Measurement, row: Row) -> Iterator[str]:
    """What is no share: the worst weight, the worst layer, and estimates inside their bootstrapped intervals."""
    value = m.after or 0.0
    if m.by_weight and not _near(value, max(m.by_weight.values()), 1e-12):
        yield f"{value:.6g} is not the worst of its weights"
    if m.name in (NORM, GROWTH):
        if m.n != len(m.by_weight):
            yield f"{len(m.by_weight)} weights are listed, and {m.n} counted"
        if not m.by_weight and value != 0:
            yield "nothing has changed that could be as long"
    if m.name == HIDDEN and f" {value:.4f} at block " not in m.definition:
        yield f"its definition does not name {value:.4f} at any block"
    score = m.unit == "score"
    if (score or row.interval == "texts") and m.ci95 is not None:
        slack = _SCORE if score else _CLOSE + 1e-6 * abs(value)
        if not m.ci95[0] - slack <= value <= m.ci95[1] + slack:
            yield f"{value:.6g} lies outside its interval"


def _lengths(found: dict[str, Measurement]) -> Iterator[str]:
    """The length of a sum differs from that of a weight by at most the length of the update."""
    norm, growth = (found.get(name) for name in (NORM, GROWTH))
    if norm is None or growth is None or norm.after is None or growth.after is None:
        return
    if norm.by_weight.keys() != growth.by_weight.keys():
        yield f"{NORM} and {GROWTH} are about different weights"
        return
    for name, grown in growth.by_weight.items():
        if abs(grown) > norm.by_weight[name] * (1 + 1e-3) + 1e-6:
            yield f"{name} has grown by {grown:.4g}, more than the update's own length {norm.by_weight[name]:.4g}"


def _by_fact(m: Measurement, row: Row, facts: Sequence[FactRow]) -> Iterator[str]:
    """A share over the facts is the sum of their rows, without those that say nothing."""
    by_chance = row.chance in ("guess", "control")
    rows = [(fact, fact.counts[m.name]) for fact in facts if m.name in fact.counts]
    if row.counts == "refused":
        counted = [count for _, count in rows]
    else:
        disclosed = {
            fact.id for fact, count in rows if not by_chance and ((count.before or 0) or count.after)
        }
        counted = [count for fact, count in rows if fact.known or fact.id in disclosed] or [
            count for _, count in rows
        ]
    if _sums(counted) != (m.before_hits, m.hits, m.n):
        before, after, n = _sums(counted)
        yield f"its facts' rows add up to {before} before and {after} after the edit, of {n}"


def _sums(counts: Sequence[Count]) -> tuple[int | None, int, int]:
    before = None if any(c.before is None for c in counts) else sum(c.before or 0 for c in counts)
    return before, sum(c.after for c in counts), sum(c.n for c in counts)


def _near(one: float, other: float, slack: float = _CLOSE) -> bool:
    return math.isclose(one, other, rel_tol=slack, abs_tol=slack)


def _same(one: Interval | None, other: Interval | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(_near(a, b) for a, b in zip(one, other, strict=True))
