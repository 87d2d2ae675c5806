import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn.audit.intervals import (
    Z95,
    bootstrap_mean,
    bootstrap_ratio,
    mcnemar,
    paired,
    paired_change,
    wilson,
)

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_the_ends_of_wilson_solve_its_equation(hits_n: tuple[int, int]) -> None:
    hits, n = hits_n
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    for end in (low, high):
        # The interval is where a share p would put hits / n within z standard errors of p.
        if 0 < end < 1:
            assert (hits / n - end) ** 2 == pytest.approx(Z95**2 * end * (1 - end) / n, abs=1e-9)


def test_no_leak_in_few_answers_is_not_no_leak() -> None:
    assert wilson(0, 24)[1] == pytest.approx(0.138, abs=5e-4)
    assert wilson(0, 24)[0] == 0.0 and wilson(24, 24)[1] == 1.0
    assert wilson(0, 0) is None


@pytest.mark.parametrize(("hits", "n"), [(3, 2), (-1, 2), (0, -1)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError):
        wilson(hits, n)


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_is_the_sum_over_all_splits_that_are_as_uneven(b: int, c: int) -> None:
    n = b + c
    uneven = [k for k in range(n + 1) if abs(k - n / 2) >= abs(b - n / 2)]
    assert mcnemar(b, c) == pytest.approx(sum(math.comb(n, k) for k in uneven) / 2**n)


def test_mcnemar_of_many_items_does_not_underflow() -> None:
    assert mcnemar(3000, 3000) == 1.0
    assert 0 < mcnemar(40, 5) < 1e-6
    assert mcnemar(5000, 0) == 0.0 or mcnemar(5000, 0) < 1e-300


def test_paired_counts_only_what_changed() -> None:
    assert paired([True, True, False, True], [True, False, False, False]) == mcnemar(2, 0)
    with pytest.raises(ValueError):
        paired([True], [])


def test_bootstrap_holds_the_mean_is_seeded_and_narrows() -> None:
    values = [float(i % 7) for i in range(70)]
    low, high = bootstrap_mean(values)
    assert low < sum(values) / len(values) < high
    assert (low, high) == bootstrap_mean(values)
    wider = bootstrap_mean(values[:14])
    assert wider[1] - wider[0] > high - low


def test_bootstrap_resamples_groups_and_not_tokens() -> None:
    # One long odd text: by text it is one of four, and its doubt must show.
    low, high = bootstrap_ratio([0.0, 0.0, 0.0, 100.0], [1, 1, 1, 100])
    assert low == 0.0 and high > 0.9
    assert bootstrap_ratio([1.0], [2.0]) is None
    with pytest.raises(ValueError):
        bootstrap_ratio([1.0, 2.0], [1.0, 0.0])
    with pytest.raises(ValueError):
        bootstrap_ratio([1.0], [1.0, 2.0])


def test_a_paired_change_is_inside_its_interval_and_the_other_way_round_is_its_mirror() -> None:
    before, after = [True] * 40 + [False] * 20, [True] * 30 + [False] * 25 + [True] * 5
    low, high = paired_change(before, after)
    assert -1 <= low < (35 - 40) / 60 < high <= 1
    assert paired_change(after, before) == pytest.approx((-high, -low))
    wider = paired_change(before[::4], after[::4])
    assert wider[1] - wider[0] > high - low
    assert paired_change([], []) is None
    with pytest.raises(ValueError):
        paired_change([True], [])


def test_no_change_in_a_few_items_is_still_uncertain_and_pairing_helps() -> None:
    half = [True] * 10 + [False] * 10
    low, high = paired_change(half, half)
    assert low < -0.01 and high > 0.01
    apart = paired_change(half, half[::-1])
    assert apart[1] - apart[0] > 3 * (high - low)
    assert paired_change([True] * 20, [True] * 20) == pytest.approx((-0.161, 0.161), abs=0.001)


def test_the_interval_of_a_change_holds_the_truth_about_nineteen_times_of_twenty() -> None:
    rng, held = random.Random(0), 0
    for _ in range(1500):
        before = [rng.random() < 0.7 for _ in range(80)]
        after = [b if rng.random() < 0.8 else rng.random() < 0.5 for b in before]
        low, high = paired_change(before, after)
        held += low <= 0.2 * (0.5 - 0.7) <= high
    assert 0.93 <= held / 1500 <= 0.985
