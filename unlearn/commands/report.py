"""`unlearn report`: a report once more, in another form or judged in another way, without any model."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from unlearn.commands.options import Place
from unlearn.commands.said import FAILED, PASSED, say
from unlearn.errors import UnlearnError
from unlearn.files import read_bytes
from unlearn.report import Judging, Report, schema
from unlearn.runs.folder import outside_runs, write_whole
from unlearn.runs.outcome import table_text
from unlearn.runs.sealed import REPORT, whole

FORMS = {
    "text": "",
    "json": REPORT,
    "html": "report.html",
    "md": "report.md",
    "junit": "junit.xml",
    "card": "model-card.md",
}
"""The files of a run directory by the name of their form; text is the terminal's table."""


def _rendered(report: Report, form: str) -> str:
    from unlearn.report.files import (
        DOCUMENTS,
    )  # its template engine takes time that other commands need not wait

    return table_text(report) if form == "text" else DOCUMENTS[FORMS[form]](report)


@click.command(short_help="Show a report in another form, or judge it strictly.")
@click.argument("run", type=Place(), required=False)
@click.option(
    "--as", "form", type=click.Choice(list(FORMS)), default="text", show_default=True, help="The form."
)
@click.option(
    "--judge",
    "judged",
    type=click.Choice(["point", "strict"]),
    help="Apply the limits to the estimates, or to the unfavourable ends of their intervals.",
)
@click.option("--out", type=Place(dir_okay=False), help="Write a file; not into the run directory.")
@click.option("--schema", "print_schema", is_flag=True, help="Print the JSON Schema of report.json.")
def report(run: Path | None, form: str, judged: Judging | None, out: Path | None, print_schema: bool) -> int:
    """Show the report of a RUN directory (or a report.json) in another form, or judge it in another way.

    Needs no model: the numbers are those of the run, and so are the limits. A run directory in which a file was changed
    is an error (`unlearn verify` lists what differs). The exit code is 3 if the verdict is "failed". card is a section
    for a model card, junit a file for CI systems.

    \b
    Examples:
        unlearn report runs/first
        unlearn report runs/first --as card
        unlearn report runs/first --judge strict --as junit --out junit-strict.xml
        unlearn report --schema
    """
    if print_schema:
        say(schema(), nl=False)
        return PASSED
    if run is None:
        raise click.UsageError("missing argument RUN (or --schema)")
    found = read_report(run)
    if judged is not None:
        found = found.under(judged)
    text = _rendered(found, form)
    if out is None:
        say(text, nl=False)
        sys.stdout.flush()
    else:
        outside_runs(out, run)
        write_whole(out, text)
    return PASSED if found.passed else FAILED


def read_report(run: Path) -> Report:
    """The report of a run directory that is whole, or of a file in one; of any other file with a note on stderr.

    Raises:
        UnlearnError: it cannot be read, or the run directory was changed.
    """
    recorded = whole(run)
    found = report_at(run / REPORT if run.is_dir() else run)
    if recorded is None:
        say(
            f"unlearn: note that {run} lies in no run directory, so nothing shows whether it was changed",
            err=True,
        )
    return found


def report_at(path: Path) -> Report:
    """The report in a file, whatever lies around it; raises UnlearnError that names the file."""
    raw = read_bytes(path)
    try:
        return Report.from_json(raw)
    except UnlearnError as error:
        raise UnlearnError(f"{path}: {error}") from None
