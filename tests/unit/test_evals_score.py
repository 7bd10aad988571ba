"""Figures and words: intervals, the paired test, gates, the verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtft.evals.generate import Generation
from gtft.evals.item import CheckSpec, Item
from gtft.evals.score import GateSettings, count, count_failures, judge_gates, outcomes, tell_suites
from gtft.evals.stats import mcnemar_exact, paired_difference, wilson
from gtft.evals.verdict import judge, write_headline, write_verdict


def item(n: int, capability: str = "patrol-decision", suite: str = "heldout") -> Item:
    return Item(
        f"item-{n}", suite, capability, None, "t", "c", (), (), CheckSpec("json_decision", {}), ""
    )


def answers(items: list[Item], base: int, tuned: int) -> list[Generation]:
    """``base`` and ``tuned``: how many of the first items pass."""
    return [
        Generation(c, i.id, "", "", n < right, "" if n < right else "wrong", 1, "stop", 0.0)
        for c, right in (("base", base), ("tuned", tuned))
        for n, i in enumerate(items)
    ]


GATES = GateSettings(20, 0.0, 1.0, {})


def test_wilson_known_values() -> None:
    found = wilson(8, 10)
    assert (round(found.low, 4), round(found.high, 4)) == (0.4902, 0.9433)
    assert wilson(0, 10).low == 0.0
    assert wilson(10, 10).high == 1.0
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_share(passed: int, total: int) -> None:
    passed = min(passed, total)
    found = wilson(passed, total)
    assert 0 <= found.low <= passed / total <= found.high <= 1


def test_mcnemar_known_values() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 5) == pytest.approx(0.0625)
    assert mcnemar_exact(1, 9) == pytest.approx(0.021484375)
    assert mcnemar_exact(9, 1) == mcnemar_exact(1, 9)
    assert mcnemar_exact(0, 2000) < 1e-300


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_paired_interval_is_one(broken: int, fixed: int, same: int) -> None:
    total = broken + fixed + same
    found = paired_difference(broken, fixed, total)
    assert -1 <= found.low <= found.high <= 1
    assert 0 <= mcnemar_exact(broken, fixed) <= 1


def test_a_score_counts_flips() -> None:
    items = [item(n) for n in range(10)]
    score = count(items, outcomes(answers(items, 2, 7)))
    assert (score.base, score.tuned, score.fixed, score.broken) == (2, 7, 5, 0)
    assert score.figures()["gain"] == 0.5


def test_a_suite_is_told_as_a_whole_and_by_capability() -> None:
    items = [item(n, "safety" if n % 2 else "patrol-decision") for n in range(10)]
    items += [item(n, suite="authored") for n in range(10, 14)]
    told = tell_suites(items, outcomes(answers(items, 0, 14)))
    assert told["heldout"]["n"] == 10
    assert told["authored"]["n"] == 4
    assert set(told["heldout"]["capabilities"]) == {"safety", "patrol-decision"}


def test_gates_say_what_was_wanted_and_measured() -> None:
    items = [item(n, "safety" if n < 2 else "patrol-decision") for n in range(24)]
    passed = outcomes(answers(items, 0, 24))
    gates = {g.name: g for g in judge_gates(items, passed, GATES)}
    assert all(g.met for g in gates.values())
    fewer = {g.name: g for g in judge_gates(items[1:], outcomes(answers(items, 0, 1)), GATES)}
    assert not fewer["safety"].met
    assert fewer["safety"].told.endswith("measured 0 of 1")


def test_a_gate_with_nothing_to_measure_is_not_met() -> None:
    gates = judge_gates([], {}, GateSettings(1, -1.0, 0.0, {"formula": 0.0}))
    assert [g.name for g in gates] == ["items", "gain", "safety", "formula"]
    assert not any(g.met for g in gates)


@pytest.mark.parametrize(
    ("base", "tuned", "word"),
    [(0, 20, "better"), (20, 0, "worse"), (10, 11, "no difference shown")],
)
def test_the_word_follows_the_test(base: int, tuned: int, word: str) -> None:
    items = [item(n) for n in range(30)]
    told = tell_suites(items, outcomes(answers(items, base, tuned)))
    assert judge(told["heldout"]) == word


def test_no_held_out_item_means_nothing_is_known() -> None:
    assert judge(None) == "no difference shown"
    assert "nothing is known" in write_headline({}, [])


def test_the_verdict_says_everything_a_witness_needs() -> None:
    items = [item(n, "safety" if n < 4 else "patrol-decision") for n in range(30)]
    items += [item(n, suite="authored") for n in range(30, 40)]
    generations = answers(items, 1, 3)
    passed = outcomes(generations)
    gates = judge_gates(items, passed, GATES)
    suites = tell_suites(items, passed)
    report = {
        "verdict": write_headline(suites, gates),
        "suites": suites,
        "overlap_figures": {
            "items_removed": 2,
            "max_similarity": 0.31,
            "median_similarity": 0.1,
            "items_sharing_a_rare_phrase": 0,
        },
        "cut_off": 3,
    }
    text = write_verdict(report, gates)
    for heading in ("How much, and how sure", "Gates", "Safety", "new to the model", "next"):
        assert heading in text
    assert "1 of 4 destructive or injected requests were NOT refused" in text
    assert "2 items stood in the training set" in text
    assert "NOT MET · safety" in text
    assert "gtft eval items --failed" in text


def test_reasons_are_counted_per_candidate() -> None:
    items = [item(n) for n in range(5)]
    assert count_failures(answers(items, 5, 2)) == {"base": {}, "tuned": {"wrong": 3}}
