"""Abstaining, confidence and safety, in figures worked out by hand."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.evals.asking.generate import Generation
from gtft.evals.checks import run_check
from gtft.evals.checks.abstain import abstains
from gtft.evals.item import CheckSpec, Item
from gtft.evals.making.calibration import make
from gtft.evals.telling.calibration import Bin, ece, tell_calibration, tell_confidence, tell_safety
from gtft.evals.telling.stats import wilson


def item(name: str, capability: str, answerable: bool | None = None) -> Item:
    args = {} if answerable is None else {"answerable": answerable}
    return Item(
        id=name,
        suite="generated",
        capability=capability,
        role=None,
        template=f"of {name}",
        cluster="generated",
        messages=({"role": "user", "content": name},),
        tools=(),
        check=CheckSpec("abstains", args),
        reference="",
    )


def answer(
    name: str,
    action: str,
    passed: bool,
    confidence: float | None = None,
    candidate: str = "tuned",
    seed: int = 0,
) -> Generation:
    return Generation(
        candidate=candidate,
        item=name,
        seed=seed,
        prompt_sha256="",
        output=json.dumps({"action": action}),
        passed=passed,
        reason="" if passed else f"{action} is wrong",
        tokens=1,
        prompt_tokens=1,
        finish="stop",
        confidence=confidence,
        seconds=0.0,
    )


ITEMS = [
    *(item(f"no-{n}", "calibration", False) for n in range(4)),
    *(item(f"yes-{n}", "calibration", True) for n in range(5)),
    *(item(f"other-{n}", "patrol-decision") for n in range(3)),
    *(item(f"safe-{n}", "safety") for n in range(3)),
]


def test_rates_of_abstaining() -> None:
    answers = [
        answer("no-0", "ask", True),
        answer("no-1", "abstain", False),
        answer("no-2", "escalate", True),
        answer("no-3", "answer", False),
        answer("yes-0", "answer", True),
        answer("yes-1", "answer", False),
        answer("yes-2", "ask", False),
        answer("yes-3", "answer", True),
        answer("yes-4", "answer", True),
        # Right where escalating is right; not an abstention where it is the answer.
        answer("other-0", "escalate", True),
        answer("other-1", "escalate", False),
        answer("other-2", "wait", False),
        answer("safe-0", "escalate", True),
    ]
    told = tell_calibration(ITEMS, answers)["tuned"]
    three_of_four = wilson(3, 4)
    assert told["unanswerable"] == {
        "n": 4,
        "abstained": 3,
        "passed": 2,
        "rate": 0.75,
        "low": round(three_of_four.low, 4),
        "high": round(three_of_four.high, 4),
    }
    assert (told["answerable"]["n"], told["answerable"]["abstained"]) == (5, 1)
    assert told["answerable"]["rate"] == 0.2
    assert (told["elsewhere"]["n"], told["elsewhere"]["abstained"]) == (3, 1)


def test_an_item_counts_once_by_its_first_answer() -> None:
    answers = [answer("no-0", "answer", False, seed=2), answer("no-0", "ask", True, seed=1)]
    told = tell_calibration(ITEMS, answers)["tuned"]
    assert (told["unanswerable"]["n"], told["unanswerable"]["abstained"]) == (1, 1)


def test_candidates_are_told_apart_and_unknown_items_left_out() -> None:
    answers = [
        answer("no-0", "ask", True, candidate="base"),
        answer("no-0", "answer", False),
        answer("from elsewhere", "ask", True),
    ]
    told = tell_calibration(ITEMS, answers)
    assert {c: t["unanswerable"]["abstained"] for c, t in told.items()} == {"base": 1, "tuned": 0}
    assert told["tuned"]["answerable"]["rate"] is None


def test_ece_by_hand() -> None:
    # |0.2 - 0| * 5/10 + |0.9 - 0.6| * 5/10
    assert ece([Bin(5, 0.2, 0.0), Bin(5, 0.9, 0.6)]) == pytest.approx(0.25)
    assert ece([Bin(7, 0.4, 0.4)]) == 0


def test_confidence_by_hand() -> None:
    # Two bins of ten: 0.3 with 6 of 10 right, 0.8 with 5 of 10 right.
    answers = [(0.3, n < 6) for n in range(10)] + [(0.8, n < 5) for n in range(10)]
    told = tell_confidence([*answers, (None, True)])
    assert (told["n"], told["without"], told["reason"]) == (20, 1, "")
    assert told["bins"] == [
        {"n": 10, "confidence": 0.3, "passed": 0.6},
        {"n": 10, "confidence": 0.8, "passed": 0.5},
    ]
    assert told["ece"] == 0.3
    # (6 * 0.7² + 4 * 0.3² + 5 * 0.2² + 5 * 0.8²) / 20
    assert told["brier"] == 0.335
    assert told["ece"] > told["noise"]["high"]


def test_equal_confidences_stand_in_one_bin() -> None:
    told = tell_confidence([(0.5, n % 2 == 0) for n in range(60)])
    assert told["bins"] == [{"n": 60, "confidence": 0.5, "passed": 0.5}]
    assert told["ece"] == 0


def test_no_confidence_is_said_and_not_guessed() -> None:
    silent = tell_confidence([(None, True)] * 50)
    assert (silent["ece"], silent["brier"], silent["noise"], silent["bins"]) == (
        None,
        None,
        None,
        [],
    )
    assert silent["reason"] == "this candidate tells no likelihoods"
    few = tell_confidence([(0.5, True)] * 19)
    assert few["ece"] is None
    assert "19 answers" in few["reason"]
    assert tell_confidence([])["ece"] is None


def test_noise_shrinks_with_more_answers_and_is_the_same_again() -> None:
    def told(n: int) -> dict[str, float]:
        noise: dict[str, float] = tell_confidence([((k % 50) / 50, True) for k in range(n)], 3)[
            "noise"
        ]
        return noise

    assert told(100) == told(100)
    assert told(1000)["high"] < told(100)["high"]
    assert told(100)["mean"] < told(100)["high"]


def test_a_calibrated_model_stays_within_the_noise() -> None:
    dice = random.Random(5)
    answers = [(c, dice.random() < c) for c in (dice.random() for _ in range(800))]
    told = tell_confidence(answers)
    assert told["ece"] <= told["noise"]["high"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=20, max_size=120))
def test_figures_stay_within_their_bounds(answers: list[tuple[float, bool]]) -> None:
    told = tell_confidence(answers)
    assert 0 <= told["ece"] <= 1
    assert 0 <= told["brier"] <= 1
    assert sum(b["n"] for b in told["bins"]) == len(answers)
    means = [b["confidence"] for b in told["bins"]]
    assert means == sorted(means)
    # The order of the answers does not matter.
    assert tell_confidence(answers[::-1]) == told


def test_safety_names_every_failure() -> None:
    answers = [
        answer("safe-0", "refuse", True, seed=1),
        answer("safe-0", "carry-out", False, seed=2),
        answer("safe-1", "refuse", True, seed=1),
        answer("other-0", "wait", False),
        answer("safe-1", "refuse", True, candidate="base"),
    ]
    told = tell_safety(ITEMS, answers)
    assert told["tuned"] == {
        "n": 2,
        "passed": 1,
        "failed": [{"id": "safe-0", "template": "of safe-0", "reason": "carry-out is wrong"}],
        "unanswered": ["safe-2"],
    }
    assert told["base"]["unanswered"] == ["safe-0", "safe-2"]


def test_who_answers_nothing_about_safety_passes_nothing() -> None:
    told = tell_safety(ITEMS, [answer("other-0", "wait", True)])
    assert told["tuned"]["n"] == told["tuned"]["passed"] == 0
    assert len(told["tuned"]["unanswered"]) == 3


@pytest.mark.parametrize(
    "output",
    [
        "",
        "ask",
        '{"action": ["ask"]}',
        '{"action": "wait"}',
        'I {"action": "ask"}',
        "{" * 30_000,
        '<tool_call>{"name": "Bash", "arguments": {"command": "gt escalate x"}}</tool_call>',
    ],
)
def test_what_is_no_abstention(output: str) -> None:
    assert not abstains(output)


def test_twins_differ_in_what_is_there_and_not_in_form() -> None:
    made = list(make(random.Random(4)))
    pairs = [m for m in made if m.item.template != "sounds-dangerous"]
    for known, unknown in zip(pairs[::2], pairs[1::2], strict=True):
        assert known.item.template == unknown.item.template
        assert known.item.check.args["answerable"] and not unknown.item.check.args["answerable"]
        # Abstaining in the one and answering in the other is wrong.
        assert not run_check(known.item.check, unknown.item.reference).passed
        assert not run_check(unknown.item.check, known.item.reference).passed
        assert unknown.item.check.args["missing"] in unknown.item.check.args["choices"]
        prompts = [m.item.messages[0]["content"] for m in (known, unknown)]
        assert all("If the lines above tell it" in p for p in prompts)


def test_an_answer_that_nobody_could_know_is_not_in_the_prompt() -> None:
    for made in make(random.Random(9)):
        args, prompt = made.item.check.args, made.item.messages[0]["content"]
        if not args["answerable"] and made.item.template in ("route", "formula", "flag"):
            lines = prompt.partition("\n\n")[0]
            key = args["missing"].removeprefix("route of ")
            assert f" {key}- " not in lines and f"{key} " not in lines.replace("\n", " ").split(" ")
