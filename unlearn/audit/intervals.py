"""Intervals and paired tests for small counts: Wilson, bootstrap over groups, exact McNemar.

Everything here is plain arithmetic on counts and lists; nothing imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Two-sided 95 % quantile of the standard normal distribution.
Z95 = 1.959963984540054

Interval = tuple[float, float]


def wilson(hits: int, n: int, z: float = Z95) -> Interval | None:
    """Wilson score interval of a share.

    Unlike the textbook interval it never collapses at 0 or 1: no leak in 24 answers is still
    compatible with a leak rate of 14 %, and the report must say so.

    Args:
        hits: number of successes, 0 <= hits <= n.
        n: number of trials.
        z: normal quantile; the default gives 95 %.

    Returns:
        (low, high) within [0, 1], or None when there were no trials.

    Raises:
        ValueError: if the counts are impossible.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n < 0 or not 0 <= hits <= max(n, 0):
        raise ValueError(f"a share needs 0 <= hits <= n, got {hits} of {n}")
    if n == 0:
        return None
    share = hits / n
    scale = 1.0 / (1.0 + z * z / n)
    centre = (share + z * z / (2 * n)) * scale
    half = z * scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the exact bound is 0 or 1; rounding would leave it one ulp inside and lose the point estimate.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == n else min(1.0, centre + half)
    return low, high


def wilson_of(hits: int, unknown: int, n: int) -> Interval | None:
    """Wilson interval of a share of which some items may or may not be hits: from none of them to all.

    Args:
        hits: items that count for certain.
        unknown: further items of which nobody knows.
        n: all items.

    Returns:
        (low, high), or None where there are no items.
    """
    least, most = wilson(hits, n), wilson(hits + unknown, n)
    return least and most and (least[0], most[1])


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    seed: int = 0,
    resamples: int = 2000,
) -> Interval | None:
    """95 % percentile interval of sum(numerators) / sum(denominators), resampling pairs.

    Tokens of one text are not independent, texts are: so a mean per token is resampled by text, with
    the text's sum as numerator and its token count as denominator.

    Args:
        numerators: one sum per group.
        denominators: one positive size per group.
        seed: of the resampling; the interval is a function of the data and this number.
        resamples: number of bootstrap samples.

    Returns:
        (low, high), or None with fewer than two groups, where resampling says nothing.

    Raises:
        ValueError: if the lists differ in length or a size is not positive.
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} numerators but {len(denominators)} denominators")
    if any(size <= 0 for size in denominators):
        raise ValueError("every group needs a positive size")
    if len(numerators) < 2:
        return None
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    rng = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    # In slices: 2000 resamples of 100,000 groups at once would take more memory than a small model.
    step = max(1, 2_000_000 // len(top))
    for start in range(0, resamples, step):
        stop = min(resamples, start + step)
        rows = rng.integers(0, len(top), size=(stop - start, len(top)))
        ratios[start:stop] = top[rows].sum(axis=1) / bottom[rows].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_mean(values: Sequence[float], seed: int = 0, resamples: int = 2000) -> Interval | None:
    """95 % percentile interval of a mean, or None with fewer than two values."""
    return bootstrap_ratio(values, [1.0] * len(values), seed, resamples)


def mcnemar(only_before: int, only_after: int) -> float:
    """Exact two-sided McNemar p-value for answers that are paired by item.

    Args:
        only_before: items that were a success before and not after.
        only_after: items that are a success after and were not before.

    Returns:
        Probability, if the two states were equally good, of a split at least this uneven. 1.0 when no
        item changed.

    Raises:
        ValueError: if a count is negative.
    """
    if only_before < 0 or only_after < 0:
        raise ValueError(f"counts cannot be negative, got {only_before} and {only_after}")
    changed, fewer = only_before + only_after, min(only_before, only_after)
    tail = sum(math.comb(changed, k) for k in range(fewer + 1))
    # Integers until the end: 2**-n underflows in floats long before a large task runs out of items.
    return min(1.0, 2 * tail / (1 << changed)) if changed else 1.0


def paired(before: Sequence[bool], after: Sequence[bool]) -> float:
    """McNemar p-value of two equally long lists of outcomes on the same items."""
    if len(before) != len(after):
        raise ValueError(f"paired outcomes need equal lengths, got {len(before)} and {len(after)}")
    only_before = sum(b and not a for b, a in zip(before, after, strict=True))
    only_after = sum(a and not b for b, a in zip(before, after, strict=True))
    return mcnemar(only_before, only_after)


def paired_change(before: Sequence[bool], after: Sequence[bool], z: float = Z95) -> Interval | None:
    """Score interval of the change of a share, share(after) - share(before), over paired items.

    The two Wilson intervals are combined with the correlation of the pairs, so that no change in a few items is still
    uncertain.

    Args:
        before: whether each item was a success before.
        after: the same items after.
        z: normal quantile; the default gives 95 %.

    Returns:
        (low, high) within [-1, 1], or None when there are no items.

    Raises:
        ValueError: if the lists differ in length.

    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", method 10: the correlation is corrected for continuity, or identical answers would have no width.
    """
    if len(before) != len(after):
        raise ValueError(f"paired outcomes need equal lengths, got {len(before)} and {len(after)}")
    both = sum(b and a for b, a in zip(before, after, strict=True))
    return change_of_counts(both, sum(map(bool, before)), sum(map(bool, after)), len(before), z)


def change_of_counts(both: int, was: int, now: int, n: int, z: float = Z95) -> Interval | None:
    """``paired_change`` from counts: successes in both states, before, after, and the number of items."""
    if n == 0:
        return None
    lost, won = was - both, now - both
    neither = n - both - lost - won
    change = (won - lost) / n
    old, new = wilson(was, n, z), wilson(now, n, z)
    if old is None or new is None:
        return None
    spread = math.sqrt(was * (n - was) * now * (n - now))
    uneven = float(both * neither - lost * won)
    if uneven > 0:
        uneven = max(0.0, uneven - n / 2)
    phi = uneven / spread if spread else 0.0
    below, above = now / n - new[0], new[1] - now / n
    under, over = was / n - old[0], old[1] - was / n
    low = change - math.sqrt(max(0.0, below**2 - 2 * phi * below * over + over**2))
    high = change + math.sqrt(max(0.0, above**2 - 2 * phi * above * under + under**2))
    return max(-1.0, low), min(1.0, high)
