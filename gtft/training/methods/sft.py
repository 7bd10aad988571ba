"""Supervised fine-tuning on rows: TRL's trainer with gtft's answer loss."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer
from trl import SFTConfig, SFTTrainer

from gtft.training.fit import Task
from gtft.training.kl import read_base, sum_kl
from gtft.training.loss import Answered, add_answer_head
from gtft.training.material import Rows
from gtft.training.packing import Collator
from gtft.training.trainer import Guarded


class SftTrainer(Guarded, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose loss is Σ (weight · nll + ``kl`` · KL to the base) / tokens, over the supervised tokens
    of an update."""

    kl = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        unwrapped = self.accelerator.unwrap_model(self.model)
        add_answer_head(getattr(unwrapped, "get_base_model", lambda: unwrapped)())
        # The loss divides by the tokens of the whole update, whatever the model's forward can do.
        self.model_accepts_loss_kwargs = True
        self._hits: list[torch.Tensor] = []
        self._answered: list[torch.Tensor] = []

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Mean over the supervised tokens of the update, in nats; ``inputs`` as `Collator` makes them."""
        before = None
        if self.kl:
            base = self.accelerator.unwrap_model(model)
            with self.accelerator.autocast():
                before = read_base(base, inputs)
        out: Answered = model(**inputs, answer_head=True)
        assert out.nll is not None
        assert out.tokens is not None
        assert out.hits is not None
        tokens = out.tokens if num_items_in_batch is None else num_items_in_batch
        total = out.nll
        if before is not None:
            assert out.hidden is not None
            total = total + self.kl * sum_kl(out.hidden, before, base)
        loss = total / tokens.clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # DDP averages over the processes; the tokens are those of all.
            loss = loss * self.accelerator.num_processes
        if self.model.training:
            self._hits.append(out.hits)
            self._answered.append(out.tokens)
        return (loss, out) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._answered:
            tokens = int(sum(self._answered))
            logs["mean_token_accuracy"] = int(sum(self._hits)) / max(1, tokens)
            self._hits.clear()
            self._answered.clear()
        Trainer.log(self, logs, start_time)


def build_trainer(
    task: Task,
    model: Any,
    material: Rows,
    order: list[int],
    settings: dict[str, Any],
    callbacks: list[Any],
) -> SftTrainer:
    """``order``: numbers of the material's units, for the whole run; ``settings``: what every trainer shares."""
    args = SFTConfig(
        **settings,
        max_length=None,
        packing=False,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SftTrainer(
        model=model,
        args=args,
        # The rows stay where they are; the trainer reads their numbers in the order of the run.
        train_dataset=Dataset.from_dict({"unit": order}),
        data_collator=Collator(material.units, task.tokenizer.pad_token_id),
        processing_class=task.tokenizer,
        callbacks=callbacks,
    )
    trainer.kl = task.train.retention.kl
    return trainer
