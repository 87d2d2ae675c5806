"""The numbers of a report in words: for the terminal, the page, and the documents alike."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from unlearn.measurements import FAMILIES, SECTIONS
from unlearn.report.document import Report
from unlearn.report.measurement import Measurement, Unit


def show(value: float | None, unit: Unit) -> str:
    """A value for people: shares as percentages, scores to three places, the rest to four."""
    if value is None:
        return "-"
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "score":
        return f"{value:.3f}"
    return f"{value:.1e}" if unit != "ratio" and 0 < abs(value) < 0.001 else f"{value:.4f}"


def show_interval(interval: tuple[float, float] | None, unit: Unit) -> str:
    """An interval for people, in the same places as `show`."""
    if interval is None:
        return ""
    if unit == "share":
        return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
    return f"{show(interval[0], unit)} to {show(interval[1], unit)}"


def show_limit(measurement: Measurement) -> str:
    """The limit with its rule: "at most 5.0 %", "drop at most 1.5 points"."""
    limit, rule, unit = measurement.limit, measurement.rule, measurement.unit
    if limit is None:
        return ""
    if unit == "share":
        return f"{rule} {100 * limit:g} " + ("%" if rule.startswith("at ") else "points")
    return f"{rule} {limit:g}"


def failed_first(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Failed, then passed, then informational; the order within each is kept."""
    return sorted(measurements, key=lambda m: {False: 0, True: 1, None: 2}[m.passed])


def why(m: Measurement) -> str:
    """Why a measurement failed, in one sentence; nothing for one that did not."""
    if m.passed is not False:
        return ""
    if m.after is None:
        return f"not measured: {m.reason}"
    counted = f" ({m.hits} of {m.n})" if m.hits is not None else ""
    before = f", before {show(m.before, m.unit)}" if m.before is not None else ""
    said = f"{show(m.after, m.unit)}{counted}{before}; the limit is {show_limit(m)}"
    if not m.short_of_proof:
        return said
    interval = m.ci95 if m.rule.startswith("at ") else m.change_ci95
    if interval is None:
        return f"{said}: the estimate meets it, but it has no interval by which it could be judged strictly"
    need = enough(m)
    more = f"; even if all went well it would take {need} items" if need and need > m.n else ""
    which = "of the change " if m.rule not in ("at most", "at least") else ""
    return f"{said}: the estimate meets it, the 95 % interval {which}({show_interval(interval, m.unit)}) does not{more}"


def enough(m: Measurement) -> int | None:
    """Items that a share needs for its interval to meet the limit when every one goes well.

    At 0 of n the Wilson interval ends at z^2 / (n + z^2); so n must be at least z^2 (1 - limit) / limit.
    """
    if m.unit != "share" or m.limit is None or not m.rule.startswith("at "):
        return None
    slack = m.limit if m.rule == "at most" else 1 - m.limit
    z2 = 1.959963984540054**2
    return math.ceil(z2 * (1 - slack) / slack) if 0 < slack < 1 else None


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the same order: each at most alpha keeps all false alarms below alpha.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = highest
    return adjusted


def adjusted(report: Report) -> dict[str, float]:
    """Holm-adjusted p-values by measurement."""
    tested = [m for m in report.measurements if m.p_value is not None]
    return dict(zip([m.name for m in tested], holm([m.p_value or 0.0 for m in tested]), strict=True))


def comparisons(report: Report) -> str:
    """What the number of tests means for their p-values; nothing where there are none."""
    found = adjusted(report)
    if not found:
        return ""
    raw = sum(m.p_value is not None and m.p_value < 0.05 for m in report.measurements)
    held = sum(p < 0.05 for p in found.values())
    tests = f"{len(found)} changes were tested" if len(found) > 1 else "One change was tested"
    return (
        f"{tests}: {raw} with p below 0.05, {held} after Holm's correction for their number. If nothing had "
        f"changed, {0.05 * len(found):.1f} would be expected below 0.05 without it. No limit is judged by a p-value. "
        "The 95 % intervals are not corrected: each holds for its own measurement, not for all of them at once."
    )


State = Literal["passed", "failed", "unjudged", "untested"]


class Glance(NamedTuple):
    """One line of the table for people who read nothing else."""

    title: str
    question: str
    state: State
    answer: str


_WORD: Mapping[State, str] = {
    "passed": "limits met",
    "failed": "limit missed",
    "unjudged": "no limit set",
    "untested": "not tested",
}


