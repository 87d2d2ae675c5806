"""The end of `apply` and `audit`: the words for the report, and its exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from unlearn.commands.said import say
from unlearn.report import Report
from unlearn.report.terminal import print_report

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
            say(f"\nrun directory: {folder}")
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
