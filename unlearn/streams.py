"""Standard streams that may be closed, full, or a pipe that nobody reads any more: a run goes on without them."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Dropping(io.FileIO):
    """A file that never fails to be written: what it does not take is dropped, and the first reason kept."""

    lost: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes; returns how many were taken or dropped."""
        try:
            while (taken := super().write(data)) is None:  # another program has made it non-blocking
                select.select([], [self], [])
            return taken
        except OSError as problem:
            self.lost = self.lost or problem
            return len(memoryview(data).cast("B"))


class Lasting(io.TextIOWrapper):
    """A standard stream of text that outlives whoever reads it."""

    def __init__(self, number: int, like: io.TextIOWrapper | None) -> None:
        """Write to a file descriptor, in the way of the stream that stood there; None if there was none."""
        self._file = _Dropping(number, "w", closefd=False)
        super().__init__(
            io.BufferedWriter(self._file),
            encoding="utf-8" if like is None else like.encoding,
            errors="backslashreplace" if like is None else like.errors,
            line_buffering=like is None or like.line_buffering,
            write_through=like is not None and like.write_through,
        )

    def why_lost(self) -> str:
        """Why something was not written; empty if all was."""
        self.flush()
        problem = self._file.lost
        if problem is None:
            return ""
        return "it is closed" if problem.errno == errno.EBADF else str(problem.strerror)


def settle() -> None:
    """Put lasting streams in the place of standard output and error.

    The numbers of closed ones are taken first: else the next file that is opened would get what is meant for them.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one. Not for writing, so that what is lost is noticed.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
    sys.stdout = _lasting(1, sys.stdout)
    sys.stderr = _lasting(2, sys.stderr)


def why_lost(stream: TextIO) -> str:
    """Why something that was printed did not get out; empty if all did, or if nobody can tell."""
    return stream.why_lost() if isinstance(stream, Lasting) else ""


def _lasting(number: int, stream: TextIO | None) -> TextIO:
    if stream is None:
        return Lasting(number, None)
    # One of another kind, or elsewhere, was put there by whoever calls.
    if type(stream) is io.TextIOWrapper and stream.fileno() == number:
        return Lasting(number, stream)
    return stream
