"""Several processes on one run: the first carries it out, the others take their share of what it hands out.

`torchrun` and `accelerate launch` start them and tell each its number; torch.distributed joins them, over gloo, since
what is added up lies on the host. Only the first reads the command line, writes, and speaks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

from unlearn import signals
from unlearn.errors import UnlearnError
from unlearn.shown import sentence

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(days=7)
"""How long the others wait for the next task: an edit and an audit of the first alone lie between two."""
Item = TypeVar("Item")
LED = "UNLEARN_LED"
"""In the environment, the number of the process that ``led`` runs in."""
_sharing = ContextVar("sharing", default=False)
LOST = "another process of this run has ended, and its share is lost; start all of them again"


class Parted(BaseException):
    """The processes of a run cannot go on together; the message is a sentence.

    It is no ``Exception``: an audit goes on without a measurement that fails, and must not go on without a process.
    """


@dataclass(frozen=True)
class Seat:
    """Which of the processes this one is."""

    number: int = 0
    size: int = 1
    local: int = 0
    """Among those of this machine."""

    @classmethod
    def taken(cls, environ: Mapping[str, str] = os.environ) -> Seat:
        """As the launcher says; alone where there is none."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        number, size, local = (environ.get(name, "") for name in names)
        if not (number.isdigit() and size.isdigit() and int(number) < int(size)):
            return cls()
        return cls(int(number), int(size), int(local) if local.isdigit() else 0)

    @property
    def leads(self) -> bool:
        """Whether it is the first of several, which hands out tasks."""
        return self.size > 1 and self.number == 0

    def of(self, items: Iterable[Item]) -> Iterator[Item]:
        """This process's share of some items: every so many-th."""
        return islice(items, self.number, None, self.size)


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
    except _Told as told:
        raise told.problem from told.problem.__cause__
    finally:
        _sharing.reset(sharing)


def added(work: Callable[[], list[Tensor]], seat: Seat) -> list[Tensor]:
    """What all processes make, added up; the same in all of them.

    A share may itself consist of steps that all processes take together, each of which is such a sum. What goes wrong
    in one of them, or between two, all processes have heard of when it is raised, and do not tell each other again.

    Args:
        work: makes this process's part: tensors on the host, as many and as large in every process.
        seat: this process's.

    Raises:
        _Told: it could not be made in some process; a task that is summed raises what was told.
        Parted: one of the others has ended.
    """
    import torch.distributed as dist

    if seat.size == 1:
        return work()
    made: list[Tensor] = []
    mine: Exception | Parted | None = None
    try:
        made = work()
    except _Told:
        raise
    except (Exception, Parted) as problem:
        mine = problem
    every: list[_Failed | None] = [None] * seat.size
    try:
        dist.all_gather_object(every, None if mine is None else _Failed.of(mine))
        if not any(every):
            for tensor in made:
                dist.all_reduce(tensor)
    except RuntimeError as problem:
        raise Parted(LOST) from problem
    if mine is not None:
        raise _Told(mine)
    for number, failed in enumerate(every):
        if failed is not None:
            raise _Told(failed.there(number))
    return made


def stacked(
    work: Callable[[int], Sequence[Tensor]],
    mine: Iterable[int],
    like: Sequence[Tensor],
    count: int,
    seat: Seat,
) -> list[Tensor]:
    """What pieces of work give, piece by piece, (count, ...) each, on the host; the same in all processes.

    Floats depend on the order in which they are added up: what is added up along the pieces in their order (``total``)
    is bit for bit what one process gets that does one after another.

    Args:
        work: does a piece, by its number; tensors of the shapes and dtypes of ``like``.
        mine: the numbers of this process's pieces; each is done in one process.
        like: as many tensors as a piece gives.
        count: how many pieces there are.
        seat: this process's.

    Raises:
        _Told: a piece could not be done, in this process or another; a task that is summed raises what was told.
        Parted: one of the others has ended.
    """

    def share() -> list[Tensor]:
        found = [one.new_zeros(count, *one.shape, device="cpu") for one in like]
        for number in mine:
            for whole, made in zip(found, work(number), strict=True):
                whole[number] = made
        return found

    return added(share, seat)


def total(pieces: Tensor) -> Tensor:
    """Pieces (count, ...) added up one after another; zeros if there are none."""
    found = pieces.new_zeros(pieces.shape[1:])
    for piece in pieces:
        found += piece
    return found


class _Told(BaseException):
    """What went wrong in a sum, of which all processes know.

    Nothing on its way may take it for an error that is this process's own, and try again.
    """

    def __init__(self, problem: Exception | Parted) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True)
class _Failed:
    """Why a process could not do its share."""

    said: str
    for_good: bool

    @classmethod
    def of(cls, problem: Exception | Parted) -> _Failed:
        told = isinstance(problem, UnlearnError | Parted)
        return cls(str(problem) if told else repr(problem), isinstance(problem, Parted))

    def there(self, number: int) -> UnlearnError | Parted:
        words = f"process {number} of this run: {sentence(self.said, 300)}"
        return Parted(words) if self.for_good else UnlearnError(words)
