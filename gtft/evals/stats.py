"""Intervals and tests for pass rates, from the standard library's arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt

# Two-sided 95 %.
_Z = 1.959963984540054


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
