"""Sums over the processes of a run: what all of them make, added up, and the same in all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from unlearn.errors import UnlearnError
from unlearn.shown import sentence

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
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


def added(work: Callable[[], list[Tensor]], seat: Seat) -> list[Tensor]:
    """What all processes make, added up; the same in all of them.

    A share may itself consist of steps that all processes take together, each of which is such a sum. What goes wrong
    in one of them, or between two, all processes have heard of when it is raised, and do not tell each other again.

    Args:
        work: makes this process's part: tensors on the host, as many and as large in every process.
        seat: this process's.

    Raises:
        Told: it could not be made in some process; a task that is summed raises what was told.
        Parted: one of the others has ended.
    """
    import torch.distributed as dist

    if seat.size == 1:
        return work()
    made: list[Tensor] = []
    mine: Exception | Parted | None = None
    try:
        made = work()
    except Told:
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
        raise Told(mine)
    for number, failed in enumerate(every):
        if failed is not None:
            raise Told(failed.there(number))
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
        Told: a piece could not be done, in this process or another; a task that is summed raises what was told.
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


class Told(BaseException):
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
