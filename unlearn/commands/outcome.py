"""The end of `apply` and `audit`: the report, the files of the run directory, and the words for it."""

from __future__ import annotations

import io
import logging
import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearn.commands.said import say
from unlearn.report import Report
from unlearn.report.terminal import print_report
from unlearn.runs import manifest

if TYPE_CHECKING:
    from unlearn.model.requests import Requests
    from unlearn.report.html.page import FactText

log = logging.getLogger("unlearn")

show_text = click.option(
    "--show-text",
    is_flag=True,
    help="Show the facts' subjects and answers in report.html, and answers in what a dry run prints: they are harmful "
    "where the policy is about harm.",
)

PASSED, FAILED = 0, 3
WRITTEN = "unlearn.written"
"""Under which a command's context holds the place of its work."""


class Stopwatch:
    """Seconds by step, for the manifest."""

    def __init__(self) -> None:
        """Start counting."""
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step."""
        start = time.monotonic()
        log.info("%s: started", name)
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)
        log.info("%s: %.1f s", name, self.seconds[name])

    def described(self) -> dict[str, Any]:
        """Return the times and the peak memory so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        scale = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB elsewhere
        total = round(time.monotonic() - self._start, 2)
        return {
            "started": self.started,
            "seconds": {**self.seconds, "total": total},
            "peak_bytes": peak * scale,
        }


Texts = Mapping[str, "FactText"]
"""Subject, relation and answers by fact id."""


def texts_of(requests: Requests) -> Texts:
    """What --show-text puts beside the ids of the facts."""
    from unlearn.report.html.page import FactText

    return {fact.id: FactText(fact.subject, fact.relation, fact.answers) for fact in requests.facts}


def write_outcome(folder: Path, report: Report, texts: Texts | None = None) -> None:
    """Write every document of the report, add its table to the log, and seal the folder with the manifest.

    Args:
        folder: the run directory.
        report: what was found.
        texts: what the page may show of the facts; without it, no file holds any text of them.
    """
    from unlearn.report.files import DOCUMENTS
    from unlearn.report.html.page import write_html

    for name, render in DOCUMENTS.items():
        (folder / name).write_text(render(report), encoding="utf-8")
    if texts:
        write_html(report, folder / "report.html", texts)
    with (folder / "log.txt").open("a", encoding="utf-8") as file:
        file.write("\n" + table_text(report))
    manifest.write(folder, report.manifest)


def table_text(report: Report) -> str:
    """Return the terminal table without colours."""
    from rich.console import Console

    buffer = io.StringIO()
    print_report(report, Console(file=buffer, width=120, no_color=True))
    return buffer.getvalue()


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


def facts_known(facts: Mapping[str, bool]) -> str:
    """Say how many facts the unedited model knew."""
    return f"{sum(facts.values())} of {len(facts)} facts known to the unedited model"
