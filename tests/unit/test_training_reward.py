"""Training from checked answers: the eval's checks as the reward, an exact resume, a reward that tells nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gtft.errors import CorpusTooSmall, TrainingError
from gtft.recipe.schema import Lora, Reward, Train
from training_case import Recorder, make_base, make_task, make_tokenizer

TRAIN = Train(
    method="grpo",
    learning_rate=1e-2,
    scheduler="constant",
    warmup=0.0,
    max_steps=4,
    accumulation=2,
    max_length=128,
    checkpoint_steps=2,
    keep_checkpoints=9,
    lora=Lora(r=4, alpha=8),
    reward=Reward(answers=4, max_new_tokens=8),
)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny base, its tokenizer and eight prompts."""
    from gtft.training.base import load_tokenizer
    from gtft.training.questions import Question

    root = tmp_path_factory.mktemp("reward")
    base = make_base(root)
    tokenizer = load_tokenizer(base)
    asked = [[{"role": "user", "content": f"pump {n}"}] for n in range(8)]
    questions = tuple(
        Question(
            f"item-{n}",
            tuple(tokenizer.apply_chat_template(m, add_generation_prompt=True)["input_ids"]),
        )
        for n, m in enumerate(asked)
    )
    return base, tokenizer, questions


def train(case: Any, workdir: Path, judge: Any, given: Train = TRAIN, watch: Any = None) -> Any:
    from gtft.training.fit import fit
    from gtft.training.questions import Questions

    base, tokenizer, questions = case
    workdir.mkdir(exist_ok=True)
    task = make_task(base, tokenizer, given, workdir, watch or Recorder())
    return fit(task, Questions(questions, judge))


def test_answers_are_judged_and_a_resumed_run_ends_the_same(case: Any, tmp_path: Path) -> None:
    import torch

    asked: list[tuple[str, str]] = []

    def judge(question: str, answer: str) -> float:
        asked.append((question, answer))
        return sum(c.isalpha() for c in answer) / 20

    watch = Recorder()
    whole = train(case, tmp_path / "whole", judge, watch=watch)
    assert len(asked) == 4 * 2 * 4
    # Four answers to the same prompt stand side by side.
    assert all(len({q for q, _ in asked[i : i + 4]}) == 1 for i in range(0, len(asked), 4))
    assert len([1 for _, name, _ in watch.metrics if name == "reward"]) == 4
    changed = {n: p for n, p in whole.model.named_parameters() if "lora_B" in n}
    assert any(bool(p.any()) for p in changed.values())
    (tmp_path / "again").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
    again = dict(train(case, tmp_path / "again", judge).model.named_parameters())
    for name, value in changed.items():
        assert torch.equal(value, again[name]), name


def test_a_reward_that_tells_nothing_apart_stops_the_run(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gtft.training.methods import reward

    monkeypatch.setattr(reward, "FLAT_AT_MOST", 2)
    with pytest.raises(TrainingError, match="no answer was better than another") as e:
        train(case, tmp_path / "w", lambda *_: 1.0)
    assert "train.continues" in e.value.fix


def test_the_checks_of_the_eval_judge_the_training_side(tmp_path: Path) -> None:
    from gtft.training.questions import check_questions
    from gtft.workers.questions import read_questions

    def example(n: int, answer: str) -> dict[str, Any]:
        messages = [
            {"role": "user", "content": f"patrol case number {n}: what now?"},
            {"role": "assistant", "content": answer},
        ]
        return {
            "id": f"ex-{n}",
            "source": "claude-code",
            "cluster": f"session:{n}",
            "messages": messages,
            "tools": [],
            "role": "witness",
        }

    right = json.dumps({"action": "wait", "reason": "quiet"})
    rows = [example(1, right), example(2, "prose that no code can judge"), example(3, right)]
    rows[2]["messages"][0]["content"] = "a long prompt " * 200
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    proof, judge = read_questions(path, make_tokenizer(), 64)
    (only,) = proof.rows
    assert judge(only.id, right) == 1.0
    assert judge(only.id, right.replace("wait", "nudge")) == 0.0
    assert judge(only.id, "no JSON at all") == 0.0
    assert proof.examples == 3
    assert proof.as_dict()["left_out"] == {"no answer that code can check": 1, "too-long": 1}
    path.write_text(json.dumps(rows[1]) + "\n")
    none, _ = read_questions(path, make_tokenizer(), 64)
    with pytest.raises(CorpusTooSmall, match="none of the 1 training examples"):
        check_questions(none)
