"""Intervals and tests for pass rates, from the standard library's arithmetic only."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

# Two-sided 95 %, and the 80 % that a study is usually planned for.
_Z = 1.959963984540054
_Z_POWER = 0.8416212335729143
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def wilson(passed: int, total: int) -> Interval:
    """Wilson's score interval (95 %) of a share; [0, 1] when there is nothing to count."""
    if total == 0:
        return Interval(0.0, 1.0)
    p = passed / total
    z2 = _Z * _Z
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * sqrt(p * (1 - p) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    # At the ends rounding must not push the measured share out of its own interval.
    return Interval(min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def mcnemar_exact(only_base: int, only_tuned: int) -> float:
    """Two-sided exact p-value of a paired comparison, from the items on which the two differ."""
    n = only_base + only_tuned
    if n == 0:
        return 1.0
    tail = sum(comb(n, i) for i in range(min(only_base, only_tuned) + 1))
    share: float = 2 * tail / 2**n
    return min(1.0, share)


def paired_difference(only_base: int, only_tuned: int, total: int) -> Interval:
    """95 % interval of tuned minus base on the same items (Bonett and Price, 2012)."""
    if total == 0:
        return Interval(-1.0, 1.0)
    up, down = (only_tuned + 1) / (total + 2), (only_base + 1) / (total + 2)
    gain = up - down
    half = _Z * sqrt(max(0.0, up + down - gain * gain) / (total + 2))
    return Interval(max(-1.0, gain - half), min(1.0, gain + half))


def bootstrap_gain(clusters: Sequence[Sequence[int]], seed: int) -> Interval:
    """95 % interval of the mean of the differences in ``clusters`` (+1, 0 or -1 per item), drawn by whole clusters.

    Items of one session succeed and fail together, so a session is drawn, not an item (Field and Welsh, 2007;
    for evals Miller, 2024, arXiv 2411.00640). Percentiles of `RESAMPLES` draws; the same seed and order of clusters
    give the same interval. One cluster alone says nothing about others: [-1, 1].
    """
    sums = [(sum(c), len(c)) for c in clusters if c]
    if len(sums) < 2:
        return Interval(-1.0, 1.0)
    dice = random.Random(seed)  # noqa: S311
    means = []
    for _ in range(RESAMPLES):
        drawn = dice.choices(sums, k=len(sums))
        means.append(sum(d for d, _ in drawn) / sum(n for _, n in drawn))
    means.sort()
    cut = RESAMPLES // 40
    return Interval(means[cut], means[-1 - cut])


def widen(a: Interval, b: Interval) -> Interval:
    """The interval that holds both."""
    return Interval(min(a.low, b.low), max(a.high, b.high))


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """p-values of one family, each as large as it must be for the family to be wrong 5 % of the time (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        out[i] = highest
    return out


def find_smallest_gain(total: int, differing: float) -> float:
    """The smallest true difference of two pass rates that ``total`` paired items would show four times out of five.

    ``differing``: the share of items on which the two differ, 0 to 1. Connor (1987): n = (1.96 √d + 0.84 √(d − g²))² / g².
    1.0 when no difference would.
    """
    low, high = 0.0, 1.0
    if total == 0:
        return 1.0
    for _ in range(40):
        gain = (low + high) / 2
        d = max(differing, gain)
        needed = (_Z * sqrt(d) + _Z_POWER * sqrt(max(0.0, d - gain * gain))) ** 2 / gain**2
        low, high = (low, gain) if needed <= total else (gain, high)
    return high
