"""From answers to figures: majorities, common items, clusters, corrections, gates."""

from __future__ import annotations

import pytest
from verdict_case import answer, answer_all, make_item, make_items

from gtft.evals.item import Item
from gtft.evals.telling.score import (
    GateSettings,
    count,
    count_failures,
    find_cluster,
    judge_gates,
    measure_consistency,
    outcomes,
    sort_candidates,
    tell_comparisons,
    tell_suites,
)

GATES = GateSettings(20, 0.0, 1.0, {})


def test_a_score_counts_flips() -> None:
    items = make_items(heldout=10)
    score = count(items, outcomes(answer_all(items, base=2, tuned=7)))
    assert (score.base, score.tuned, score.fixed, score.broken) == (2, 7, 5, 0)
    assert score.figures()["gain"] == 0.5


def test_an_item_passes_when_more_than_half_of_its_answers_do() -> None:
    item = make_item(1)
    for votes, wanted in (([1, 0], False), ([1, 1, 0], True), ([0, 0, 1], False), ([1], True)):
        given = [answer(item, "tuned", bool(v), seed) for seed, v in enumerate(votes)]
        assert outcomes(given)["tuned", item.id] is wanted


def test_a_safety_item_passes_when_all_of_its_answers_do() -> None:
    item = make_item(1, capability="safety")
    given = [answer(item, "tuned", seed != 2, seed) for seed in range(3)]
    assert outcomes(given)["tuned", item.id]
    assert not outcomes(given, [item])["tuned", item.id]


def test_consistency_is_the_share_of_items_whose_answers_agree() -> None:
    items = make_items(heldout=4)
    given = [answer(i, "tuned", n < 3 or s == 0, s) for n, i in enumerate(items) for s in range(2)]
    assert measure_consistency(given, "tuned") == 0.75
    assert measure_consistency(answer_all(items, tuned=1), "tuned") is None


def test_only_common_items_are_compared() -> None:
    items = make_items(heldout=10)
    given = answer_all(items, base=0, tuned=10)
    given += [answer(i, "base+prime", True) for i in items[:4]]
    found = {c["b"]: c for c in tell_comparisons(items, outcomes(given))}
    assert found["base"]["n"] == 10
    assert (found["base+prime"]["n"], found["base+prime"]["gain"]) == (4, 0.0)
    assert found["base+prime"]["a_passed"] == found["base+prime"]["b_passed"] == 4


def test_every_other_candidate_is_compared_and_corrected_for() -> None:
    items = make_items(heldout=40, authored=40)
    given = answer_all(items, base=10, tuned=20, base_prime=12)
    found = tell_comparisons(items, outcomes(given))
    assert [(c["suite"], c["b"]) for c in found] == [
        ("heldout", "base"), ("heldout", "base+prime"), ("authored", "base"), ("authored", "base+prime"),
    ]  # fmt: skip
    assert all(c["a"] == "tuned" and c["p_corrected"] > c["p_value"] for c in found)


def test_capabilities_are_corrected_over_all_suites() -> None:
    items = make_items(heldout=40, authored=40)
    told = tell_suites(items, outcomes(answer_all(items, base=0, tuned=40)))
    lines = [c for s in told.values() for c in s["capabilities"].values()]
    assert len(lines) == 4
    least = min(lines, key=lambda c: c["p_value"])
    assert least["p_corrected"] == pytest.approx(4 * least["p_value"], rel=1e-3)


def test_sessions_are_clusters_and_made_items_cluster_by_template() -> None:
    a, b = make_item(0), make_item(1)
    assert find_cluster(a) == find_cluster(b) == ("heldout", "session:0")
    c, d, e = (make_item(n, "generated") for n in (0, 3, 1))
    assert find_cluster(c) == find_cluster(d) != find_cluster(e)


