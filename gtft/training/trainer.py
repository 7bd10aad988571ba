"""What every trainer of gtft has in common: TRL's traps closed, and the callback that reports, checks and saves.

Import it only where torch may be loaded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer

from gtft.errors import TrainingError
from gtft.training.checkpoint import Fingerprint, is_sealed, list_checkpoints, rotate, seal
from gtft.training.watch import StopRequested, Watch

_EVENTS_AT_MOST = 200
_REPORTED = (
    "loss",
    "learning_rate",
    "grad_norm",
    "mean_token_accuracy",
    "rewards/accuracies",
    "rewards/margins",
    "reward",
    "frac_reward_zero_std",
)


class Interrupted(Exception):
    """The running step was dropped because the worker was asked to stop."""


class Guarded:
    """Put before a TRL trainer: float32 adapter from start to end, exact resume, bad batches stop the run.

    ``interrupt`` is set by `gtft.training.fit` when a request to stop may drop the running step.
    """

    interrupt: Interrupt | None = None
    tokens_seen = 0

    def __init__(self, *args: Any, model: Any, **kwargs: Any) -> None:
        # TRL makes the adapter bfloat16, PEFT loads it back as float32: a resumed run would differ, and a
        # continued adapter would be rounded.
        exact = {n: p.detach().clone() for n, p in list_trainable(model)}
        # With several cards in the box the trainer would multiply the batch; ours has one, or a rank for each.
        kwargs["args"]._n_gpu = min(1, kwargs["args"].n_gpu)
        trainer: Any = super()
        trainer.__init__(*args, model=model, **kwargs)
        kept: Any = self
        keep_adapter_float32(kept.model)
        with torch.no_grad():
            for name, parameter in list_trainable(kept.model):
                if name in exact:
                    parameter.copy_(exact[name])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        trainer: Any = super()
        trainer._load_from_checkpoint(resume_from_checkpoint, model)
        kept: Any = self
        keep_adapter_float32(model if model is not None else kept.model)

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: the card of a gtft model is written from the store, later."""

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        kept: Any = self
        step = kept.state.global_step + 1
        # What GRPO is given are questions; its tensors are made in the step.
        tensors = inputs if isinstance(inputs, dict) else {}
        labels = tensors.get("labels")
        if isinstance(labels, torch.Tensor) and not bool((labels[..., 1:] != -100).any()):
            raise stop_hard("a batch has no token to train on", step, self)
        self.tokens_seen += sum(
            int(v.numel())
            for k, v in tensors.items()
            if k.endswith("input_ids") and isinstance(v, torch.Tensor)
        )
        trainer: Any = super()
        if self.interrupt is None:
            loss = trainer.training_step(model, inputs, *args, **kwargs)
        else:
            with self.interrupt:
                loss = trainer.training_step(model, inputs, *args, **kwargs)
        if not math.isfinite(float(loss)):
            raise stop_hard(f"the loss became {float(loss)}", step, self)
        return loss


class Interrupt:
    """Within ``with``, a request to stop raises Interrupted at the next layer, forward or backward.

    A step of a large base on a small box takes minutes; its weights change only at its end, so that
    nothing but this step is lost.
    """

    def __init__(self, model: Any, watch: Watch) -> None:
        self._watch = watch
        self._active = False
        for layer in model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.register_forward_pre_hook(self._enter)

    def __enter__(self) -> None:
        self._active = True
        self._look()

    def __exit__(self, *_: object) -> None:
        self._active = False

    def _look(self) -> None:
        if self._active and self._watch.stop_requested:
            raise Interrupted

    def _enter(self, _layer: Any, args: tuple[Any, ...]) -> None:
        self._look()
        if args and isinstance(args[0], torch.Tensor) and args[0].requires_grad:
            args[0].register_hook(self._on_gradient)  # type: ignore[no-untyped-call]

    def _on_gradient(self, _gradient: torch.Tensor) -> None:
        self._look()


@dataclass(frozen=True)
class Dice:
    """The random states of this process."""

    python: Any
    numpy: Any
    cpu: torch.Tensor
    cuda: tuple[torch.Tensor, ...]

    @classmethod
    def read(cls) -> Dice:
        cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else ()
        return cls(
            random.getstate(),
            np.random.get_state(),
            torch.get_rng_state(),
            cuda,
        )

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(list(self.cuda))


def find_meeting_place() -> str:
    """The device on which the processes of a shared training exchange tensors."""
    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"


def list_trainable(model: Any) -> list[tuple[str, Any]]:
    """(name, parameter) of everything that is trained, in the model's order."""
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]


def keep_adapter_float32(model: Any) -> None:
    """Cast every trainable parameter to float32, in place."""
    for _, parameter in list_trainable(model):
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
    """Reports figures, refuses gradients that are not finite, seals checkpoints, stops on request.

    The last of the callbacks: what the others put into a checkpoint's folder is sealed with it.
    """

    def __init__(
        self,
        watch: Watch,
        fingerprint: Fingerprint,
        libraries: dict[str, str],
        keep: int,
        clock: Callable[[], float],
        measure_memory: Callable[[], int],
    ) -> None:
        self._watch = watch
        self._fingerprint = fingerprint
        self._libraries = libraries
        self._keep = keep
        self._clock = clock
        self._measure_memory = measure_memory
        self._began = self._last = 0.0
        self._first_step = 0
        self._tokens = 0
        self._dice: Dice | None = None
        self.trainer: Any = None
        self.stopped = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = self._last = self._clock()
        self._first_step = state.global_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._dice = Dice.read()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        grads = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads))
        if not math.isfinite(norm):
            raise stop_hard(f"the gradients became {norm}", state.global_step + 1, self.trainer)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._asked_to_stop() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def _asked_to_stop(self) -> bool:
        """With several processes all of them stop, or none: they meet in every step."""
        asked = self._watch.stop_requested
        if not torch.distributed.is_initialized():
            return asked
        flag = torch.tensor([float(asked)], device=find_meeting_place())
        torch.distributed.all_reduce(flag)
        return bool(flag.item())

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
        self._watch.metric(step, "memory_bytes", float(self._measure_memory()))
        self._tokens, self._last = seen, now
        done = max(1, step - self._first_step)
        eta = (now - self._began) / done * (state.max_steps - step)
        self._watch.progress(step, state.max_steps, "steps", eta, f"loss {logs['loss']:.3f}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.distributed.is_initialized():
            # Every rank puts its random states into the folder.
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        workdir = Path(args.output_dir)
        folder = workdir / f"checkpoint-{state.global_step}"
        seal(folder, self._fingerprint, self._libraries)
        rotate(workdir, self._keep)
        self._watch.checkpoint(str(folder), state.global_step)

    def save_interrupted(self) -> StopRequested:
        """Save the state of before the dropped step; returns what to raise."""
        state = self.trainer.state
        step = state.global_step
        folder = Path(self.trainer.args.output_dir) / f"checkpoint-{step}"
        if step == 0:
            return StopRequested(0, "stopped before the first step was done")
        if not is_sealed(folder):
            assert self._dice is not None
            self._dice.restore()
            self.trainer._save_checkpoint(self.trainer.model, trial=None)
            handler = self.trainer.callback_handler
            handler.on_save(self.trainer.args, state, self.trainer.control)
        return StopRequested(step, f"saved checkpoint-{step}; the step after it was dropped")