def in_a_word(state: State) -> str:
    """The state of a line in words: no meaning hangs on a colour or a mark."""
    return _WORD[state]


def glance(report: Report) -> list[Glance]:
    """One line per heading: whether its limits are met, and the number that is nearest to its limit or beyond."""
    lines = []
    for title, question in SECTIONS:
        rows = _under(title, report)
        judged = [m for m in rows if m.passed is not None]
        if not rows:
            lines.append(Glance(title, question, "untested", "Nothing was measured; nothing is claimed."))
        elif not judged:
            lines.append(Glance(title, question, "unjudged", f"{_several(rows)} without a limit."))
        else:
            failed = [m for m in judged if not m.passed]
            lines.append(Glance(title, question, "failed" if failed else "passed", _answer(judged, failed)))
    return lines


def _under(title: str, report: Report) -> list[Measurement]:
    """The measurements under a heading, in order."""
    families = [family.name for family in FAMILIES.values() if family.section == title]
    return [m for m in report.measurements if m.name.partition(".")[0] in families]


def _several(rows: Sequence[Measurement]) -> str:
    return f"{len(rows)} measurements" if len(rows) > 1 else "1 measurement"


def _answer(judged: Sequence[Measurement], failed: Sequence[Measurement]) -> str:
    met = f"{len(judged) - len(failed)} of {len(judged)} limits met."
    unmade = [m for m in failed if m.after is None]
    if unmade and len(unmade) == len(failed):
        more = f" and {len(unmade) - 1} more" if len(unmade) > 1 else ""
        return f"{met} Not measured: {unmade[0].name}{more}."
    worst = min((m for m in judged if m.after is not None), key=room)
    value = show(worst.after, worst.unit)
    if not worst.rule.startswith("at ") and worst.before is not None:
        value += f" (before {show(worst.before, worst.unit)})"
    lead = "Furthest off" if failed else "Nearest to its limit"
    return f"{met} {lead}: {worst.name} with {value}, {show_limit(worst)}."


def room(m: Measurement) -> float:
    """How far a measurement is from its limit, as a share of what the limit allows; negative beyond it."""
    if m.after is None or m.limit is None:
        return -math.inf
    if m.rule == "at most":
        gap, scale = m.limit - m.after, m.limit
    elif m.rule == "at least":
        gap, scale = m.after - m.limit, 1 - m.limit if m.unit == "share" else m.limit
    else:
        change = m.after - (m.before or 0.0)
        gap, scale = m.limit - (-change if m.rule == "drop at most" else change), m.limit
    # A strict failure lies within its limit and is none the less missed.
    return (gap - (abs(scale) + 1 if m.short_of_proof else 0)) / (abs(scale) or 1.0)


def sections(report: Report) -> list[tuple[str, str, list[Measurement]]]:
    """Measurements under their headings, failed ones first within each; empty headings are left out."""
    found = []
    for title, question in SECTIONS:
        rows = _under(title, report)
        if rows:
            found.append((title, question, failed_first(rows)))
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names with their values."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        else:
            yield name, json.dumps(value, ensure_ascii=False)


class About(NamedTuple):
    """What a report is about, as far as its manifest says; empty where it does not."""

    name: str
    model: str
    method: str
    when: str

    @property
    def line(self) -> str:
        """Model, method and time in one line."""
        parts = [
            f"model {self.model}" if self.model else "",
            f"method {self.method}" if self.method else "",
            self.when,
        ]
        return " · ".join(part for part in parts if part)


def about(report: Report) -> About:
    """What the report is about, from its manifest."""
    facts = dict(flat(report.manifest))

    def first(*endings: str) -> str:
        return next((v for e in endings for k, v in facts.items() if k == e or k.endswith("." + e)), "")

    # An audit judges a candidate that the policy's method need not have made.
    method = (
        "" if "candidate" in report.manifest else first("patch.header.method.name", "method.name", "method")
    )
    if method and facts.get("settings.method.name") == "auto" and method != "auto":
        method = f"{method} (chosen by auto)"
    return About(
        first("policy.name", "name", "policy") or "audit",
        first("settings.model", "model"),
        method,
        first("started", "created"),
    )


def met(report: Report) -> tuple[int, int]:
    """Limits that are met, and limits that were judged."""
    judged = [m for m in report.measurements if m.passed is not None]
    return len(judged) - len(report.failures), len(judged)
