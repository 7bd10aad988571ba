"""From training examples to prompts with a judge: the eval's checks as the reward of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gtft.evals.asking.generate import write_prompts
from gtft.evals.checks import run_check
from gtft.evals.heldout import build_heldout
from gtft.training.questions import Question, QuestionProof


def read_questions(
    train_file: Path, tokenizer: Any, room: int
) -> tuple[QuestionProof, Callable[[str, str], float]]:
    """The prompts of ``train.jsonl`` of at most ``room`` tokens, and who judges: 1 passes its check, 0 fails it.

    The checks are those that the eval makes of held-out examples; these here are of the training side.
    """
    found = build_heldout(train_file)
    prompts, too_long = write_prompts(found.items, tokenizer, room)
    checks = {p.item.id: p.item.check for p in prompts}
    left_out = [("", cause) for cause, n in found.dropped.items() for _ in range(n)]
    left_out += [(item.id, "too-long") for item in too_long]
    rows = tuple(Question(p.item.id, p.ids) for p in prompts)

    def judge(question: str, answer: str) -> float:
        return float(run_check(checks[question], answer).passed)

    return QuestionProof(rows, tuple(left_out)), judge
