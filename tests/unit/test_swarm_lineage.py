"""Histories of a swarm: equal only with the same members in the same order; forks end the same way for all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from gtft.training.swarm.lineage import (
    Standing,
    begin_lineage,
    extend,
    find_excess,
    is_plausible,
    judge,
    parse_standing,
)

START = begin_lineage("crew-1", "recipe and base")


def test_the_same_rounds_with_the_same_members_give_the_same_standing() -> None:
    here = extend(extend(START, {"ada": 8, "bob": 4}), {"bob": 8})
    there = extend(extend(START, {"bob": 4, "ada": 8}), {"bob": 8})
    assert here == there
    assert (here.round, here.samples, here.fingerprint) == (2, 20, START.fingerprint)


@pytest.mark.parametrize(
    "rows", [{"ada": 8}, {"ada": 8, "bob": 8, "cyd": 0}, {"ada": 8, "eve": 8}, {"bob": 8}]
)
def test_other_members_give_another_lineage(rows: dict[str, int]) -> None:
    assert extend(START, rows).lineage != extend(START, {"ada": 8, "bob": 8}).lineage


def test_order_of_rounds_swarm_and_fingerprint_are_in_the_lineage() -> None:
    a_then_b = extend(extend(START, {"ada": 1}), {"bob": 1})
    b_then_a = extend(extend(START, {"bob": 1}), {"ada": 1})
    assert a_then_b.lineage != b_then_a.lineage
    assert begin_lineage("crew-2", "recipe and base").lineage != START.lineage
    assert begin_lineage("crew-1", "another").lineage != START.lineage


def test_a_group_of_one_history_agrees() -> None:
    standing = extend(START, {"ada": 8, "bob": 8})
    assert judge(standing, {"bob": standing, "cyd": standing}).reason == ""


def test_in_a_fork_the_side_with_fewer_samples_pulls_from_the_other() -> None:
    many, few = extend(START, {"ada": 9, "bob": 8}), extend(START, {"cyd": 8})
    for own, others, pull in (
        (many, {"bob": many, "cyd": few}, False),
        (few, {"ada": many, "bob": many}, True),
    ):
        verdict = judge(own, others)
        assert verdict.reason.startswith("a fork")
        assert verdict.pull is pull
    assert judge(few, {"ada": many, "bob": many}).heirs == ("ada", "bob")


def test_at_a_tie_exactly_one_side_gives_way() -> None:
    left, right = extend(START, {"ada": 8}), extend(START, {"bob": 8})
    assert judge(left, {"bob": right}).pull != judge(right, {"ada": left}).pull


def test_three_histories_have_one_heir() -> None:
    sides = {n: extend(START, {n: 8}) for n in ("ada", "bob", "cyd")}
    staying = [
        n for n, s in sides.items()
        if not judge(s, {o: t for o, t in sides.items() if o != n}).pull
    ]  # fmt: skip
    assert len(staying) == 1


@pytest.mark.parametrize(
    ("change", "word"), [({"fingerprint": "other"}, "recipe or base"), ({"round": 7}, "round")]
)
def test_another_recipe_or_round_is_no_fork_and_pulls_nobody(
    change: dict[str, Any], word: str
) -> None:
    verdict = judge(START, {"bob": replace(START, **change)})
    assert word in verdict.reason
    assert not verdict.pull


def test_a_standing_survives_its_json_form() -> None:
    standing = extend(START, {"ada": 3})
    assert parse_standing(standing.as_dict()) == standing


GOOD = START.as_dict()


@pytest.mark.parametrize(
    "doc",
    [
        None,
        [],
        "round",
        {},
        {**GOOD, "round": -1},
        {**GOOD, "round": 1.0},
        {**GOOD, "round": True},
        {**GOOD, "round": 2**40},
        {**GOOD, "samples": "8"},
        {**GOOD, "samples": -8},
        {**GOOD, "samples": 2**80},
        {**GOOD, "lineage": "f" * 63},
        {**GOOD, "lineage": None},
        {**GOOD, "fingerprint": "x" * 1000},
    ],
)
def test_what_is_no_standing_is_refused(doc: object) -> None:
    with pytest.raises(ValueError, match=r"round|samples|lineage|table"):
        parse_standing(doc)


def test_nobody_claims_more_samples_than_members_can_have_given() -> None:
    honest = Standing(3, START.lineage, 3 * 4 * 50, "")
    assert is_plausible(honest, members=4, max_weight=50)
    assert not is_plausible(replace(honest, samples=honest.samples + 1), 4, 50)
    assert is_plausible(START, 4, 50)


@pytest.mark.parametrize("moved", [math.inf, math.nan, -math.inf, 101.0])
def test_numbers_that_are_not_finite_or_move_too_far_are_refused(moved: float) -> None:
    assert find_excess(moved, 10.0, 10.0) != ""


@pytest.mark.parametrize(("moved", "own"), [(0.0, 0.0), (100.0, 10.0), (9.0, 0.0)])
def test_an_ordinary_step_is_taken(moved: float, own: float) -> None:
    assert find_excess(moved, own, 10.0) == ""
