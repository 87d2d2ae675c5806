"""The end of a run: the documents of its report in the run directory, and the time that its steps took."""

from __future__ import annotations

import io
import logging
import platform
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from unlearn.report import Report
from unlearn.report.terminal import print_report
from unlearn.runs import manifest

if TYPE_CHECKING:
    from unlearn.report.html.page import FactText

log = logging.getLogger("unlearn")


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

    def described(self) -> dict[str, object]:
        """Return the times and the peak memory so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        scale = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB elsewhere
        total = round(time.monotonic() - self._start, 2)
        return {
            "started": self.started,
            "seconds": {**self.seconds, "total": total},
            "peak_bytes": peak * scale,
        }


def write_outcome(folder: Path, report: Report, texts: Mapping[str, FactText] | None = None) -> None:
    """Write every document of the report, add its table to the log, and seal the folder with the manifest.

    Args:
        texts: by fact id, what the page may show of the facts; without it, no file holds any text of them.
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
