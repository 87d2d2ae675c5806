"""How far a long step has come: a bar on stderr for a person, nothing at all for a pipe or a library user."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from unlearn.shown import shown

if TYPE_CHECKING:
    from rich.progress import Progress as Display
    from rich.progress import TaskID


class Bar(Protocol):
    """One running step."""

    def advance(self, n: int = 1) -> None:
        """Say that `n` more units of the step are done."""


class Progress(Protocol):
    """Where steps announce themselves."""

    def step(self, label: str, total: int | None = None) -> AbstractContextManager[Bar]:
        """Open a step named `label` of `total` units (None: unknown); it ends with the `with` block."""


class _NoBar:
    def advance(self, n: int = 1) -> None:
        """Do nothing."""


class NoProgress:
    """Progress that shows nothing; the default of every function that takes a Progress."""

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Bar]:
        """Open a silent step."""
        yield _NoBar()


NO_PROGRESS = NoProgress()
"""The one silent Progress, for defaults."""


class _RichBar:
    def __init__(self, display: Display, task: TaskID) -> None:
        self._display, self._task = display, task

    def advance(self, n: int = 1) -> None:
        """Move the bar by `n` units."""
        self._display.advance(self._task, n)


class RichProgress:
    """Bars with elapsed and remaining time on stderr; a finished step leaves one line behind.

    Steps may nest: inner steps are drawn below the outer one and vanish when they end.
    """

    def __init__(self) -> None:
        """Open no display yet: it appears with the first step."""
        self._display: Display | None = None
        self._depth = 0

    def _open(self) -> Display:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Display

        display = Display(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        display.start()
        return display

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Bar]:
        """Show a bar for the length of the `with` block."""
        display = self._display = self._display or self._open()
        self._depth += 1
        nested = self._depth > 1
        task = display.add_task(("  " if nested else "") + shown(label), total=total)
        try:
            yield _RichBar(display, task)
            # A step may stop early for a good reason (a corpus that ends, a converged search).
            done = display.tasks[display.task_ids.index(task)].completed
            display.update(task, total=max(done, 1), completed=max(done, 1))
        finally:
            if nested:
                display.remove_task(task)
            self._depth -= 1
            if self._depth == 0:
                display.stop()
                self._display = None


def progress_for(quiet: bool = False) -> Progress:
    """Return bars when a person watches stderr, and silence when it is a file, a pipe, or `quiet` is set."""
    return NoProgress() if quiet or not sys.stderr.isatty() else RichProgress()
