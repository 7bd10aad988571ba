"""Intervals and tests against values worked out elsewhere, and the rules that no input may break."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtft.evals.telling.stats import (
    bootstrap_gain,
    correct_holm,
    find_smallest_gain,
    mcnemar_exact,
    paired_difference,
    widen,
    wilson,
)

CLUSTERS = st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=5), max_size=12)
P_VALUES = st.lists(st.floats(0, 1), max_size=20)


@pytest.mark.parametrize(
    ("passed", "total", "low", "high"),
    # scipy.stats.binomtest(…).proportion_ci(method="wilson")
    [(8, 10, 0.490162, 0.943318), (1, 52, 0.003403, 0.101205), (33, 52, 0.498717, 0.751993)],
)
def test_wilson_known_values(passed: int, total: int, low: float, high: float) -> None:
    found = wilson(passed, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 10).low == 0.0
    assert wilson(10, 10).high == 1.0
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_share_and_is_symmetric(passed: int, total: int) -> None:
    passed = min(passed, total)
    found, mirrored = wilson(passed, total), wilson(total - passed, total)
    assert 0 <= found.low <= passed / total <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)


@given(st.integers(1, 100), st.integers(1, 20))
def test_more_items_make_wilson_narrower(total: int, times: int) -> None:
    few, many = wilson(total // 2, total), wilson(total // 2 * times, total * times)
    assert many.high - many.low <= few.high - few.low + 1e-12


@pytest.mark.parametrize(
    ("base", "tuned", "p"),
    # scipy.stats.binomtest(min, sum, 0.5).pvalue
    [(0, 0, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (3, 12, 0.03515625), (7, 7, 1.0), (15, 31, 0.025896082)],
)  # fmt: skip
def test_mcnemar_known_values(base: int, tuned: int, p: float) -> None:
    assert mcnemar_exact(base, tuned) == pytest.approx(p)
    assert mcnemar_exact(tuned, base) == pytest.approx(p)


def test_mcnemar_of_thousands_does_not_overflow() -> None:
    assert mcnemar_exact(0, 2000) < 1e-300


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_paired_interval_is_one_and_symmetric(broken: int, fixed: int, same: int) -> None:
    total = broken + fixed + same
    found, mirrored = (
        paired_difference(broken, fixed, total),
        paired_difference(fixed, broken, total),
    )
    assert -1 <= found.low <= found.high <= 1
    assert found.low == pytest.approx(-mirrored.high)
    assert 0 <= mcnemar_exact(broken, fixed) <= 1


@given(st.integers(0, 40), st.integers(0, 40))
def test_one_more_item_for_the_winner_never_raises_p(broken: int, more: int) -> None:
    fixed = broken + more
    assert mcnemar_exact(broken, fixed + 1) <= mcnemar_exact(broken, fixed) + 1e-12


def test_the_bootstrap_of_single_items_is_the_ordinary_one() -> None:
    """scipy.stats.bootstrap (percentile, 20,000 draws) gives 0.05 to 0.40 for these forty differences."""
    found = bootstrap_gain([[d] for d in [1] * 12 + [-1] * 3 + [0] * 25], seed=0)
    assert (found.low, found.high) == (
        pytest.approx(0.05, abs=0.026),
        pytest.approx(0.40, abs=0.026),
    )


def test_items_that_belong_together_say_less() -> None:
    """Ten sessions of eight alike items are ten observations, not eighty."""
    together = bootstrap_gain([[1] * 8] * 6 + [[0] * 8] * 4, seed=0)
    alone = bootstrap_gain([[1]] * 48 + [[0]] * 32, seed=0)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_one_cluster_says_nothing_about_others() -> None:
    assert bootstrap_gain([[1, 1, 1]], seed=0) == bootstrap_gain([], seed=0)
    assert bootstrap_gain([[1, 1, 1]], seed=0).low == -1.0


@given(CLUSTERS, st.integers(0, 9))
def test_the_bootstrap_is_bounded_symmetric_and_repeatable(
    clusters: list[list[int]], seed: int
) -> None:
    found = bootstrap_gain(clusters, seed)
    mirrored = bootstrap_gain([[-d for d in c] for c in clusters], seed)
    assert -1 <= found.low <= found.high <= 1
    assert (found.low, found.high) == (-mirrored.high, -mirrored.low)
    assert found == bootstrap_gain(clusters, seed)
    held = widen(found, mirrored)
    assert held.low <= found.low and held.high >= found.high


def test_holm_known_values() -> None:
    """Worked out by hand: 0.01 × 4, 0.02 × 3, then never below the one before."""
    found = correct_holm([0.04, 0.01, 0.03, 0.02])
    assert found == [pytest.approx(p) for p in (0.06, 0.04, 0.06, 0.06)]
    assert correct_holm([]) == []
    assert correct_holm([0.2]) == [0.2]


@given(P_VALUES)
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    found = correct_holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, found, strict=True))
    assert all(
        c <= min(1.0, p * len(found)) or c >= p for p, c in zip(p_values, found, strict=True)
    )
    ranked = [c for _, c in sorted(zip(p_values, found, strict=True))]
    assert ranked == sorted(ranked)


@given(P_VALUES, st.randoms())
def test_holm_does_not_look_at_the_order(p_values: list[float], dice: object) -> None:
    pairs = list(zip(p_values, correct_holm(p_values), strict=True))
    dice.shuffle(pairs)  # type: ignore[attr-defined]
    assert correct_holm([p for p, _ in pairs]) == [c for _, c in pairs]


def test_the_smallest_gain_known_values() -> None:
    """Without losses Connor's formula is about (1.96 + 0.84)² / n; simulated power at 52 items is 0.75."""
    assert find_smallest_gain(100, 0.0) == pytest.approx(0.0767, abs=0.001)
    assert find_smallest_gain(52, 0.3) == pytest.approx(0.208, abs=0.001)
    assert find_smallest_gain(0, 0.0) == 1.0
    assert find_smallest_gain(2, 0.5) == 1.0


@given(st.integers(1, 2000), st.floats(0, 1), st.integers(1, 500), st.floats(0, 0.5))
def test_more_items_see_less_and_more_flips_hide_more(
    total: int, differing: float, more: int, noise: float
) -> None:
    here = find_smallest_gain(total, differing)
    assert 0 < here <= 1
    assert find_smallest_gain(total + more, differing) <= here + 1e-9
    assert find_smallest_gain(total, min(1.0, differing + noise)) >= here - 1e-9
