"""Seconds, peak memory and counted arithmetic of some work, and what of a machine's matrix rate that is."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from unlearn.files import Json
from unlearn.model.machine import matrix_rate

Made = TypeVar("Made")
_STATUS, _REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Phase:
    """What one phase took."""

    seconds: float
    memory_gib: float | None = None
    """Peak while it ran, of the GPU or of the process."""
    share: float | None = None
    """Of its seconds, those that its multiplications would take at the machine's own rate."""
    plain: float | None = None
    """How many times as long the plain reference takes."""
    published: float | None = None
    """How many times as long the published procedure takes."""
    also: Mapping[str, Json] = field(default_factory=dict)

    def row(self) -> dict[str, Json]:
        """As JSON."""
        known = ("seconds", "share", "plain", "published", "memory_gib")
        return {**{name: getattr(self, name) for name in known}, **self.also}

    def saying(self, **also: Json) -> Phase:
        """The same, with more said."""
        return replace(self, also={**self.also, **also})


class Stopwatch:
    """A Progress that notes how long the steps of each name took, on a device that has finished them."""

    def __init__(self, device: torch.device) -> None:
        """Nothing has run yet."""
        self.seconds: dict[str, float] = {}
        self.times: dict[str, int] = {}
        self._device = device

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Any]:
        """Time one step."""
        settled(self._device)
        start = time.perf_counter()
        yield self
        settled(self._device)
        name = label.lower()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.times[name] = self.times.get(name, 0) + 1

    def advance(self, n: int = 1) -> None:
        """Do nothing: the whole step is timed."""


def timed(work: Callable[[], Made], device: torch.device) -> tuple[Made, Phase]:
    """What some work makes, and its seconds and peak memory."""
    _forget_peak(device)
    settled(device)
    start = time.perf_counter()
    made = work()
    settled(device)
    return made, Phase(time.perf_counter() - start, _peak(device))


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that some work takes."""
    return timed(work, device)[1].seconds


def counted(work: Callable[[], object]) -> float:
    """Floating-point operations of all matrix products and attention of some work, which takes longer meanwhile."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


class Rate:
    """What share of its time some work spends at the matrix rate of this machine, threads included."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        """Measure the rate once."""
        self.flops = matrix_rate(dtype, device)

    def share(self, flops: float, seconds: float) -> float:
        """Of seconds, for so many operations."""
        return flops / self.flops / seconds


def settled(device: torch.device) -> None:
    """Wait until a device has nothing to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _REFS.exists():
        _REFS.write_text("5")


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if _STATUS.exists():
        lines = (line.split() for line in _STATUS.read_text().splitlines())
        return next(int(words[1]) for words in lines if words[0] == "VmHWM:") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
