"""Evaluations side by side: common items only, refused when edited, flips with both answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from verdict_case import answer, make_items

from gtft.artifact import Artifact, stage_artifact
from gtft.errors import EvidenceError, UsageError
from gtft.evals.asking.generate import Generation
from gtft.evals.item import Item
from gtft.evals.library import read_answers
from gtft.evals.telling.compare import compare, write_comparison

ITEMS = make_items(heldout=20, authored=10)
HELDOUT = [i for i in ITEMS if i.suite == "heldout"]


def stage(root: Path, items: Sequence[Item], generations: Sequence[Generation]) -> Artifact:
    with stage_artifact(root / "artifacts", "eval") as staging:
        for name, rows in (
            ("items", [i.to_json() for i in items]),
            ("generations", [g.to_json() for g in generations]),
        ):
            text = "".join(json.dumps(r) + "\n" for r in rows)
            (staging.path / f"{name}.jsonl").write_text(text, "utf-8")
    return staging.result


def make_eval(
    root: Path, items: Sequence[Item], passes: Callable[[int], bool], says: str, *others: str
) -> Artifact:
    """A base that fails all, a tuned model that passes item n when ``passes(n)``, ``others`` that pass all."""
    given = [answer(i, "base", False, output="the base's words") for i in items]
    given += [answer(i, "tuned", passes(n), output=says) for n, i in enumerate(items)]
    given += [answer(i, c, True, output=f"{c} of {says}") for c in others for i in items]
    return stage(root, items, given)


@pytest.fixture
def pair(tmp_path: Path) -> list[Artifact]:
    return [
        make_eval(tmp_path, ITEMS, lambda n: n < 5, "older words", "endpoint:x"),
        make_eval(tmp_path, HELDOUT, lambda n: 3 <= n < 18, "newer words"),
    ]


def test_only_common_items_are_compared(pair: list[Artifact]) -> None:
    found = compare(pair)
    assert found.common == 20
    assert sorted(found.asked.values()) == [20, 30]
    tuned = {n: c["all"] for n, c in found.candidates.items() if n.startswith("tuned of ")}
    assert [(c["n"], c["passed"]) for c in tuned.values()] == [(20, 5), (20, 15)]
    assert all(c["low"] <= c["rate"] <= c["high"] for c in tuned.values())


def test_a_base_that_said_the_same_stands_once(pair: list[Artifact]) -> None:
    names = [n.split(" of ")[0] for n in compare(pair).candidates]
    assert names == ["base", "tuned", "endpoint:x", "tuned"]


def test_pairs_hold_a_tuned_model_and_are_corrected(pair: list[Artifact]) -> None:
    found = compare(pair)
    assert all("tuned of" in p["a"] + p["b"] for p in found.pairs)
    both = next(p for p in found.pairs if p["a"].startswith("tuned") and p["b"].startswith("tuned"))
    assert (both["gain"], both["only_a"], both["only_b"]) == (0.5, 3, 13)
    # scipy.stats.binomtest(3, 16, 0.5)
    assert both["p_value"] == pytest.approx(0.02127)
    assert both["p_value"] < both["p_corrected"] <= 1


def test_flipped_items_come_with_both_answers(pair: list[Artifact]) -> None:
    found = compare(pair)
    assert len(found.flips) == 16
    for flip in found.flips:
        said = {n: g["output"] for n, g in flip.answers.items() if n.startswith("tuned")}
        assert sorted(said.values()) == ["newer words", "older words"]
    text = write_comparison(found, 80, most=2)
    assert "older words" in text and "newer words" in text
    assert "14 more" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "p corrected" in text
    assert json.loads(json.dumps(found.to_json()))["common"] == 20


def test_three_at_once(pair: list[Artifact], tmp_path: Path) -> None:
    third = make_eval(tmp_path, HELDOUT[:10], lambda n: True, "third words")
    found = compare([*pair, third])
    assert found.common == 10
    assert sum(n.startswith("tuned of ") for n in found.candidates) == 3


def test_an_edited_evaluation_is_refused(pair: list[Artifact]) -> None:
    path = pair[1].file("generations.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"passed": false', b'"passed": true ', 1))
    with pytest.raises(EvidenceError):
        compare(pair)


def test_evaluations_without_a_common_item_are_refused(tmp_path: Path) -> None:
    one = make_eval(tmp_path, ITEMS[:5], lambda n: True, "a")
    other = make_eval(tmp_path, ITEMS[5:], lambda n: True, "b")
    with pytest.raises(UsageError, match="share no item"):
        compare([one, other])


def test_one_evaluation_is_nothing_to_compare(pair: list[Artifact]) -> None:
    for given in ([], pair[:1], [pair[0], pair[0]]):
        with pytest.raises(UsageError, match="two different evaluations"):
            compare(given)


def test_a_candidate_that_lacks_items_is_named(tmp_path: Path) -> None:
    first = make_eval(tmp_path, HELDOUT, lambda n: True, "a")
    given = [answer(i, c, True, output="b") for i in HELDOUT for c in ("base", "tuned")]
    given += [answer(i, "endpoint:x", True) for i in HELDOUT[:3]]
    found = compare([first, stage(tmp_path, HELDOUT, given)])
    assert not any(n.startswith("endpoint") for n in found.candidates)
    (why,) = found.left_out.values()
    assert why == "it did not answer 17 common items"
    assert "endpoint:x" in write_comparison(found)


def test_answers_of_several_seeds_are_told_by_the_majority(tmp_path: Path) -> None:
    item = next(i for i in HELDOUT if i.capability != "safety")
    given = [answer(item, "base", False, s, output=f"base {s}") for s in range(3)]
    given += [answer(item, "tuned", s > 0, s, output=f"tuned {s}") for s in range(3)]
    (found,) = read_answers(stage(tmp_path, [item], given))
    assert found.tuned["passed"] and found.tuned["output"] == "tuned 1"
    assert found.flipped
    assert set(found.answers) == {"base", "tuned"}


def test_a_missing_answer_is_named(tmp_path: Path) -> None:
    given = [answer(i, "base", True) for i in HELDOUT[:2]]
    given += [answer(HELDOUT[0], "tuned", True)]
    with pytest.raises(EvidenceError, match=f"no answer to {HELDOUT[1].id}"):
        read_answers(stage(tmp_path, HELDOUT[:2], given))


def test_hostile_answers_cannot_steer_the_terminal(tmp_path: Path) -> None:
    bad = "\x1b[2J\u202e`|<b>\x00"
    one = make_eval(tmp_path, HELDOUT[:3], lambda n: True, bad)
    other = make_eval(tmp_path, HELDOUT[:3], lambda n: False, "fine")
    text = write_comparison(compare([one, other]))
    assert not {"\x1b", "\u202e", "\x00"} & set(text)
