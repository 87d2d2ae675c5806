"""What an audit found: measurements, and the verdict that they add up to.

The documents here are frozen, travel as JSON and never import torch, so that a report can be read, judged
again and rendered on a machine that could not run the model. No text of a question, an answer or a reply is
part of a report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from unlearn.errors import AuditError
from unlearn.measurements import about_answers
from unlearn.report.drawings import Drawing
from unlearn.report.measurement import (
    Count,
    Document,
    Judging,
    Measurement,
    MeasurementName,
)
from unlearn.shown import shown_lines

Verdict = Literal["passed", "failed"]


class FactRow(Document):
    """What happened to one fact, by its id: counts, never text."""

    id: str
    known: bool = True
    """Whether the unedited model gave the answer to at least one prompt."""
    counts: dict[MeasurementName, Count] = Field(default_factory=dict)
    """By measurement name: replies that leaked or refused, before and after."""


class Report(Document):
    """The outcome of an audit."""

    verdict: Verdict
    """Passed if at least one limit was set and nothing failed."""
    measurements: tuple[Measurement, ...]
    """Everything that was measured, or should have been."""
    facts: tuple[FactRow, ...] = ()
    """Counts per fact, by its id."""
    drawings: tuple[Drawing, ...] = ()
    """What the plots show; never text."""
    not_tested: tuple[str, ...] = ()
    """What the verdict says nothing about."""
    manifest: dict[str, Any] = Field(default_factory=dict)
    """What the numbers are about: hashes, versions, settings, machine."""

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

    def under(self, judged: Judging) -> Self:
        """The same measurements, judged that way, and the verdict that follows."""
        again = tuple(m.under(judged) for m in self.measurements)
        return self.model_copy(update={"measurements": again, "verdict": verdict_of(again)})

    @property
    def strict(self) -> bool:
        """Whether any limit was applied to the unfavourable end of an interval."""
        return any(m.judged == "strict" for m in self.measurements)

    @property
    def statement(self) -> str:
        """What may be said about the model: which tests it holds under and which were not made."""
        return statement(self)

    def to_json(self) -> str:
        """JSON with a newline at the end; `Report.from_json` reads it back to an equal report."""
        return shown_lines(self.model_dump_json(indent=2)) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a report, and check that its verdict follows from its own numbers.

        Raises:
            AuditError: if the text is no report or contradicts itself.

        Examples:
            With the ``report`` of the example of ``audit``:

            >>> unlearn.Report.from_json(report.to_json()) == report
            True
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise AuditError(f"this is not a valid report: {where}: {first['msg']}") from None


UNSHOWN = "no limit about the facts' answers was met, so the verdict is failed"
"""Why a report fails in which no limit is missed."""


def counted(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Those that count for the verdict: whatever has a limit, and whatever could not be measured."""
    return [m for m in measurements if m.passed is not None]


def verdict_of(measurements: Iterable[Measurement]) -> Verdict:
    """The verdict: passed if a limit about the facts' answers was met and none was missed; failed in every other case.

    Without one, nothing says that the model was ever asked for what it has to forget.
    """
    judged = counted(measurements)
    suppressed = any(m.passed and about_answers(m.name) for m in judged)
    return "passed" if suppressed and all(m.passed for m in judged) else "failed"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _by_reason(items: Iterable[str]) -> list[str]:
    """Items such as `a (why)` and `b (why)` as `a and b (why)`, each reason where it first came up."""
    names: dict[str, list[str]] = {}
    for item in items:
        name, bracket, reason = item.partition(" (")
        names.setdefault(bracket + reason if reason else item, []).append(name)
    return [_listed(found) + reason if reason.startswith(" (") else reason for reason, found in names.items()]


def statement(report: Report) -> str:
    """One sentence on suppression, one on failed limits, and the list of what was not tested."""
    about = [m for m in report.measurements if about_answers(m.name)]
    held = [m.name for m in about if m.passed]
    said = [
        f"Suppressed under tests {_listed(held)}." if held else "Suppression was not shown under any test."
    ]
    if report.failures:
        plural = "s" if len(report.failures) > 1 else ""
        said.append(f"Failed limit{plural}: {_listed(m.name for m in report.failures)}.")
    elif not any(m.passed is not None for m in report.measurements):
        said.append("No limit was set, so nothing was judged.")
    elif not report.passed:
        said.append(f"{UNSHOWN[0].upper()}{UNSHOWN[1:]}.")
    if report.strict:
        said.append("Limits were applied to the unfavourable ends of the 95 % intervals.")
    if report.not_tested:
        said.append(f"Not tested: {'; '.join(_by_reason(report.not_tested))}.")
    return " ".join(said)


def schema() -> str:
    """The JSON Schema of `report.json`, as it is shipped in evals/report.schema.json."""
    return json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n"
