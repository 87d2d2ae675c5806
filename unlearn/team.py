"""Several processes on one run: the first carries it out, the others take their share of what it hands out.

`torchrun` and `accelerate launch` start them and tell each its number; torch.distributed joins them, over gloo, since
what is added up lies on the host. Only the first reads the command line, writes, and speaks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol

from unlearn import signals
from unlearn.errors import UnlearnError
from unlearn.shown import sentence
from unlearn.sums import LOST, Parted, Seat, Told, added

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(days=7)
"""How long the others wait for the next task: an edit and an audit of the first alone lie between two."""
LED = "UNLEARN_LED"
"""In the environment, the number of the process that ``led`` runs in."""
_sharing = ContextVar("sharing", default=False)


def seated() -> Seat:
    """This process's seat while ``led`` runs in it; alone otherwise: a program of its own may be launched so, too."""
    return Seat.taken() if os.environ.get(LED) == str(os.getpid()) else Seat()


class Task(Protocol):
    """What the first process hands out: it is sent to the others, so it holds plain values."""

    def share(self, seat: Seat, kept: MutableMapping[object, object]) -> list[Tensor]:
        """Do one process's share: tensors on the host that are added up over all processes.

        Args:
            seat: whose share it is.
            kept: what a process keeps from one task to the next.
        """


@dataclass(frozen=True)
class _Over:
    code: int


def led(run: Callable[[], int]) -> int:
    """Run a command in the first process, and let the others help it; the exit code is the first's in all of them."""
    seat = Seat.taken()
    if seat.size == 1:
        return run()
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as problem:
        return _failed(
            seat, f"the processes of this run cannot find each other: {sentence(str(problem), 200)}"
        )
    os.environ[LED] = str(os.getpid())
    try:
        if seat.number:
            return _helped(seat)
        code = run()
        if dist.is_initialized():
            with suppress(Parted):
                _hand_out(_Over(code))
        return code
    finally:
        del os.environ[LED]
        _leave()


def summed(task: Task, seat: Seat, mine: Callable[[], list[Tensor]]) -> list[Tensor]:
    """Hand a task out, and return what all processes have made of it, added up.

    Args:
        task: for the others.
        seat: the first process's.
        mine: its share, done with what it has at hand.

    Raises:
        UnlearnError: one of the others could not do its share.
        Parted: one of the others has ended, or has no such model.
    """
    if _sharing.get():
        raise UnlearnError(
            "a share of work cannot be shared again; this is an error of unlearn, please report it"
        )
    try:
        _hand_out(task)
        return _together(mine, seat)
    except (Exception, Parted):
        raise
    except BaseException:
        _leave()  # out of step with the others, who would wait for what never comes
        raise


def _leave() -> None:
    """End the connections, which the others notice."""
    import torch.distributed as dist

    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _helped(seat: Seat) -> int:
    kept: dict[object, object] = {}
    try:
        with signals.raising():
            while True:
                task = _handed()
                if isinstance(task, _Over):
                    return task.code
                with suppress(Exception):  # which the first process says
                    _together(partial(task.share, seat, kept), seat)
    except Parted:
        return _failed(seat, "the first process of this run has ended, and nothing was written by the others")
    except (KeyboardInterrupt, signals.Terminated) as left:
        exec("")  # as in cli.run: else Python may end by killing itself, whatever the exit code
        return 128 + signals.ended_by(left)


def _failed(seat: Seat, words: str) -> int:
    """Say a sentence, once for all processes but the first, which says its own."""
    if seat.number <= 1:
        sys.stderr.write(f"unlearn: {words}\n")
    return 1


def _hand_out(task: Task | _Over) -> None:
    import torch.distributed as dist

    try:
        dist.broadcast_object_list([task], src=0)
    except RuntimeError as problem:
        raise Parted(LOST) from problem


def _handed() -> Task | _Over:
    import torch.distributed as dist

    box: list[Task | _Over] = [_Over(1)]
    try:
        dist.broadcast_object_list(box, src=0)
    except RuntimeError as problem:
        raise Parted(LOST) from problem
    return box[0]


def _together(share: Callable[[], list[Tensor]], seat: Seat) -> list[Tensor]:
    """As ``added``, for a whole share; what went wrong in one of its steps is raised as it was."""
    sharing = _sharing.set(True)
    try:
        return added(share, seat)
    except Told as told:
        raise told.problem from told.problem.__cause__
    finally:
        _sharing.reset(sharing)
