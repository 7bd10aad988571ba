"""The comparison that may be looked at after every outcome: false stops, power, and what it says at the end."""

from __future__ import annotations

import math
import random

import pytest

from gtft.models.sequential import (
    ALPHA,
    Arm,
    compare_arms,
    exceeds,
    find_interval,
    measure_evidence,
    measure_excess,
)


def watch(
    model: float, previous: float, share: float, seed: int, most: int = 400
) -> tuple[str, int]:
    """Look after every bead, as the watch does; the verdict and how many beads it took."""
    dice = random.Random(seed)
    counts = [[0, 0], [0, 0]]
    for n in range(1, most + 1):
        arm = dice.random() < share
        good = dice.random() < (previous if arm else model)
        counts[arm][good] += 1
        found = compare_arms(*(Arm(c[1], c[0]) for c in counts), most=most)
        if found != "undecided":
            return found, n
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize(("rate", "share"), [(0.5, 0.5), (0.9, 0.2), (0.1, 0.5), (0.7, 0.8)])
def test_looking_after_every_bead_stops_wrongly_in_alpha_of_cases_at_most(
    rate: float, share: float
) -> None:
    runs = 400
    stopped = sum(watch(rate, rate, share, seed)[0] in ("better", "worse") for seed in range(runs))
    # Three standard errors above alpha would still be chance; the test is well below.
    assert stopped / runs <= ALPHA


def test_a_real_difference_is_found_early_and_on_the_right_side() -> None:
    for model, previous, right in ((0.5, 0.9, "worse"), (0.9, 0.5, "better")):
        found = [watch(model, previous, 0.5, seed) for seed in range(100)]
        assert sum(verdict == right for verdict, _ in found) >= 95
        assert not any(v in ("better", "worse") and v != right for v, _ in found)
        assert sorted(n for _, n in found)[50] < 120


def test_no_difference_is_said_at_the_end_only() -> None:
    assert compare_arms(Arm(40, 10), Arm(40, 10)) == "undecided"
    assert compare_arms(Arm(160, 40), Arm(160, 40)) == "no difference"
    assert compare_arms(Arm(5, 0), Arm(0, 0)) == "undecided"


def test_the_evidence_is_the_mixture_against_the_best_common_rate() -> None:
    # By hand: B(2, 1) B(1, 2) / (1/2)^2 = 1/2 · 1/2 · 4.
    assert measure_evidence(Arm(1, 0), Arm(0, 1)) == pytest.approx(math.log(1.0))
    assert measure_evidence(Arm(0, 0), Arm(0, 0)) == 0.0
    assert measure_evidence(Arm(30, 0), Arm(0, 30)) > 30


def find_excess(rate: float, most: float, seed: int, longest: int = 500) -> int:
    """Look after every decision: the first at which the rate is said to be above ``most``; 0 when none is."""
    dice = random.Random(seed)
    hits = 0
    for n in range(1, longest + 1):
        hits += dice.random() < rate
        if exceeds(Arm(hits, n - hits), most):
            return n
    return 0


@pytest.mark.parametrize(
    ("rate", "most"), [(0.4, 0.5), (0.5, 0.5), (0.15, 0.2), (0.2, 0.2), (0.1, 0.15), (0.02, 0.02)]
)
def test_a_share_within_its_limit_is_found_beyond_it_in_alpha_of_cases_at_most(
    rate: float, most: float
) -> None:
    runs = 400
    assert sum(find_excess(rate, most, seed) > 0 for seed in range(runs)) / runs <= ALPHA


@pytest.mark.parametrize(("rate", "most"), [(0.9, 0.5), (0.5, 0.2)])
def test_a_share_far_beyond_its_limit_is_found_early(rate: float, most: float) -> None:
    found = sorted(find_excess(rate, most, seed) or 1000 for seed in range(100))
    assert found[50] <= 25 and found[95] <= 60


def test_the_evidence_against_a_limit_is_the_mixture_against_the_best_rate_within_it() -> None:
    # By hand: B(5, 1) / (1/2)^4 = 1/5 · 16.
    assert measure_excess(Arm(4, 0), 0.5) == pytest.approx(math.log(16 / 5))
    assert measure_excess(Arm(4, 0), 0.9) == pytest.approx(math.log(1 / 5 / 0.9**4))
    assert measure_excess(Arm(1, 3), 0.5) < 0
    assert measure_excess(Arm(0, 0), 0.5) == 0.0
    assert measure_excess(Arm(1, 9), 0.0) == math.inf


def test_the_interval_is_wilsons() -> None:
    low, high = find_interval(34, 60)
    assert (round(low, 3), round(high, 3)) == (0.441, 0.684)
    assert find_interval(0, 10)[0] == 0.0 and find_interval(10, 10)[1] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="without an observation"):
        find_interval(0, 0)
