"""One measurement of an audit, and how its limit is applied to it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from unlearn.errors import AuditError
from unlearn.measurements import FAMILIES, Rule, Unit, row_of
from unlearn.policy.former import present

Judging = Literal["point", "strict"]
"""Whether a limit is applied to the estimate, or to the unfavourable end of its 95 % interval as well."""
Interval = tuple[float, float]
MeasurementName = Annotated[str, AfterValidator(present)]
"""What is measured; a report of an earlier version may call it otherwise."""

#: Slack for limits that are met exactly: 0.90 - 0.885 is 0.01500000000000001 in floats.
_SLACK = 1e-9


def rule_of(name: str) -> Rule:
    """The rule for a measurement's limit.

    Raises:
        AuditError: if the name belongs to no family.
    """
    family = name.partition(".")[0]
    if family not in FAMILIES:
        raise AuditError(f"{name!r} is not a measurement; the families are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[family].rule


def is_exact(name: str) -> bool:
    """Whether a measurement is a number about the weights or the audit as they are: no interval to judge strictly."""
    row = row_of(name)
    return row is not None and not row.interval


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


def _far_end(rule: Rule, ci95: Interval | None, change_ci95: Interval | None, limit: float) -> bool:
    """Whether the unfavourable end of the interval meets the limit; without an interval nothing is shown."""
    interval = ci95 if rule.startswith("at ") else change_ci95
    if interval is None:
        return False
    low, high = interval
    if rule == "at least":
        return low >= limit - _SLACK
    return (-low if rule == "drop at most" else high) <= limit + _SLACK


class Document(BaseModel):
    """What the documents of a report have in common: frozen, strict, and finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Count(Document):
    """Hits before and after out of n."""

    before: int | None = None
    """None where the state before was not asked."""
    after: int
    n: int
    ci95: Interval | None = None
    """95 % interval of after / n."""


class Measurement(Document):
    """One number before and after the edit, on the same probes, and whether it meets its limit."""

    name: MeasurementName
    before: float | None = None
    """On the unedited model; None where the number is about the pair (drift) or could not be had."""
    after: float | None
    """On the edited model; None if it could not be measured, which fails."""
    limit: float | None = None
    """From the policy; None makes the measurement informational."""
    passed: bool | None
    """None only for an informational measurement that was made."""
    judged: Judging = "point"
    """What the limit was applied to: the estimate, or also the unfavourable end of its interval."""
    n: int = Field(default=0, ge=0)
    """Number of items behind `after` (and `before`): pairs of fact and prompt, questions, task items, tokens."""
    ci95: Interval | None = None
    """95 % interval of `after`."""
    change_ci95: Interval | None = None
    """95 % interval of `after` - `before` over the paired items, where the limit is about the change."""
    unit: Unit = "share"
    """What `before`, `after` and `limit` are counted in; a share is from 0 to 1."""
    before_ci95: Interval | None = None
    """95 % interval of `before`."""
    hits: int | None = None
    """Items behind `after` that count, where it is a share of items."""
    before_hits: int | None = None
    """The same behind `before`."""
    unanswered: int = Field(default=0, ge=0)
    """Replies after the edit that ended inside their thoughts; with them all as hits, `ci95` ends where it does."""
    control: float | None = None
    """On a model that never knew the facts, where the audit has one: what success by chance looks like."""
    control_ci95: Interval | None = None
    """95 % interval of `control`."""
    chance: float | None = None
    """How often it comes out so by chance: by guessing where the answer is one of several; of sampled replies after
    the edit, the mean share of the other facts whose answers they contain."""
    p_value: float | None = None
    """Exact two-sided McNemar p-value of the change, where the items are paired yes/no outcomes."""
    parts: dict[str, Count] = Field(default_factory=dict)
    """The same counts by relation or category, where the items fall into several."""
    by_weight: dict[str, float] = Field(default_factory=dict)
    """The same number for every weight matrix that changed, where it is about the weights."""
    rule: Rule
    """How the limit is applied."""
    definition: str = ""
    """What was counted, in a sentence or two."""
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
        elif self.passed != self._meets(self.judged):
            raise ValueError(f"{self.name} says passed={self.passed}, which its own numbers contradict")
        return self

    def _meets(self, judged: Judging) -> bool | None:
        if self.after is None:
            return False
        if self.limit is None:
            return None
        met = judge(self.rule, self.before, self.after, self.limit)
        if not met or judged == "point" or is_exact(self.name):
            return met
        return _far_end(self.rule, self.ci95, self.change_ci95, self.limit)

    @property
    def short_of_proof(self) -> bool:
        """Whether the estimate meets the limit, and only the end of its interval does not."""
        return self.passed is False and self.judged == "strict" and self._meets("point") is True

    def under(self, judged: Judging) -> Self:
        """The same numbers, judged that way."""
        return self.model_copy(update={"judged": judged, "passed": self._meets(judged)})

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
