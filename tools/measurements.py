"""Write the reference part of docs/measurements.md from the table: `python -m tools.measurements`.

What stands between the two marks is generated; everything else on the page is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from unlearn.audit.suite import load_suite
from unlearn.measurements import FAMILIES, ROWS, SECTIONS, Row

PAGE = Path(__file__).resolve().parent.parent / "docs" / "measurements.md"
BEGIN = "<!-- measurements: begin. Written by `python -m tools.measurements`; change unlearn/measurements/table.py -->"
END = "<!-- measurements: end -->"
SUITES = ("quick", "standard", "full")
_INTERVALS = {"texts": "texts resampled", "prompts": "prompts resampled", "": "exact, no interval"}
"""What is no share of counted items, with its Wilson interval, or a mean over items."""


def reference() -> str:
    """The generated part, marks included."""
    return "\n".join([BEGIN, "", *_families(), *_sections(), END])


def page(text: str) -> str:
    """A page whose generated part is up to date.

    Raises:
        ValueError: it does not hold both marks.
    """
    before, after = text.index(BEGIN), text.index(END)
    return text[:before] + reference() + text[after + len(END) :]


def _families() -> Iterator[str]:
    yield "| measurement | limit means | a limit may be |"
    yield "|---|---|---|"
    for family in FAMILIES.values():
        name = f"{family.name}.{family.several or '*'}"
        most = (
            f"from {family.low:g} to {family.high:g}" if isfinite(family.high) else f"at least {family.low:g}"
        )
        yield f"| `{name}` | {family.rule} | {most} |"
    yield ""


def _sections() -> Iterator[str]:
    suites = {name: load_suite(name).measurements for name in SUITES}
    for title, question in SECTIONS:
        yield f"**{title}: {question[0].lower()}{question[1:]}**"
        yield ""
        yield "| measurement | what it is | default limit | n counts | needs | suites |"
        yield "|---|---|---|---|---|---|"
        for row in (row for row in ROWS if FAMILIES[row.family].section == title):
            made = ", ".join(name for name in SUITES if row.name in suites[name])
            cells = (f"`{_name(row)}`", _said(row), limit(row), _counted(row), _needs(row), made)
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""


def _name(row: Row) -> str:
    several = FAMILIES[row.family].several
    return ".".join(part for part in (row.family, several, row.name.partition(".")[2]) if part)


def _said(row: Row) -> str:
    return row.definition.format(name=f"`{FAMILIES[row.family].several}`")


def limit(row: Row) -> str:
    """The limit that a measurement has unless the policy sets one, in words."""
    family = FAMILIES[row.family]
    value = family.limit if row.limit is None else row.limit
    if not row.judged:
        return "none: it informs"
    if value is None:
        return "at most the interval of the control, else of guessing"
    unless = "; with a control, at most its interval" if row.chance == "control" else ""
    return f"{family.rule} {value:g}{unless}"


def _counted(row: Row) -> str:
    interval = _INTERVALS.get(row.interval)
    return f"{row.items} ({interval})" if interval else row.items


def _needs(row: Row) -> str:
    needs = row.needs or FAMILIES[row.family].needs
    return f"{needs}; not tested where {row.untested}" if row.untested else needs


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
