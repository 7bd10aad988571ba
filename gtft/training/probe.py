"""A few real steps of a recipe's training on made-up rows: how fast, and how much memory, on this box."""

from __future__ import annotations

import contextlib
import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from gtft.memory import PeakSampler
from gtft.recipe.schema import Train
from gtft.training.base import BaseModel
from gtft.training.device import Settings
from gtft.training.fit import Task, fit
from gtft.training.material import Rows
from gtft.training.render import Row
from gtft.training.watch import StopRequested

# Share of a row that is trained: what real corpora have, and what the memory of the head follows from.
SUPERVISED = 0.3


@dataclass(frozen=True)
class Probed:
    """``timings``: (tokens, seconds) of each step after the first, which pays for warming up; ``peak`` and
    ``checkpoint``: bytes; ``longest``: tokens of the longest row that was trained."""

    timings: tuple[tuple[int, float], ...]
    peak: int
    checkpoint: int
    longest: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "timings": [list(t) for t in self.timings],
            "peak": self.peak,
            "checkpoint": self.checkpoint,
            "longest": self.longest,
        }


def probe(
    base: BaseModel,
    tokenizer: Any,
    train: Train,
    settings: Settings,
    *,
    equip: Callable[[Any], Any],
    vocab: int,
    lengths: Sequence[int],
    workdir: Path,
    seconds: float,
    clock: Callable[[], float],
    sampler: PeakSampler,
) -> Probed:
    """One step of ``train.batch`` rows of each length, through `fit`; stops after ``seconds`` with what it has.

    ``workdir`` is written to, and its caller's to remove. Rows are random tokens, of which the last
    share is trained: neither speed nor memory follows from what they say.
    """
    dice = random.Random(train.seed)  # noqa: S311 - rows to measure with, not secrets
    rows = [_make_row(n, vocab, dice) for n in lengths for _ in range(train.batch)]
    short = train.model_copy(
        update={
            "method": "sft",
            "engine": "local",
            "max_steps": len(lengths),
            "accumulation": 1,
            "processes": 1,
            "checkpoint_steps": len(lengths),
            "keep_checkpoints": 1,
        }
    )
    timer = _Timer(clock)
    task = Task(
        base=base,
        tokenizer=tokenizer,
        train=short,
        settings=settings,
        corpus="probe",
        recipe_hash="probe",
        workdir=workdir,
        watch=_Deadline(clock, clock() + seconds),
        clock=clock,
        equip=equip,
        measure_memory=lambda: sampler.peak,
        companions=(timer,),
        place=0 if settings.device == "cuda" else None,
    )
    # Out of time: the steps that were done are the answer.
    with contextlib.suppress(StopRequested):
        fit(task, Rows(tuple(rows)))
    saved = [p for p in workdir.rglob("checkpoint-*/*") if p.is_file()]
    return Probed(
        timings=tuple(timer.timings[1:] or timer.timings),
        peak=_find_peak(settings, sampler),
        checkpoint=sum(p.stat().st_size for p in saved),
        longest=max((n for n, _ in timer.timings), default=0) // train.batch,
    )


def _find_peak(settings: Settings, sampler: PeakSampler) -> int:
    """Of this process's own memory; on a GPU of the card's."""
    import torch

    if settings.device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    return sampler.peak


def _make_row(length: int, vocab: int, dice: random.Random) -> Row:
    ids = array("i", [dice.randrange(vocab) for _ in range(length)])
    return Row("probe", ids, ((int(length * (1 - SUPERVISED)), length),), cut=0)


class _Timer(TrainerCallback):  # type: ignore[misc]
    """(tokens, seconds) of every step."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.trainer: Any = None
        self.timings: list[tuple[int, float]] = []
        self._clock = clock
        self._began = 0.0
        self._tokens = 0

    def restore(self, folder: Path) -> None:
        """Nothing: a probe is never gone on with."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = self._clock()
        self._tokens = self.trainer.tokens_seen

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.timings.append((self.trainer.tokens_seen - self._tokens, self._clock() - self._began))


class _Deadline:
    """A watch that says nothing and asks to stop when the time is over."""

    def __init__(self, clock: Callable[[], float], end: float) -> None:
        self._clock = clock
        self._end = end

    @property
    def stop_requested(self) -> bool:
        return self._clock() > self._end

    def progress(
        self, done: int, total: int | None, unit: str, eta_s: float | None = None, note: str = ""
    ) -> None: ...

    def metric(self, step: int, name: str, value: float) -> None: ...

    def checkpoint(self, path: str, step: int) -> None: ...

    def warn(self, code: str, text: str) -> None: ...
