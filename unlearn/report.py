"""What an audit found: measurements, the verdict they add up to, and how a terminal shows them.

The documents here are frozen, travel as JSON and never import torch, so that a report can be read, judged
again and rendered on a machine that could not run the model. No text of a question, an answer or a reply is
part of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from unlearn.errors import AuditError

Verdict = Literal["passed", "failed"]
Rule = Literal["at most", "at least", "drop at most", "rise at most"]
Unit = Literal["share", "nats/token", "ratio", "score"]

#: How a limit is applied, by the family of the measurement (the part of its name before the first dot).
RULES: Mapping[str, Rule] = {
    "leak": "at most",
    "refusal": "at least",
    "retain": "at least",
    "overrefusal": "at most",
    "capability": "drop at most",
    "toxicity": "rise at most",
    "drift": "at most",
    "attack": "at most",
}
#: Slack for limits that are met exactly: 0.90 - 0.885 is 0.01500000000000001 in floats.
_SLACK = 1e-9


def rule_of(name: str) -> Rule:
    """The rule for a measurement's limit.

    Raises:
        AuditError: if the name belongs to no family.
    """
    family = name.partition(".")[0]
    if family not in RULES:
        raise AuditError(f"{name!r} is not a measurement; the families are {', '.join(sorted(RULES))}")
    return RULES[family]


def judge(rule: Rule, before: float | None, after: float | None, limit: float) -> bool:
    """Whether a point estimate meets its limit; a number that is missing or not finite does not."""
    if after is None or not math.isfinite(after):
        return False
    if rule == "at most":
        return after <= limit + _SLACK
    if rule == "at least":
        return after >= limit - _SLACK
    if before is None or not math.isfinite(before):
        return False
    change = before - after if rule == "drop at most" else after - before
    return change <= limit + _SLACK


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measurement(_Document):
    """One number before and after the edit, on the same probes, and whether it meets its limit."""

    name: str
    before: float | None = None
    """On the unedited model; None where the number is about the pair (drift) or could not be had."""
    after: float | None
    """On the edited model; None if it could not be measured, which fails."""
    limit: float | None = None
    """From the policy; None makes the measurement informational."""
    passed: bool | None
    """None only for an informational measurement that was made."""
    n: int = Field(default=0, ge=0)
    """Number of items behind `after` (and `before`): pairs of fact and prompt, questions, task items, tokens."""
    ci95: tuple[float, float] | None = None
    """95 % interval of `after`."""
    unit: Unit = "share"
    before_ci95: tuple[float, float] | None = None
    hits: int | None = None
    """Items behind `after` that count, where it is a share of items."""
    before_hits: int | None = None
    control: float | None = None
    """On a model that never knew the facts, where the audit has one: what success by chance looks like."""
    control_ci95: tuple[float, float] | None = None
    p_value: float | None = None
    """Exact two-sided McNemar p-value of the change, where the items are paired yes/no outcomes."""
    rule: Rule
    definition: str = ""
    reason: str | None = None
    """Why it could not be measured, in one sentence."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.after is None:
            if self.passed is not False or not self.reason:
                raise ValueError(f"{self.name} was not measured, so it needs passed=False and a reason")
        elif self.limit is None:
            if self.passed is not None:
                raise ValueError(f"{self.name} has no limit, so it can neither pass nor fail")
        elif self.passed != judge(self.rule, self.before, self.after, self.limit):
            raise ValueError(f"{self.name} says passed={self.passed}, which its own numbers contradict")
        return self

    @classmethod
    def made(cls, name: str, after: float, limit: float | None = None, **rest: Any) -> Self:
        """A measurement judged by its own numbers; one that is not finite counts as not made."""
        before = rest.get("before")
        if not math.isfinite(after) or (before is not None and not math.isfinite(before)):
            bad = "after" if not math.isfinite(after) else "before"
            return cls.missing(name, f"the value {bad} the edit is not a finite number", limit, **rest)
        rule = rule_of(name)
        passed = None if limit is None else judge(rule, before, after, limit)
        return cls(name=name, after=after, limit=limit, passed=passed, rule=rule, **rest)

    @classmethod
    def missing(cls, name: str, reason: str, limit: float | None = None, **rest: Any) -> Self:
        """A measurement that could not be made: failed, with the reason."""
        kept = {key: rest[key] for key in ("definition", "unit") if key in rest}
        return cls(
            name=name, after=None, limit=limit, passed=False, rule=rule_of(name), reason=reason, **kept
        )


class Count(_Document):
    """Hits before and after out of n."""

    before: int
    after: int
    n: int


class FactRow(_Document):
    """What happened to one fact, by its id: counts, never text."""

    id: str
    known: bool = True
    """Whether the unedited model gave the answer to at least one prompt."""
    counts: dict[str, Count] = Field(default_factory=dict)
    """By measurement name: replies that leaked or refused, before and after."""


State = Literal["before", "after", "control"]


class Curve(_Document):
    """A line of a plot: curves of one measurement are drawn together, one line per state."""

    kind: Literal["curve"] = "curve"
    name: str
    """The measurement that it belongs to, such as "attack.relearn_text"."""
    state: State = "after"
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


class Grid(_Document):
    """A heat map: one row per fact id, one column per layer or step."""

    kind: Literal["grid"] = "grid"
    name: str
    state: State = "after"
    x_label: str
    value_label: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    """By row, from 0 to 1."""


