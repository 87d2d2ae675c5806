"""When memory runs out: how that is told, and how a batch is made in two halves then."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

Item = TypeVar("Item")
Made = TypeVar("Made")
_STATUS = Path("/proc/self/status")


def of_host() -> int:
    """Bytes of this machine's memory, used or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def ran_out(problem: BaseException) -> bool:
    """Whether an error says that there is not enough memory."""
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    # torch says so of tensors, and of files that it maps, in an error that may mean anything.
    wanting = ("DefaultCPUAllocator", "Cannot allocate memory")
    return isinstance(problem, RuntimeError | OSError) and any(words in str(problem) for words in wanting)


def in_parts(items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Made]]) -> list[Made]:
    """What some work makes of items: of all at once, or of halves, where that takes more memory than there is.

    Args:
        work: gives the same for an item whatever stands beside it; what it makes of several is put behind one another.

    Raises:
        MemoryError, torch.OutOfMemoryError, RuntimeError: there is not enough memory for one item alone.
    """
    try:
        return list(work(items))
    except (MemoryError, RuntimeError) as problem:
        if len(items) < 2 or not ran_out(problem):
            raise
    # Out of the block, since what was raised holds on to all that the work had made.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(items) // 2
    return [*in_parts(items[:half], work), *in_parts(items[half:], work)]


def of_weights(network: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of a model's parameters in a dtype, tied ones once, and of its buffers, and codes, as they are."""
    kept = [*network.buffers(), *(one for one in network.parameters() if not one.is_floating_point())]
    whole = sum(one.numel() for one in network.parameters() if one.is_floating_point())
    return whole * dtype.itemsize + sum(one.numel() * one.element_size() for one in kept)


def taken(device: torch.device) -> int:
    """Bytes that this process holds on a device now; on a CPU the program and its libraries are part of it.

    Returns:
        0 where the system does not say.
    """
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    if not _STATUS.exists():
        return 0
    lines = (line.split() for line in _STATUS.read_text(encoding="utf-8").splitlines())
    return next((1024 * int(words[1]) for words in lines if words[:1] == ["VmRSS:"]), 0)
