"""The table of measurements, and how a row is found: by the name of a measurement in a policy, a suite or a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from unlearn.measurements.rows import FAMILIES, SECTIONS, TOPICS, Counts, Family, Row, Rule, Unit
from unlearn.measurements.table import ALWAYS, DIRECT, GROWTH, HIDDEN, NORM, ROWS

__all__ = [
    "ALWAYS",
    "ATTACKS",
    "DEFAULT_LIMITS",
    "DIRECT",
    "FAMILIES",
    "GROWTH",
    "HIDDEN",
    "NAMES",
    "NORM",
    "REPLIES",
    "ROWS",
    "SECTIONS",
    "SHARES",
    "TOPICS",
    "Counts",
    "Family",
    "Row",
    "Rule",
    "Unit",
    "about_answers",
    "named",
    "place",
    "row_of",
]

_BY_NAME: Mapping[str, Row] = {row.name: row for row in ROWS}

NAMES = tuple(row.name for row in ROWS if row.suite)
"""What a suite may name."""
SHARES = tuple(row for row in ROWS if row.group and row.unit == "share")
"""The shares of prompts, each counted over a group of probes."""
REPLIES = tuple(row.name for row in SHARES if row.chance != "guess" and row.counts != "disclosed_in_thoughts")
"""The shares that are counted over replies, which can be shown (`unlearn replies`)."""
ATTACKS = tuple(row for row in ROWS if row.family == "attack")


def _limits() -> Iterator[tuple[str, float]]:
    """A family's limit stands before the first of its rows."""
    for row in ROWS:
        shared = FAMILIES[row.family].limit
        if shared is not None:
            yield row.family, shared
        if row.limit is not None:
            yield row.name, row.limit


DEFAULT_LIMITS: Mapping[str, float] = dict(_limits())
"""The limit of every measurement, or of its family, that a policy does not set itself."""


def row_of(name: str) -> Row | None:
    """The row of a measurement; None where there is none.

    Args:
        name: as a policy, a suite or a report has it: "leak.cloze", "capability.arc_easy", "toxicity.demo.share".
    """
    family = name.partition(".")[0]
    several = _BY_NAME.get(family)  # one row for all tasks, and for all scorers
    if several is not None and name.endswith(".share"):
        return _BY_NAME.get(f"{family}.share", several)
    return _BY_NAME.get(name, several)


def named(name: str) -> Row:
    """The row of exactly this name, for the function that makes it.

    Raises:
        KeyError: there is none.
    """
    return _BY_NAME[name]


def about_answers(name: str) -> bool:
    """Whether a measurement rests on the facts' answers, and says nothing where these may be wrong."""
    family = FAMILIES.get(name.partition(".")[0])
    return family is not None and family.answers


def place(name: str) -> tuple[int, str]:
    """Where a measurement stands in a report: in the order of the table, attacks by their names."""
    row = row_of(name)
    if row is None:
        return len(ROWS), name
    return ROWS.index(ATTACKS[0] if row in ATTACKS else row), name