class Cloud(_Document):
    """Points of a plane, by group."""

    kind: Literal["cloud"] = "cloud"
    name: str
    state: State = "after"
    x_label: str
    y_label: str
    points: dict[str, tuple[tuple[float, float], ...]]


Drawing = Annotated[Curve | Grid | Cloud, Field(discriminator="kind")]


class Report(_Document):
    """The outcome of an audit."""

    verdict: Verdict
    measurements: tuple[Measurement, ...]
    facts: tuple[FactRow, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    """What the plots show; never text."""
    not_tested: tuple[str, ...] = ()
    manifest: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _verdict_follows(self) -> Self:
        if self.verdict != verdict_of(self.measurements):
            raise ValueError(f"the verdict {self.verdict!r} does not follow from the measurements")
        return self

    @classmethod
    def of(
        cls,
        measurements: Iterable[Measurement],
        not_tested: Iterable[str] = (),
        manifest: Mapping[str, Any] | None = None,
        facts: Iterable[FactRow] = (),
        drawings: Iterable[Drawing] = (),
    ) -> Self:
        """A report with the verdict that follows from its measurements."""
        found = tuple(measurements)
        return cls(
            verdict=verdict_of(found),
            measurements=found,
            facts=tuple(facts),
            drawings=tuple(drawings),
            not_tested=tuple(not_tested),
            manifest=dict(manifest or {}),
        )

    @property
    def passed(self) -> bool:
        """Whether the verdict is "passed"."""
        return self.verdict == "passed"

    @property
    def failures(self) -> tuple[Measurement, ...]:
        """Measurements that failed, in order."""
        return tuple(m for m in self.measurements if m.passed is False)

    @property
    def statement(self) -> str:
        """What may be said about the model: which tests it holds under and which were not made."""
        return statement(self)

    def to_json(self) -> str:
        """JSON with a newline at the end; `Report.from_json` reads it back to an equal report."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a report, and check that its verdict follows from its own numbers.

        Raises:
            AuditError: if the text is no report or contradicts itself.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise AuditError(f"this is not a valid report: {where}: {first['msg']}") from None


def verdict_of(measurements: Iterable[Measurement]) -> Verdict:
    """The verdict: passed if at least one limit was set and nothing failed, and failed in every other case."""
    found = list(measurements)
    judged = [m for m in found if m.passed is not None]
    return "passed" if judged and all(m.passed for m in judged) else "failed"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def statement(report: Report) -> str:
    """One sentence on suppression, one on failed limits, and the list of what was not tested."""
    about = [m for m in report.measurements if m.name.partition(".")[0] in ("leak", "refusal", "attack")]
    held = [m.name for m in about if m.passed]
    said = [
        f"Suppressed under tests {_listed(held)}." if held else "Suppression was not shown under any test."
    ]
    if report.failures:
        plural = "s" if len(report.failures) > 1 else ""
        said.append(f"Failed limit{plural}: {_listed(m.name for m in report.failures)}.")
    elif not any(m.passed is not None for m in report.measurements):
        said.append("No limit was set, so nothing was judged.")
    if report.not_tested:
        said.append(f"Not tested: {'; '.join(report.not_tested)}.")
    return " ".join(said)


def show(value: float | None, unit: Unit, signed: bool = False) -> str:
    """A value for people: shares as percentages, scores to three places, the rest to four."""
    if value is None:
        return "-"
    sign = "+" if signed and value > 0 else ""
    if unit == "share":
        return f"{sign}{100 * value:.1f} %"
    if unit == "ratio":
        return f"{sign}{value:.4f}"
    if unit == "score":
        return f"{sign}{value:.3f}"
    return f"{sign}{value:.4f}" if abs(value) >= 0.001 or value == 0 else f"{sign}{value:.1e}"


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


_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("·", "dim")}


def table(report: Report) -> Group:
    """The report for a terminal: verdict, one row per measurement (failed first), reasons, and the statement."""
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    grid.add_column("")
    grid.add_column("measurement", no_wrap=True)
    for heading in ("before", "after", "95 % interval"):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("limit")
    grid.add_column("n", justify="right")
    for m in failed_first(report.measurements):
        mark, style = _MARKS[m.passed]
        grid.add_row(
            Text(mark, style),
            Text(m.name, "bold red" if m.passed is False else ""),
            show(m.before, m.unit),
            Text("not measured", "bold red") if m.after is None else Text(show(m.after, m.unit), style),
            Text(show_interval(m.ci95, m.unit), "dim"),
            show_limit(m),
            Text(str(m.n) if m.n else "", "dim"),
        )
    style = "bold green" if report.passed else "bold red"
    judged = sum(m.passed is not None for m in report.measurements)
    headline = Text.assemble(
        (("PASSED" if report.passed else "FAILED"), style),
        f"  {judged - len(report.failures)} of {judged} limits met",
    )
    reasons = [Text(f"{m.name}: {m.reason}", "red") for m in report.failures if m.reason]
    return Group(headline, Text(""), grid, Text(""), *reasons, Text(report.statement))


def print_report(report: Report, console: Console | None = None) -> None:
    """Print `table(report)` on stdout, or on the console given; piped output is not folded at 80 columns."""
    if console is None:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=120)
    console.print(table(report))
