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
from typing import Any

import click

from unlearn import manifest
from unlearn.report import Report, print_report

log = logging.getLogger("unlearn")

PASSED, FAILED = 0, 3


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


def write_outcome(folder: Path, report: Report) -> None:
    """Write the report in both forms, add its table to the log, and seal the folder with the manifest."""
    from unlearn.report_html import write_html

    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    write_html(report, folder / "report.html")
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
        click.echo(report.to_json(), nl=False)
    else:
        print_report(report)
        if folder is not None:
            click.echo(f"\nrun directory: {folder}")
    sys.stdout.flush()
    return PASSED if report.passed else FAILED


def facts_known(facts: Mapping[str, bool]) -> str:
    """Say how many facts the unedited model knew."""
    return f"{sum(facts.values())} of {len(facts)} facts known to the unedited model"