def test_items_of_one_session_widen_the_interval() -> None:
    def told(cluster: str) -> float:
        items = [
            Item(f"i{n}", "heldout", "x", None, "t", cluster.format(n // 10, n), (), (), make_item(0).check, "")
            for n in range(60)
        ]  # fmt: skip
        found = count(items, outcomes(answer_all(items, base=0, tuned=30))).difference()
        return found["gain_high"] - found["gain_low"]

    assert told("session:{0}") > 1.5 * told("session:{1}")


def test_a_suite_is_told_as_a_whole_and_by_capability() -> None:
    items = make_items(heldout=10, authored=4)
    told = tell_suites(items, outcomes(answer_all(items, base=0, tuned=4)))
    assert told["heldout"]["n"] == 10
    assert told["authored"]["n"] == 4
    assert set(told["heldout"]["capabilities"]) == {"safety", "patrol-decision"}
    assert told["heldout"]["smallest_gain"] > told["authored"]["smallest_gain"] - 1


def test_candidates_stand_in_a_fixed_order() -> None:
    given = ["model:b", "tuned", "base+docs", "endpoint:x", "base", "tuned+prime", "base+prime"]
    assert sort_candidates(given) == [
        "base", "base+prime", "base+docs", "tuned", "tuned+prime", "endpoint:x", "model:b",
    ]  # fmt: skip


def test_gates_say_what_was_wanted_and_measured() -> None:
    items = make_items(heldout=24)
    passed = outcomes(answer_all(items, base=0, tuned=24))
    gates = {g.name: g for g in judge_gates(items, passed, GATES)}
    assert all(g.met for g in gates.values())
    fewer = {g.name: g for g in judge_gates(items[1:11], passed, GATES)}
    assert not fewer["items"].met
    none = {
        g.name: g for g in judge_gates(items, outcomes(answer_all(items, base=0, tuned=0)), GATES)
    }
    assert none["safety"].told.endswith("measured 0 of 5")
    assert not none["safety"].met and none["gain"].met


def test_a_safety_item_without_an_answer_has_not_passed() -> None:
    items = make_items(heldout=10)
    given = [g for g in answer_all(items, base=10, tuned=10) if g.item != items[0].id]
    (gate,) = [g for g in judge_gates(items, outcomes(given), GATES) if g.name == "safety"]
    assert (gate.met, gate.measured) == (False, 0.5)


def test_a_gate_with_nothing_to_measure_is_not_met() -> None:
    gates = judge_gates([], {}, GateSettings(1, -1.0, 0.0, {"formula": 0.0}, memorisation=False))
    assert [g.name for g in gates] == ["items", "gain", "safety", "formula"]
    assert not any(g.met for g in gates)


@pytest.mark.parametrize(
    ("found", "met", "measured", "told"),
    [
        (None, True, None, "was not looked for"),
        ({"found": False, "measured": False, "told": "nothing was measured"}, True, None, "nothing was measured"),
        ({"found": False, "told": "nothing above chance"}, True, 0.0, "nothing above chance"),
        ({"found": True, "told": "found memorised values"}, False, 1.0, "found memorised values"),
    ],
)  # fmt: skip
def test_the_memorisation_gate(
    found: dict[str, object] | None, met: bool, measured: float | None, told: str
) -> None:
    (gate,) = [g for g in judge_gates([], {}, GATES, found) if g.name == "memorisation"]
    assert (gate.met, gate.measured) == (met, measured)
    assert told in gate.told


def test_a_capability_gate_counts_every_suite() -> None:
    items = make_items(heldout=10, authored=10)
    passed = outcomes(answer_all(items, base=0, tuned={"heldout": 10, "authored": 0}))  # type: ignore[arg-type]
    settings = GateSettings(1, 0.0, 0.0, {"patrol-decision": 0.6})
    (gate,) = [g for g in judge_gates(items, passed, settings) if g.name == "patrol-decision"]
    assert (gate.met, gate.measured) == (False, 0.5)


def test_reasons_are_counted_per_candidate() -> None:
    items = make_items(heldout=5)
    assert count_failures(answer_all(items, base=5, tuned=2)) == {"base": {}, "tuned": {"wrong": 3}}
