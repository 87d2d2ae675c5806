"""The outcome as a document, and every form in which it is shown."""

from unlearn.report.document import FactRow, Report, counted, schema, verdict_of
from unlearn.report.drawings import Cloud, Curve, Drawing, Grid
from unlearn.report.measurement import Count, Interval, Judging, Measurement, Unit, judge, rule_of

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
