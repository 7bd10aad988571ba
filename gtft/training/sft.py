"""Supervised fine-tuning: QLoRA with bitsandbytes, PEFT and TRL, resumable to the bit on CPU."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.errors import GtftError, TrainingError
from gtft.recipe.schema import Train
from gtft.training.base import BaseModel, guard_linear4bit, load_model
from gtft.training.checkpoint import (
    Fingerprint,
    Resumable,
    check_room,
    discard_unfinished,
    find_resumable,
    translate_save_error,
)
from gtft.training.mask import Proof
from gtft.training.order import plan_order
from gtft.training.watch import StopRequested, Watch

_LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")
# TRL's own chunk of 32768 vocabulary columns needs five times the memory at the same speed on CPU.
_CPU_HEAD_CHUNK = 4096
# Below this many parameters the steps are too short to share out: one thread did 1.4 times the tokens
# of two at 1 M parameters; at 8 M two are faster.
_ONE_THREAD = 3_000_000


@dataclass(frozen=True)
class Trained:
    """A finished training. ``losses`` are (step, nats per supervised token); ``guarded``: Linear4bit layers."""

    model: Any
    steps: int
    epochs: float
    losses: tuple[tuple[int, float], ...]
    trainable: int
    guarded: int


def count_steps(rows: int, train: Train) -> int:
    """Optimizer steps that a recipe asks for on this many rows."""
    if train.max_steps:
        return train.max_steps
    return max(1, math.ceil(train.epochs * rows / (train.batch * train.accumulation)))


def train_adapter(
    base: BaseModel,
    tokenizer: Any,
    proof: Proof,
    train: Train,
    *,
    corpus: str,
    recipe_hash: str,
    workdir: Path,
    watch: Watch,
    clock: Callable[[], float],
    keep_threads: bool = False,
) -> Trained:
    """Train (or go on training) the adapter in ``workdir``. ``keep_threads``: the user chose their number.

    Same rows, recipe, seed and libraries give the same weights on CPU, whether or not the process was
    killed on the way. Raises TrainingError (NaN, foreign checkpoint, no memory), DiskFull, and
    StopRequested once a checkpoint is saved after a request to stop.
    """
    import torch
    from safetensors import SafetensorError

    fingerprint = Fingerprint(recipe_hash, corpus, base.id)
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    resumable = find_resumable(workdir, fingerprint, libraries, watch)
    threads = torch.get_num_threads()
    try:
        return _train(
            base, tokenizer, proof, train, fingerprint, libraries, resumable, workdir, watch, clock,
            keep_threads,
        )  # fmt: skip
    except (OSError, RuntimeError, MemoryError, ValueError) as e:
        discard_unfinished(workdir)
        raise _translate(e, workdir, torch.OutOfMemoryError) from e
    except SafetensorError as e:
        discard_unfinished(workdir)
        translated = translate_save_error(e, workdir)
        if translated is None:
            raise
        raise translated from e
    except (GtftError, StopRequested):
        discard_unfinished(workdir)
        raise
    finally:
        torch.set_num_threads(threads)


def _train(
    base: BaseModel,
    tokenizer: Any,
    proof: Proof,
    train: Train,
    fingerprint: Fingerprint,
    libraries: dict[str, str],
    resumable: Resumable | None,
    workdir: Path,
    watch: Watch,
    clock: Callable[[], float],
    keep_threads: bool,
) -> Trained:
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback
    from transformers.trainer_callback import TrainerState
    from transformers.trainer_utils import set_seed
    from trl.trainer import utils as trl_utils

    from gtft.training.trainer import Overseer, QloraTrainer

    cpu = not _has_cuda()
    if cpu:
        trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = _CPU_HEAD_CHUNK
    watch.progress(0, None, "steps", None, f"loading {base.name}")
    set_seed(train.seed)
    model = load_model(base)
    if cpu and not keep_threads and model.num_parameters() < _ONE_THREAD:
        torch.set_num_threads(1)
    steps = count_steps(len(proof.rows), train)
    overseer = Overseer(watch, fingerprint, libraries, train.keep_checkpoints, clock)
    per_step = train.batch * train.accumulation
    order = plan_order(
        [len(r.input_ids) for r in proof.rows], train.batch, steps * per_step, train.seed
    )
    dataset = Dataset.from_dict(
        {
            "input_ids": [list(r.input_ids) for r in proof.rows],
            "labels": [list(r.labels) for r in proof.rows],
        }
    ).select(order)
    trainer = QloraTrainer(
        model=model,
        args=_configure(train, steps, workdir, cpu=cpu),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=_configure_lora(train),
        callbacks=[overseer],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    overseer.trainer = trainer
    guarded = guard_linear4bit(trainer.model)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    # Weights, two Adam moments, and about a megabyte of tokenizer and states.
    check_room(workdir, trainable * 4 * 3 + _size_of(base), train.keep_checkpoints)
    if resumable and resumable.step >= steps:
        trainer._load_from_checkpoint(str(resumable.path))
        trainer.state = TrainerState.load_from_json(str(resumable.path / "trainer_state.json"))
    else:
        if resumable:
            watch.progress(
                resumable.step, steps, "steps", None, f"resumed from {resumable.path.name}"
            )
        trainer.train(resume_from_checkpoint=str(resumable.path) if resumable else None)
    if overseer.stopped:
        raise StopRequested(
            trainer.state.global_step, f"saved checkpoint-{trainer.state.global_step}"
        )
    losses = tuple(
        (int(e["step"]), float(e["loss"])) for e in trainer.state.log_history if "loss" in e
    )
    epochs = trainer.state.global_step * per_step / len(proof.rows)
    return Trained(trainer.model, trainer.state.global_step, epochs, losses, trainable, guarded)


def _configure(train: Train, steps: int, workdir: Path, *, cpu: bool) -> Any:
    import torch
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(workdir),
        use_cpu=cpu,
        bf16=not cpu and torch.cuda.is_bf16_supported(),
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.scheduler,
        warmup_steps=math.ceil(train.warmup * steps),
        max_steps=steps,
        # The rows of all epochs are already laid out in the order in which they are read.
        train_sampling_strategy="sequential",
        per_device_train_batch_size=train.batch,
        gradient_accumulation_steps=train.accumulation,
        optim=train.optimizer,
        max_grad_norm=train.max_grad_norm,
        activation_checkpointing=train.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="steps",
        save_steps=train.checkpoint_steps,
        # Rotation is ours: the trainer's would remove the older one before the newer is sealed.
        save_total_limit=None,
        # One record a step: a window cut by a kill would otherwise average other steps after resume.
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=train.seed,
        data_seed=train.seed,
        dataloader_num_workers=0,
        dataloader_pin_memory=not cpu,
        report_to="none",
        disable_tqdm=True,
        push_to_hub=False,
    )


def _configure_lora(train: Train) -> Any:
    from peft import LoraConfig

    modules = train.lora.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=train.lora.r,
        lora_alpha=train.lora.alpha,
        lora_dropout=train.lora.dropout,
        target_modules=modules if isinstance(modules, str) else sorted(modules),
        bias="none",
    )


def _size_of(base: BaseModel) -> int:
    """Bytes of the base's small files, which the trainer copies into every checkpoint."""
    small = [base.path / n for n, _ in base.files if not n.endswith(".safetensors")]
    return sum(p.stat().st_size for p in small) + 65536


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _translate(
    error: BaseException, workdir: Path, out_of_memory: type[BaseException]
) -> BaseException:
    text = str(error)
    no_room = isinstance(error, MemoryError | out_of_memory) or "can't allocate memory" in text
    if no_room:
        return TrainingError(
            "there is not enough memory to train",
            why=" ".join(text.split())[:200] or "the system refused an allocation",
            fix="gtft run RECIPE --set train.gradient_checkpointing=true --set train.max_length=512, or a smaller base",
        )
    return translate_save_error(error, workdir) or error
