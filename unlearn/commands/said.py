"""How a command speaks: text from elsewhere is shown, and a terminal never obeys it; and how it ends."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from unlearn.measurements import REPLIES
from unlearn.report import Report
from unlearn.report.terminal import print_report
from unlearn.shown import sentence, shown_lines


def say(text: str, err: bool = False, nl: bool = True) -> None:
    """Write text of one or several lines on stdout, or on stderr; nothing else in the commands writes any."""
    click.echo(shown_lines(text), err=err, nl=nl)


def warn(text: str) -> None:
    """Write a warning of one line on stderr."""
    say(f"unlearn: warning: {sentence(text)}", err=True)


show_text = click.option(
    "--show-text",
    is_flag=True,
    help="Show the facts' subjects and answers in report.html, and answers in what a dry run prints: they are harmful "
    "where the policy is about harm.",
)

PASSED, FAILED = 0, 3
WRITTEN = "unlearn.written"
"""Under which a command's context holds the place of its work."""


def tell(report: Report, as_json: bool, folder: Path | None) -> int:
    """Print the outcome on stdout, and return the exit code that goes with the verdict."""
    if as_json:
        say(report.to_json(), nl=False)
    else:
        print_report(report)
        if folder is not None:
            say("")
            if any(m.name in REPLIES and m.after is not None for m in report.failures):
                say(f"replies behind missed limits: unlearn replies {shlex.quote(str(folder))}")
            say(f"run directory: {folder}")
    sys.stdout.flush()
    return PASSED if report.passed else FAILED


def written(place: Path) -> None:
    """Remember where the command's work lies, from when it lies there: an error that comes later has to say so."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[WRITTEN] = place


def place_of(context: click.Context) -> Path | None:
    """Where the work of the command lies, if it has been put there."""
    place = context.meta.get(WRITTEN)
    return place if isinstance(place, Path) else None
