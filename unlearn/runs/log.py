"""What `unlearn` logs: the file of a run directory, and warnings on stderr where there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unlearn.runs.folder import PRIVATE
from unlearn.shown import shown, shown_lines

log = logging.getLogger("unlearn")


class LogLines(logging.Formatter):
    """Lines of a log: one per message, whatever it quotes; tracebacks below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging calls it so
        """Format a record whose message is one line."""
        record.message = shown(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record with its traceback."""
        return shown_lines(super().format(record))


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write what `unlearn` logs to a file for as long as the block lasts; nobody else can read it."""
    path.touch(PRIVATE)
    with suppress(OSError):  # a file system without modes
        path.chmod(PRIVATE)  # it may be there from an earlier call
    handler = logging.FileHandler(path, encoding="utf-8", delay=False)
    handler.setFormatter(LogLines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level, log.level = log.level, logging.INFO
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(level)


@contextmanager
def warned(quiet: bool) -> Iterator[None]:
    """Tell the warnings of `unlearn` on stderr for as long as the block lasts: for what leaves no log behind."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(LogLines("unlearn: warning: %(message)s"))
    if not quiet:
        log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
