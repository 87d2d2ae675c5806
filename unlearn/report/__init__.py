"""The outcome as a document, and every form in which it is shown."""

from unlearn.report.document import (
    Cloud,
    Count,
    Curve,
    Drawing,
    FactRow,
    Grid,
    Interval,
    Judging,
    Measurement,
    Report,
    Unit,
    counted,
    judge,
    rule_of,
    schema,
    verdict_of,
)

__all__ = [
    "Cloud",
    "Count",
    "Curve",
    "Drawing",
    "FactRow",
    "Grid",
    "Interval",
    "Judging",
    "Measurement",
    "Report",
    "Unit",
    "counted",
    "judge",
    "rule_of",
    "schema",
    "verdict_of",
]
