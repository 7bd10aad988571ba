"""Blind judging: training-side prompts only, no name shown, and pairs that the next harvest takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gtft.artifact import Artifact, stage_artifact, write_file
from gtft.cli.main import main as cli
from gtft.errors import EvidenceError, UsageError
from gtft.evals.asking.candidate import Prompt, Reply
from gtft.evals.blind import (
    Duel,
    answer_blind,
    choose_prompts,
    judge_duel,
    read_duels,
    read_judgements,
    settle,
    write_duels,
    write_message,
)
from gtft.evals.item import Item


def example(n: int, **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]
    return {"id": f"ex-{n}", "source": "beads", "role": "witness", "messages": messages, **more}


@dataclass(frozen=True)
class Parrot:
    """Answers with a word of its own, except to those that it leaves out."""

    name: str
    word: str
    silent: frozenset[str] = frozenset()
    key: str = ""
    most: int | None = None

    def write(self, items: Sequence[Item]) -> tuple[list[Prompt], list[Item]]:
        made = [Prompt(i, i.messages, (), i.id) for i in items]
        return [p for p in made if p.item.messages[0]["content"] not in self.silent], []

    def answer(self, batch: Sequence[Prompt], seed: int) -> list[Reply]:
        assert seed == 0
        return [Reply(f"{self.word} {p.messages[0]['content']}", 1, 1, "stop", 0.0) for p in batch]


def test_prompts_are_drawn_from_what_the_town_did() -> None:
    rows = [example(n) for n in range(30)]
    rows += [example(40, provenance="synthetic"), example(41, source="canary")]
    chosen = choose_prompts(rows, 12, seed=1)
    assert len(chosen) == 12
    assert {i.cluster for i in chosen} <= {f"ex-{n}" for n in range(30)}
    assert [m["role"] for i in chosen for m in i.messages] == ["user"] * 12
    assert choose_prompts(reversed(rows), 12, seed=1) == chosen
    assert choose_prompts(rows, 12, seed=2) != chosen


def test_pairs_are_answers_of_both_that_differ() -> None:
    items = choose_prompts([example(n) for n in range(10)], 10, seed=1)
    same = answer_blind({"base": Parrot("base", "x"), "tuned": Parrot("tuned", "x")}, items)
    assert same == []
    silent = Parrot("tuned", "y", frozenset({"q3"}))
    duels = answer_blind({"base": Parrot("base", "x"), "tuned": silent}, items)
    assert len(duels) == 9
    assert all(set(d.answers) == {"base", "tuned"} for d in duels)
    assert not any("q3" in d.answers["base"] for d in duels)


def test_the_order_hides_who_answers() -> None:
    duels = [Duel(f"d{n}", "e", None, (), (), {"base": "x", "tuned": "y"}) for n in range(60)]
    for judge in ("witness", "mayor"):
        first = [d.order(judge)[0] for d in duels]
        assert 15 < first.count("tuned") < 45
    assert [d.order("witness") for d in duels] != [d.order("mayor") for d in duels]


def test_the_majority_of_last_words_decides() -> None:
    duel = Duel(
        "d", "ex-1", None, ({"role": "user", "content": "q"},), (), {"base": "x", "tuned": "y"}
    )

    def say(by: str, choice: str, duel: Duel = duel) -> object:
        letter = {"tuned": "A", "base": "B", "same": "same"}[choice]
        if choice != "same" and duel.order(by)[0] != "tuned":
            letter = {"A": "B", "B": "A"}[letter]
        return judge_duel(duel, "sha256:1", by, "2026-01-01T00:00:00+00:00", letter)

    said = [say("a", "base"), say("a", "tuned"), say("b", "tuned"), say("c", "base")]
    (settled,) = settle(said)  # type: ignore[arg-type]
    assert (settled.choice, settled.chosen, settled.rejected) == ("tuned", "y", "x")
    assert settle([say("a", "tuned"), say("b", "base")]) == []  # type: ignore[list-item]
    assert settle([say("a", "same")]) == []  # type: ignore[list-item]


def test_an_answer_as_a_message() -> None:
    text = 'look\n<tool_call>{"name": "Bash", "arguments": {"command": "bd show dm-1"}}</tool_call>'
    message = write_message(text)
    assert message["content"] == "look"
    assert message["tool_calls"][0]["function"]["arguments"] == {"command": "bd show dm-1"}
    assert write_message("<tool_call>{") == {"role": "assistant", "content": "<tool_call>{"}


@pytest.fixture
def shelf(tmp_path: Path) -> Artifact:
    items = choose_prompts([example(n) for n in range(4)], 4, seed=1)
    duels = answer_blind(
        {"base": Parrot("base", "base:"), "tuned": Parrot("tuned", "tuned:")}, items
    )
    with stage_artifact(tmp_path / "ws" / "artifacts", "eval") as staging:
        write_file(staging.path / "blind.jsonl", write_duels(duels))
    return staging.result


def call(tmp_path: Path, *argv: str, given: str = "") -> Result:
    return CliRunner().invoke(
        cli, ["--workspace", str(tmp_path / "ws"), "review", "blind", *argv], input=given
    )


def test_judging_by_hand_and_what_is_kept(shelf: Artifact, tmp_path: Path) -> None:
    first = call(tmp_path, "--as", "witness", given="a\nb\nq\n")
    assert first.exit_code == 0, first.output
    assert "2 of 4 pairs judged by witness; 2 left" in first.output
    assert "preferred" not in first.output
    second = call(tmp_path, "--as", "witness", given="=\na\n")
    assert "4 of 4 pairs judged by witness; 0 left" in second.output
    assert "tuned preferred" in second.output
    kept = read_judgements(tmp_path / "ws" / "judgements.jsonl")
    assert len(kept) == 4
    duels = {d.id: d for d in read_duels(shelf.file("blind.jsonl"))}
    for k in kept:
        if k.choice != "same":
            assert k.chosen == duels[k.duel].answers[k.choice]
            assert k.rejected != k.chosen


def test_one_pair_from_a_script(shelf: Artifact, tmp_path: Path) -> None:
    left = json.loads(call(tmp_path, "--as", "witness", "--json").output)["data"]
    assert left["preferred"] is None
    assert "tuned" not in json.dumps([list(p) for p in left["left"]])
    pair = left["left"][0]
    done = call(tmp_path, "--as", "witness", "--pair", pair["pair"], "--choose", "a", "--json")
    assert json.loads(done.output)["data"]["judged"] == 1
    (kept,) = read_judgements(tmp_path / "ws" / "judgements.jsonl")
    assert kept.chosen == pair["A"]
    assert isinstance(call(tmp_path, "--choose", "a").exception, UsageError)


def test_an_edited_eval_or_a_damaged_judgement_is_refused(shelf: Artifact, tmp_path: Path) -> None:
    (tmp_path / "ws" / "judgements.jsonl").write_text('{"duel": 1}\n')
    with pytest.raises(EvidenceError, match=r"judgements.jsonl:1"):
        read_judgements(tmp_path / "ws" / "judgements.jsonl")
    with shelf.file("blind.jsonl").open("a") as f:
        f.write("{}\n")
    assert isinstance(call(tmp_path, "--as", "witness", "--json").exception, EvidenceError)
