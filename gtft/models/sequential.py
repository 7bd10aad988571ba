"""A comparison of two success rates that may be looked at after every outcome, and stopped at any of them.

For each arm the Beta(1, 1) mixture of likelihood ratios against a rate p, M(p) = B(1 + s, 1 + f) / (p^s (1 - p)^f)
after s successes and f failures, is a martingale of mean 1 when p is the arm's true rate (Robbins 1970; Howard,
Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
Statistics 2021, section 4). When both arms have the same rate p, so is the product of both, in whatever order
outcomes come and whatever share each arm gets, as long as the arm does not depend on the outcome. The least
product over all p, which is at the pooled rate, is then an e-process: by Ville's inequality it ever reaches
1 / alpha with probability alpha at most (Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic statistics and safe
anytime-valid inference", Statistical Science 2023, sections 4 and 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ALPHA = 0.05
# Outcomes of both arms together after which a difference that was not seen is too small to matter.
MOST = 400
Verdict = Literal["better", "worse", "no difference", "undecided"]


@dataclass(frozen=True)
class Arm:
    """Outcomes of one side."""

    successes: int
    failures: int

    @property
    def n(self) -> int:
        return self.successes + self.failures

    @property
    def share(self) -> float | None:
        return self.successes / self.n if self.n else None


def measure_evidence(first: Arm, second: Arm) -> float:
    """The e-value against equal rates, as a natural logarithm; never above what the data can bear."""
    pooled = _log_likelihood(first.successes + second.successes, first.failures + second.failures)
    return _log_mixture(first) + _log_mixture(second) - pooled


def measure_excess(seen: Arm, most: float) -> float:
    """The e-value against "the rate is ``most`` at the highest", as a natural logarithm: the least of M(p) over all
    such p. Where it reaches 1 / alpha, the rate is higher; with probability alpha at most it ever does when it is not."""
    s, f = seen.successes, seen.failures
    if not seen.n or s / seen.n <= most:
        return _log_mixture(seen) - _log_likelihood(s, f)
    if most <= 0:
        return math.inf
    return _log_mixture(seen) - s * math.log(most) - (f * math.log1p(-most) if f else 0.0)


def exceeds(seen: Arm, most: float, *, alpha: float = ALPHA) -> bool:
    """Whether the rate is above ``most``, however often this is asked."""
    return measure_excess(seen, most) >= -math.log(alpha)


def compare_arms(model: Arm, previous: Arm, *, alpha: float = ALPHA, most: int = MOST) -> Verdict:
    """What may be said of the model now. "better" or "worse" when there is none happens with probability ``alpha``
    at most, however often this is asked; "no difference" after ``most`` outcomes without either."""
    if model.n and previous.n and measure_evidence(model, previous) >= -math.log(alpha):
        return "better" if (model.share or 0.0) > (previous.share or 0.0) else "worse"
    return "no difference" if model.n + previous.n >= most else "undecided"


def find_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson interval of a share, 95 % by default (Wilson 1927). Raises ValueError when ``n`` is 0."""
    if n < 1:
        raise ValueError("no interval without an observation")
    p, zz = successes / n, z * z
    middle = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _log_mixture(arm: Arm) -> float:
    s, f = arm.successes, arm.failures
    return math.lgamma(1 + s) + math.lgamma(1 + f) - math.lgamma(2 + s + f)


def _log_likelihood(s: int, f: int) -> float:
    """Of the data at the rate that fits them best."""
    n = s + f
    return sum(k * math.log(k / n) for k in (s, f) if k)
