"""Axes: round ticks that enclose the values, shares from zero, and orders of magnitude with a zero."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unlearn.charts.axes import axis_of, magnitudes, ticks


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(-2.207890530465426e-05, 100101.0)
def test_ticks_are_few_round_and_enclose(low: float, width: float) -> None:
    high = low + width
    found = ticks(low, high)
    assert 2 <= len(found) <= 9
    assert found[0] <= low + 1e-6 * max(1, abs(low)) and found[-1] >= high - 1e-6 * max(1, abs(high))
    axis = axis_of([low, high], 10.0, 90.0)
    assert 10.0 <= axis.at(low) <= axis.at(high) <= 90.0


def test_shares_begin_at_zero_and_end_where_they_can_be_told_apart() -> None:
    assert [axis_of([v], 0, 1, shares=True).high for v in (0.03, 0.2, 0.35, 0.9)] == [0.1, 0.2, 0.4, 1.0]


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=8))
@example([1e-300, 1e9])
@example([5e-324, 5e-324])
def test_magnitudes_enclose_and_keep_the_order(values: list[float]) -> None:
    axis = magnitudes(values, 10.0, 90.0)
    assert 2 <= len(axis.ticks) <= 9
    assert axis.high >= max(values) * (1 - 1e-9) and axis.low <= min(values) + 1e-6
    places = [axis.at(v) for v in sorted(values)]
    assert places == sorted(places) and places[0] >= 10.0 and places[-1] <= 90.0


def test_what_spans_orders_of_magnitude_is_told_apart_and_the_rest_is_even() -> None:
    wide = magnitudes([0.0, 1e-4, 1e-2, 10.0], 0.0, 100.0)
    places = [wide.at(v) for v in (0.0, 1e-4, 1e-2, 10.0)]
    assert places[0] == 0 and places[3] == pytest.approx(100.0)
    assert all(b - a > 5 for a, b in zip(places, places[1:], strict=False))
    even = magnitudes([0.0, 1.0, 4.0], 0.0, 100.0)
    assert even.at(2.0) == pytest.approx(50.0)
    below = magnitudes([-1.0, 500.0], 0.0, 100.0)  # below zero there is no magnitude to show
    assert below.low <= -1.0
