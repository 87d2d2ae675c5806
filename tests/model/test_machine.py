"""The rate is the arithmetic over the quickest time, and bfloat16 is taken only where it is the quicker one."""

from __future__ import annotations

import pytest
import torch

from unlearn.model import machine
from unlearn.model.machine import matrix_rate, quickest_dtype


def test_the_rate_is_that_of_the_quickest_try(monkeypatch: pytest.MonkeyPatch) -> None:
    assert matrix_rate(torch.float32) > 1e6
    took = [5.0, 2.0, *[3.0] * (machine.TRIES - 2)]
    times = iter([moment for i, each in enumerate(took) for moment in (10.0 * i, 10.0 * i + each)])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(times))
    assert matrix_rate(torch.float32) == 2 * machine.SIZE**3 / 2.0


@pytest.mark.parametrize(
    ("bfloat16", "expected"), [(6.0, torch.bfloat16), (1.2, torch.float32), (1 / 35, torch.float32)]
)
def test_bfloat16_must_be_worth_its_rounding(
    monkeypatch: pytest.MonkeyPatch, bfloat16: float, expected: torch.dtype
) -> None:
    def rates(dtype: torch.dtype, _device: object) -> float:
        return {torch.bfloat16: bfloat16, torch.float32: 1.0}[dtype]

    monkeypatch.setattr(machine, "matrix_rate", rates)
    quickest_dtype.cache_clear()
    assert quickest_dtype() == expected
    monkeypatch.setattr(machine, "matrix_rate", lambda *_: 1.0)
    assert quickest_dtype() == expected, "once for all"
    quickest_dtype.cache_clear()
