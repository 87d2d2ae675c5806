"""Ctrl-C, termination and hang-up raise, so that half-written output is removed on the way out.

SIGQUIT and SIGKILL end a process at once; the next run sweeps up what it has left.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 3.0
"""Seconds after which a signal that was not heard is raised again."""

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
"""What each signal is called in the sentence about it."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM), or its terminal went away (SIGHUP)."""

    def __init__(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Take the signal that asked."""
        super().__init__(WORDS[number])
        self.number = number


def ended_by(left: BaseException) -> signal.Signals:
    """The signal behind an exception that `raising` let through; Ctrl-C for all that are not a Terminated."""
    return left.number if isinstance(left, Terminated) else signal.SIGINT


@contextmanager
def raising() -> Iterator[None]:
    """Let the first signal raise KeyboardInterrupt or Terminated, and again every few seconds until that is heard.

    Libraries have bare excepts, most of all around their imports, in which the only Ctrl-C would be lost. Those that a
    person adds to the first do nothing: they would break into the cleaning up. A signal that is ignored stays so:
    nohup, or a shell's background job.
    """
    if not _ours():
        yield
        return
    asked: list[signal.Signals] = []
    over = False

    def leave(number: int, frame: FrameType | None) -> None:
        if over or bool(asked) != (number == signal.SIGALRM):
            return
        if not asked:
            asked.append(signal.Signals(number))
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        raise KeyboardInterrupt if asked[0] == signal.SIGINT else Terminated(asked[0])

    heard = [n for n in (*WORDS, signal.SIGALRM) if signal.getsignal(n) is not signal.SIG_IGN]
    kept = {number: signal.signal(number, leave) for number in heard}
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore all of them for the moment that cleaning up, or putting finished work in its place, takes."""
    if not _ours():
        yield
        return
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (*WORDS, signal.SIGALRM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def settle() -> None:
    """Let a Ctrl-C outside of `raising` do nothing: the process is about to end, and Python would print a traceback."""
    if _ours() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)
        # For the very end: what is no function Python would set back, and die of the signal.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _ours() -> bool:
    # Elsewhere than in the main thread, the signals are somebody else's.
    return threading.current_thread() is threading.main_thread()
