"""The training of one adapter, whatever the method: load, build the trainer, resume, run, explain failures."""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gtft.errors import GtftError, TrainingError
from gtft.memory import give_back_large_blocks
from gtft.recipe.schema import Method, Train
from gtft.training.base import BaseModel, guard_linear4bit, load_model
from gtft.training.checkpoint import (
    Fingerprint,
    Resumable,
    check_room,
    discard_unfinished,
    find_resumable,
    list_checkpoints,
    translate_save_error,
)
from gtft.training.device import ONE_THREAD_BELOW, Settings
from gtft.training.material import Material
from gtft.training.order import plan_order
from gtft.training.ranks import Ranks, share_cores
from gtft.training.watch import StopRequested, Watch

_LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")
# TRL's own chunk of 32768 vocabulary columns needs five times the memory at the same speed on CPU.
_CPU_HEAD_CHUNK = 4096
# The module under gtft.training.methods that builds each method's trainer.
METHODS: dict[Method, str] = {
    "sft": "sft",
    "dpo": "preference",
    "kto": "preference",
    "orpo": "preference",
    "grpo": "reward",
}


class Companion(Protocol):
    """A trainer callback that keeps something of its own in every checkpoint.

    It writes its files in ``on_save``, before the checkpoint is sealed; `restore` gets the folder of the
    checkpoint that the run goes on from, before the first step. ``stopped`` says why it ended the run.
    """

    trainer: Any

    def restore(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and how. ``keep_threads``: the user chose their number.

    ``companions`` are made anew for every training; ``equip`` puts the adapter on the loaded base.
    """

    base: BaseModel
    tokenizer: Any
    train: Train
    settings: Settings
    corpus: str
    recipe_hash: str
    workdir: Path
    watch: Watch
    clock: Callable[[], float]
    equip: Callable[[Any], Any]
    measure_memory: Callable[[], int]
    companions: tuple[Companion, ...] = ()
    keep_threads: bool = False
    place: int | None = None
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.recipe_hash, self.corpus, self.base.id)


@dataclass(frozen=True)
class Trained:
    """A finished training. ``losses`` are (step, nats per supervised token); ``guarded``: Linear4bit layers."""

    model: Any
    steps: int
    epochs: float
    losses: tuple[tuple[int, float], ...]
    trainable: int
    guarded: int
    settings: Settings
    companions: tuple[Companion, ...] = field(default=())


def count_steps(units: int, train: Train) -> int:
    """Optimizer steps that a recipe asks for on this many units."""
    if train.engine == "swarm":
        return train.swarm.every * train.swarm.rounds
    if train.max_steps:
        return train.max_steps
    return max(1, math.ceil(train.epochs * units / count_per_step(train)))


def count_per_step(train: Train) -> int:
    """Units that one update reads, on all processes."""
    return train.batch * train.accumulation * train.processes


def fit(task: Task, material: Material) -> Trained:
    """Train (or go on training) the adapter in ``task.workdir``.

    Same rows, recipe, seed and libraries give the same weights on CPU, whether or not the process was
    killed on the way. Raises TrainingError (NaN, foreign checkpoint, no memory), DiskFull, and
    StopRequested once a checkpoint is saved after a request to stop.
    """
    import torch
    from safetensors import SafetensorError

    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    resumable = _find_resumable(task, libraries)
    threads = torch.get_num_threads()
    try:
        return _fit(task, material, libraries, resumable)
    except (OSError, RuntimeError, MemoryError, ValueError) as e:
        _discard(task)
        raise _translate(e, task.workdir, torch.OutOfMemoryError) from e
    except SafetensorError as e:
        _discard(task)
        translated = translate_save_error(e, task.workdir)
        if translated is None:
            raise
        raise translated from e
    except (GtftError, StopRequested):
        _discard(task)
        raise
    finally:
        torch.set_num_threads(threads)


def _discard(task: Task) -> None:
    if task.ranks.rank == 0:
        discard_unfinished(task.workdir)


def _find_resumable(task: Task, libraries: dict[str, str]) -> Resumable | None:
    """Rank 0 looks first: it removes and renames what cannot be used."""
    if task.ranks.world == 1:
        return find_resumable(task.workdir, task.fingerprint, libraries, task.watch)
    from accelerate import PartialState

    state = PartialState(cpu=task.settings.device == "cpu")
    with state.main_process_first():
        return find_resumable(task.workdir, task.fingerprint, libraries, task.watch)


def _fit(
    task: Task, material: Material, libraries: dict[str, str], resumable: Resumable | None
) -> Trained:
    import torch
    from transformers import PrinterCallback, ProgressCallback
    from transformers.trainer_callback import TrainerState
    from transformers.trainer_utils import set_seed
    from trl.trainer import utils as trl_utils

    from gtft.training.retention import Finished
    from gtft.training.trainer import Interrupt, Interrupted, Overseer, list_trainable

    train, watch = task.train, task.watch
    cpu = task.settings.device == "cpu"
    if cpu:
        trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = _CPU_HEAD_CHUNK
        if task.settings.gradient_checkpointing:
            give_back_large_blocks()
    watch.progress(0, None, "steps", None, f"loading {task.base.name}")
    set_seed(train.seed)
    model = task.equip(load_model(task.base, task.place))
    if cpu and not task.keep_threads and model.num_parameters() < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    elif cpu and not task.keep_threads and task.ranks.world > 1:
        torch.set_num_threads(share_cores(task.ranks.world))
    steps = count_steps(len(material.lengths), train)
    order = plan_order(material.lengths, train.batch, steps * count_per_step(train), train.seed)
    overseer = Overseer(
        watch, task.fingerprint, libraries, train.keep_checkpoints, task.clock, task.measure_memory
    )
    method = importlib.import_module(f"gtft.training.methods.{METHODS[train.method]}")
    trainer = method.build_trainer(
        task, model, material, order, configure(task, steps), [*task.companions, overseer]
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    overseer.trainer = trainer
    for companion in task.companions:
        companion.trainer = trainer
    guarded = guard_linear4bit(trainer.model)
    if task.ranks.world == 1:
        trainer.interrupt = Interrupt(trainer.model, watch)
    trainable = sum(p.numel() for _, p in list_trainable(trainer.model))
    # Weights, two Adam moments, the best weights so far, and about a megabyte of tokenizer and states.
    check_room(task.workdir, trainable * 4 * 4 + _size_of(task.base), train.keep_checkpoints)
    if resumable:
        for companion in task.companions:
            companion.restore(resumable.path)
    # A swarm's last bytes come from its peers: `train` asks them, also when no step is left.
    if resumable and resumable.step >= steps and train.engine == "local":
        trainer._load_from_checkpoint(str(resumable.path))
        trainer.state = TrainerState.load_from_json(str(resumable.path / "trainer_state.json"))
    else:
        if resumable:
            watch.progress(
                resumable.step, steps, "steps", None, f"resumed from {resumable.path.name}"
            )
        try:
            trainer.train(resume_from_checkpoint=str(resumable.path) if resumable else None)
        except Interrupted as e:
            raise overseer.save_interrupted() from e
        except Finished:
            # It had stopped early; the checkpoint is loaded and no step is left.
            pass
    step = trainer.state.global_step
    if overseer.stopped:
        raise StopRequested(step, f"saved checkpoint-{step}")
    losses = tuple(
        (int(e["step"]), float(e["loss"])) for e in trainer.state.log_history if "loss" in e
    )
    epochs = step * count_per_step(train) / len(material.lengths)
    return Trained(
        trainer.model, step, epochs, losses, trainable, guarded, task.settings, task.companions
    )


def configure(task: Task, steps: int) -> dict[str, Any]:
    """The settings that the trainers of all methods share, by transformers' own names."""
    train, settings = task.train, task.settings
    cpu = settings.device == "cpu"
    return {
        "output_dir": str(task.workdir),
        "use_cpu": cpu,
        "bf16": settings.bf16,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.scheduler,
        "warmup_steps": math.ceil(train.warmup * steps),
        "max_steps": steps,
        # The units of all epochs are already laid out in the order in which they are read.
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": train.batch,
        "gradient_accumulation_steps": train.accumulation,
        "optim": settings.optimizer,
        "max_grad_norm": train.max_grad_norm,
        "activation_checkpointing": settings.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "save_strategy": "steps",
        "save_steps": train.checkpoint_steps,
        # Rotation is ours: the trainer's would remove the older one before the newer is sealed.
        "save_total_limit": None,
        # One record a step: a window cut by a kill would otherwise average other steps after resume.
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "seed": train.seed,
        "data_seed": train.seed,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": not cpu,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
    }


def _size_of(base: BaseModel) -> int:
    """Bytes of the base's small files, which the trainer copies into every checkpoint."""
    small = [base.path / n for n, _ in base.files if not n.endswith(".safetensors")]
    return sum(p.stat().st_size for p in small) + 65536


def _translate(
    error: BaseException, workdir: Path, out_of_memory: type[BaseException]
) -> BaseException:
    text = str(error)
    no_room = isinstance(error, MemoryError | out_of_memory) or "can't allocate memory" in text
    if no_room:
        kept = list_checkpoints(workdir)
        last = kept[-1][1].name if kept else "none"
        why = " ".join(text.split())[:200] or "the system refused an allocation"
        return TrainingError(
            "there is not enough memory to train",
            why=f"{why}; the last good checkpoint is {last}",
            fix="gtft plan RECIPE says what would fit; such as: gtft run RECIPE "
            "--set train.gradient_checkpointing=on --set train.max_length=512",
        )
    return translate_save_error(error, workdir) or error
