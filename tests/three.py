"""Three processes in one: the first is this one, and the shares of the others are done here as well, one after another.

A task is pickled on its way, as it would be. What real processes do besides is tried in `tests/test_team.py`.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from types import ModuleType

import pytest
from torch import Tensor

from unlearn.sums import Seat
from unlearn.team import LED, Task


@dataclass(frozen=True)
class Nothing:
    """A task with nothing to do."""

    def share(self, _seat: Seat, _kept: MutableMapping[object, object]) -> list[Tensor]:
        return []


SEATS = [Seat(number, 3) for number in range(3)]


def three(monkeypatch: pytest.MonkeyPatch, *rooms: ModuleType) -> list[Task]:
    """Let modules that hand out tasks hand them out to three; the tasks, as they come."""
    told = {LED: str(os.getpid()), "RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    tasks: list[Task] = []
    kept: list[dict[object, object]] = [{}, {}]

    def summed(task: Task, seat: Seat, mine: Callable[[], list[Tensor]]) -> list[Tensor]:
        assert seat == SEATS[0]
        there = pickle.loads(pickle.dumps(task))
        tasks.append(there)
        shares = [
            mine(),
            *(there.share(seat, mind) for seat, mind in zip(SEATS[1:], kept, strict=True)),
        ]
        return [sum(parts[1:], parts[0]) for parts in zip(*shares, strict=True)]

    for room in rooms:
        monkeypatch.setattr(room, "summed", summed)
    return tasks
