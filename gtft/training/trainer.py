"""TRL's trainer with its traps closed, and the callback that reports, checks, saves and stops.

Import it only where torch may be loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import SFTTrainer

from gtft.errors import TrainingError
from gtft.training.checkpoint import Fingerprint, list_checkpoints, rotate, seal
from gtft.training.watch import Watch

_EVENTS_AT_MOST = 200
_REPORTED = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy")


class QloraTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose adapter is float32 from start to end and whose bad batches stop the run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # TRL makes the adapter bfloat16, PEFT loads it back as float32: a resumed run would differ.
        keep_adapter_float32(self.model)
        self.tokens_seen = 0

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        keep_adapter_float32(model if model is not None else self.model)

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: the card of a gtft model is written from the store, later."""

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if not bool((inputs["labels"][:, 1:] != -100).any()):
            raise stop_hard("a batch has no token to train on", self.state.global_step + 1, self)
        self.tokens_seen += int(inputs["input_ids"].numel())
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not math.isfinite(float(loss)):
            raise stop_hard(f"the loss became {float(loss)}", self.state.global_step + 1, self)
        return loss


def keep_adapter_float32(model: Any) -> None:
    """Cast every trainable parameter to float32, in place."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def stop_hard(what: str, step: int, trainer: Any) -> TrainingError:
    """The error for a step that must not be learned from; names the last good checkpoint."""
    kept = list_checkpoints(Path(trainer.args.output_dir))
    return TrainingError(
        f"{what} at step {step}",
        why=f"the last good checkpoint is {kept[-1][1].name if kept else 'none'}",
        fix="gtft run RECIPE --set train.learning_rate=… (a lower one), or look at the rows: gtft corpus preview CORPUS",
    )


class Overseer(TrainerCallback):  # type: ignore[misc]
    """Reports figures, refuses gradients that are not finite, seals checkpoints, stops on request."""

    def __init__(
        self,
        watch: Watch,
        fingerprint: Fingerprint,
        libraries: dict[str, str],
        keep: int,
        clock: Callable[[], float],
    ) -> None:
        self._watch = watch
        self._fingerprint = fingerprint
        self._libraries = libraries
        self._keep = keep
        self._clock = clock
        self._began = self._last = 0.0
        self._first_step = 0
        self._tokens = 0
        self.trainer: QloraTrainer | None = None
        self.stopped = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = self._last = self._clock()
        self._first_step = state.global_step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        grads = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads))
        if not math.isfinite(norm):
            raise stop_hard(f"the gradients became {norm}", state.global_step + 1, self.trainer)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._watch.stop_requested and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        step = state.global_step
        stride = max(1, state.max_steps // _EVENTS_AT_MOST)
        if not logs or "loss" not in logs or (step % stride and step != state.max_steps):
            return
        now = self._clock()
        for name in _REPORTED:
            if name in logs:
                self._watch.metric(step, name, float(logs[name]))
        seen = self.trainer.tokens_seen if self.trainer else 0
        if now > self._last:
            self._watch.metric(step, "tokens_per_s", (seen - self._tokens) / (now - self._last))
        self._tokens, self._last = seen, now
        done = max(1, step - self._first_step)
        eta = (now - self._began) / done * (state.max_steps - step)
        self._watch.progress(step, state.max_steps, "steps", eta, f"loss {logs['loss']:.3f}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        workdir = Path(args.output_dir)
        folder = workdir / f"checkpoint-{state.global_step}"
        seal(folder, self._fingerprint, self._libraries)
        rotate(workdir, self._keep)
        self._watch.checkpoint(str(folder), state.global_step)
