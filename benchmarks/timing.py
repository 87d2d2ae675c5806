"""Seconds, peak memory and counted arithmetic of some work."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from unlearn.files import Json

Made = TypeVar("Made")
_STATUS, _REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Phase:
    """What one phase took."""

    seconds: float
    busy: float
    """Seconds that the GPU, or each thread of this process on a CPU, worked on it: a neighbour does not lengthen them
    much, so all ratios are of these."""
    memory_gib: float | None = None
    """Peak while it ran, of the GPU or of the process."""
    share: float | None = None
    """Of its busy seconds, those that its multiplications would take at the machine's own rate."""
    plain: float | None = None
    """How many times as long the plain way takes."""
    published: float | None = None
    """How many times as long the published procedure takes."""
    also: Mapping[str, Json] = field(default_factory=dict)

    def row(self) -> dict[str, Json]:
        """As JSON."""
        known = ("seconds", "busy", "share", "plain", "published", "memory_gib")
        return {**{name: getattr(self, name) for name in known}, **self.also}

    def saying(self, **also: Json) -> Phase:
        """The same, with more said."""
        return replace(self, also={**self.also, **also})

    def beside(self, busy: float | None = None, **others: float) -> Phase:
        """The same, compared with the busy seconds of ``share``, its products alone, and of other ways.

        Args:
            busy: those of the part that is compared, instead of the whole.
        """
        mine = busy or self.busy
        shares = {name: took / mine for name, took in others.items()}
        return replace(self, **shares)


class Stopwatch:
    """A Progress that notes how long the steps of each name took, on a device that has finished them."""

    def __init__(self, device: torch.device) -> None:
        """Nothing has run yet."""
        self.seconds, self.busy = Counter[str](), Counter[str]()
        self.times = Counter[str]()
        self._device = device

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Any]:
        """Time one step."""
        start, working = _clocks(self._device)
        yield self
        end, worked = _clocks(self._device)
        name = label.lower()
        self.seconds[name] += end - start
        self.busy[name] += worked - working
        self.times[name] += 1

    def advance(self, n: int = 1) -> None:
        """Do nothing: the whole step is timed."""


def timed(work: Callable[[], Made], device: torch.device) -> tuple[Made, Phase]:
    """What some work makes, and its seconds and peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _REFS.exists():
        _REFS.write_text("5")
    start, working = _clocks(device)
    made = work()
    end, worked = _clocks(device)
    return made, Phase(end - start, worked - working, _peak(device))


def busy_of(work: Callable[[], object], device: torch.device) -> float:
    """Busy seconds that some work takes."""
    return timed(work, device)[1].busy


def counted(work: Callable[[], object]) -> float:
    """Floating-point operations of all matrix products and attention of some work, which takes longer meanwhile."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _clocks(device: torch.device) -> tuple[float, float]:
    """Seconds that have gone by, and busy ones, once the device has nothing to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter(), time.perf_counter()
    return time.perf_counter(), time.process_time() / torch.get_num_threads()


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if _STATUS.exists():
        lines = (line.split() for line in _STATUS.read_text().splitlines())
        return next(int(words[1]) for words in lines if words[0] == "VmHWM:") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
