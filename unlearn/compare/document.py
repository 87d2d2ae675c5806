"""What a comparison of methods found: points, and the document for programs (`unlearn.compare.table` shows it).

Like a report it is frozen, travels as JSON, never imports torch, and holds numbers and ids only: no text of a policy.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from unlearn.files import JsonObject
from unlearn.measurements import SHARES
from unlearn.report import Cloud, Measurement
from unlearn.report.measurement import Document
from unlearn.shown import shown_lines

FORMAT = "unlearn-compare-1"
UNEDITED = "unedited model"
OLDEST = {f"{row.family}.oldest": row.name for row in SHARES if row.group == "direct"}
"""What is measured of the facts of the first step alone, after every step; and of which measurement it is a part."""


class Point(Document):
    """One method, with one seed, after some of the facts."""

    method: str
    seed: int
    step: int
    edits: int
    """Facts written so far."""
    measurements: tuple[Measurement, ...]
    """Leaks, refusals, siblings and attacks about the facts written so far; the rest as in every audit. Of several
    steps also what has become of the first one's facts (`OLDEST`), which no limit is about."""
    judged: tuple[int, int]
    """Limits of the policy that are met, and those that were judged."""
    layers: tuple[int, ...]
    """Layers that the edit writes; none for a method that leaves the weights alone."""
    from_scratch: bool
    """Whether the step wrote all facts so far on the unedited model, instead of building on the step before."""
    states: tuple[Cloud, ...] = ()
    """Hidden states before and after, in the plane of their first two principal components."""
    seconds: float
    """Of the edit, without the audit."""
    patch: str
    """File of the patch in the comparison's folder."""

    def value(self, name: str) -> float | None:
        """A measurement after the edit; None where it could not be made. "capability" is the mean over its tasks."""
        return _mean([m.after for m in self.measurements if _is(m, name)])

    def before(self, name: str) -> float | None:
        """The same on the unedited model."""
        return _mean([m.before for m in self.measurements if _is(m, name)])

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval, where one measurement has this name."""
        found = [m for m in self.measurements if _is(m, name)]
        return found[0].ci95 if len(found) == 1 else None


class Failure(Document):
    """A method that could not go on."""

    method: str
    seed: int
    step: int
    edits: int
    reason: str


class Comparison(Document):
    """Everything that was found."""

    format: str = FORMAT
    policy: str
    model: str
    facts: int
    steps: int
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    """In the order of the command line."""
    points: tuple[Point, ...]
    failures: tuple[Failure, ...] = ()
    manifest: JsonObject = Field(default_factory=dict)

    def to_json(self) -> str:
        """JSON with a newline at the end, without the hidden states: those are in the points' own files."""
        return shown_lines(self.model_dump_json(indent=2, exclude={"points": {"__all__": {"states"}}})) + "\n"

    def at(self, method: str, edits: int) -> list[Point]:
        """The points of a method after so many facts, one per seed."""
        return [p for p in self.points if p.method == method and p.edits == edits]

    def measures(self, name: str) -> bool:
        """Whether a measurement is part of it: with one step there are no oldest edits."""
        return self.steps > 1 or name not in OLDEST

    def edits(self, method: str) -> list[int]:
        """Numbers of facts that a method got to, ascending."""
        return sorted({p.edits for p in self.points if p.method == method})


def _is(measurement: Measurement, name: str) -> bool:
    return measurement.name == name or (name == "capability" and measurement.name.startswith("capability."))


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [v for v in found if v is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None
