"""Training from checked answers (GRPO), experimental: the model answers, code judges, better answers gain.

Every update asks a few prompts, several answers each. What counts is how an answer compares with the others to the
same prompt: where all of them pass, or all fail, nothing is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from gtft.errors import TrainingError
from gtft.training.questions import Question, Questions
from gtft.training.trainer import Guarded

if TYPE_CHECKING:
    from gtft.training.fit import Task

# Updates in a row without any difference between answers, after which it is given up.
FLAT_AT_MOST = 10
_FLAT = "frac_reward_zero_std"


class GrpoTrainer(Guarded, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer on ready-made prompts, which stops when its rewards tell nothing apart."""

    def __init__(self, *args: Any, questions: Sequence[Question], **kwargs: Any) -> None:
        self._questions = questions
        super().__init__(*args, **kwargs)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self._questions[int(p)].ids) for p in prompts], None, {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        # From the history, which a checkpoint holds: a resumed run stops where the other would have.
        shares = [e[_FLAT] for e in self.state.log_history if _FLAT in e]
        if len(shares) >= FLAT_AT_MOST and all(s >= 1.0 for s in shares[-FLAT_AT_MOST:]):
            raise TrainingError(
                f"no answer was better than another to the same prompt for {FLAT_AT_MOST} updates",
                why="all pass or all fail: such rewards tell the model nothing",
                fix="train the answers first (--set train.method=sft), then go on from that adapter: "
                "gtft run RECIPE --set train.method=grpo --set train.continues=ID; or raise train.reward.answers",
            )


def build_trainer(
    task: Task,
    model: Any,
    material: Questions,
    order: list[int],
    settings: dict[str, Any],
    callbacks: list[Any],
) -> GrpoTrainer:
    """``order``: numbers of prompts, for the whole run; ``settings``: what every trainer shares."""
    train = task.train
    args = GRPOConfig(
        **{**settings, "per_device_train_batch_size": train.batch * train.reward.answers},
        num_generations=train.reward.answers,
        max_completion_length=train.reward.max_new_tokens,
        temperature=train.reward.temperature,
        # The order of prompts is already laid out.
        shuffle_dataset=False,
        # No reference: a short training from one adapter does not stray far.
        beta=0.0,
    )
    trainer: GrpoTrainer

    def judge(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        trainer.tokens_seen += sum(map(len, completion_ids))
        answers = [_read(ids, task.tokenizer, ends) for ids in completion_ids]
        asked = [material.questions[int(p)].id for p in prompts]
        return [material.judge(q, a) for q, a in zip(asked, answers, strict=True)]

    trainer = GrpoTrainer(
        model=model,
        args=args,
        reward_funcs=judge,
        train_dataset=Dataset.from_dict({"prompt": [str(n) for n in order]}),
        processing_class=task.tokenizer,
        callbacks=callbacks,
        questions=material.questions,
    )
    ends = {*trainer.eos_token_ids, task.tokenizer.pad_token_id}
    return trainer


def _read(ids: Sequence[int], tokenizer: Any, ends: set[int]) -> str:
    """The answer as an eval reads it: up to its end, special tokens as they are."""
    end = next((i for i, t in enumerate(ids) if t in ends), len(ids))
    return str(tokenizer.decode(list(ids)[:end], skip_special_tokens=False)).strip()
