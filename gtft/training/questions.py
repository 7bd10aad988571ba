"""Prompts whose answers code can judge: what reward-checked training reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gtft.errors import CorpusTooSmall


@dataclass(frozen=True)
class Question:
    """A prompt as token ids, rendered as serving renders it."""

    id: str
    ids: Sequence[int]


@dataclass(frozen=True)
class QuestionProof:
    """All prompts to train on, and (example id or "", cause) of the examples that give none."""

    rows: tuple[Question, ...]
    empty: tuple[tuple[str, str], ...]

    @property
    def examples(self) -> int:
        return len(self.rows) + len(self.empty)

    @property
    def supervised(self) -> int:
        """No answer is given, so that no token of a row is supervised."""
        return 0

    @property
    def context(self) -> int:
        return sum(len(q.ids) for q in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """What ``mask.json`` holds; ``per_prompt`` is [prompt id, tokens]."""
        return {
            "prompts": len(self.rows),
            "context_tokens": self.context,
            "left_out": dict(sorted(Counter(cause for _, cause in self.empty).items())),
            "per_prompt": [[q.id, len(q.ids)] for q in self.rows],
        }


@dataclass(frozen=True)
class Questions:
    """Prompts with a judge: (question id, answer) → reward. A unit is a prompt."""

    questions: tuple[Question, ...]
    judge: Callable[[str, str], float]

    @cached_property
    def lengths(self) -> list[int]:
        return [len(q.ids) for q in self.questions]


def check_questions(proof: QuestionProof) -> None:
    """Raises CorpusTooSmall when no answer of the corpus can be judged."""
    if not proof.rows:
        causes = Counter(cause for _, cause in proof.empty).most_common(3)
        raise CorpusTooSmall(
            f"none of the {proof.examples} training examples has an answer that code can judge",
            why="; ".join(f"{n}: {cause}" for cause, n in causes) or "the corpus is empty",
            fix="gtft run RECIPE --set train.method=sft, or raise train.max_length",
        )
