"""What this machine multiplies quickly: measured, since a processor that takes a dtype may still be slow in it."""

from __future__ import annotations

import time
from functools import cache

import torch

SIZE = 256
"""Rows and columns of the matrices that are multiplied for a try, which is over before anything else gets its turn."""
TRIES = 12
WORTH = 1.5
"""How many times as fast bfloat16 must be for its rounding to be worth it."""


@torch.inference_mode()
def matrix_rate(dtype: torch.dtype, device: torch.device | str = "cpu", size: int = SIZE) -> float:
    """Arithmetic per second of a product of two square matrices, in FLOP/s: the best of a few.

    Args:
        size: rows and columns; a GPU is busy with many thousand only.
    """
    where = torch.device(device)
    one, other = torch.full((2, size, size), 0.5, device=where).to(dtype)
    one @ other  # the first product of a kind prepares its kernel
    return 2 * size**3 / min(_timed(one, other) for _ in range(TRIES))


def _timed(one: torch.Tensor, other: torch.Tensor) -> float:
    _settled(one.device)
    begin = time.perf_counter()
    one @ other
    _settled(one.device)
    return time.perf_counter() - begin


def _settled(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@cache
def quickest_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """Bfloat16 where this machine has units for it, and float32 where it is computed by detours (35 times slower).

    Measured once: a run does not change its mind because something else got its turn.
    """
    rates = [matrix_rate(dtype, device) for dtype in (torch.bfloat16, torch.float32)]
    return torch.bfloat16 if rates[0] > WORTH * rates[1] else torch.float32
