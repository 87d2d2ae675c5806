"""How a terminal shows a report."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from unlearn.report.document import Report
from unlearn.report.words import failed_first, met, show, show_interval, show_limit, why
from unlearn.shown import shown

_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("·", "dim")}


def _text(text: str, style: str = "") -> Text:
    """Text in which nothing is markup, neither rich's nor the terminal's."""
    return Text(shown(text), style)


def table(report: Report) -> Group:
    """The report for a terminal: verdict, one row per measurement (failed first), reasons, and the statement."""
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    grid.add_column("")
    grid.add_column("measurement", no_wrap=True)
    controlled = any(m.control is not None for m in report.measurements)
    for heading in ("before", "after", "95 % interval", *(["control"] if controlled else [])):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("limit")
    grid.add_column("n", justify="right")
    for m in failed_first(report.measurements):
        mark, style = _MARKS[m.passed]
        grid.add_row(
            Text(mark, style),
            _text(m.name, "bold red" if m.passed is False else ""),
            _text(show(m.before, m.unit)),
            _text("not measured", "bold red") if m.after is None else _text(show(m.after, m.unit), style),
            _text(show_interval(m.ci95, m.unit), "dim"),
            *([_text(show(m.control, m.unit))] if controlled else []),
            _text(show_limit(m)),
            _text(str(m.n) if m.n else "", "dim"),
        )
    style = "bold green" if report.passed else "bold red"
    good, judged = met(report)
    headline = Text.assemble(
        (("PASSED" if report.passed else "FAILED"), style),
        f"  {good} of {judged} limits met",
    )
    reasons = [
        _text(f"{m.name}: {m.reason or why(m)}", "red")
        for m in report.failures
        if m.reason or m.short_of_proof
    ]
    return Group(headline, Text(""), grid, Text(""), *reasons, _text(report.statement))


def print_report(report: Report, console: Console | None = None) -> None:
    """Print `table(report)` on stdout, or on the console given."""
    printed(table(report), 120, console)


def printed(what: Group, width: int, console: Console | None = None) -> None:
    """Print on stdout, or on the console given; piped output has this width, and is not folded at 80 columns."""
    if console is None:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=width)
    console.print(what)
