"""A training measured against its plan while it runs: what is far off is told once, with the likely cause."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from gtft.artifact import write_json
from gtft.training.watch import Watch

STATE = "watchdog.json"
# So many updates and seconds are looked at before anything is said.
LEAST_STEPS = 3
LEAST_SECONDS = 20.0
# Overruns that are told, each once: (times the plan, code of the warning).
OVERRUNS = ((10.0, "much-slower-than-planned"), (2.0, "slower-than-planned"))
MOST_MEMORY = 1.25
_LONG_ROWS = 1.5
_STALLED = 0.1
_SWAPPED = 64 * 1024**2
_IDLE = 0.3


@dataclass(frozen=True)
class Pace:
    """What the plan says of a step. ``step_seconds``: of one update; ``step_tokens``: that it reads."""

    step_seconds: float
    step_tokens: float
    memory: int


@dataclass(frozen=True)
class Circumstances:
    """The box now. ``stalled``: share of the last 10 s in which something waited for memory; ``swapped``: bytes
    of this process; ``worked``: its processor seconds so far."""

    load: float
    cores: int
    stalled: float
    swapped: int
    worked: float


def read_pace(path: Path) -> Pace | None:
    """From the runner's ``plan.json``; None when there is none, or it says nothing of the pace."""
    try:
        doc = json.loads(path.read_text("utf-8"))
        updates = int(doc["updates"])
        pace = Pace(doc["pace"] / 1000, doc["tokens"] / max(1, updates), int(doc["memory"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pace if pace.step_seconds > 0 else None


def look_around() -> Circumstances:
    """As the kernel tells it; what it does not tell counts as nothing."""
    stalled = 0.0
    swapped = 0
    try:
        for line in Path("/proc/pressure/memory").read_text("ascii").splitlines():
            if line.startswith("some"):
                stalled = float(line.split("avg10=")[1].split()[0]) / 100
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmSwap:"):
                swapped = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return Circumstances(
        os.getloadavg()[0], os.cpu_count() or 1, stalled, swapped, time.process_time()
    )


class Watchdog(TrainerCallback):  # type: ignore[misc]
    """Compares speed and memory with the plan after every update. A companion of `gtft.training.fit`."""

    def __init__(
        self,
        pace: Pace | None,
        watch: Watch,
        clock: Callable[[], float],
        measure_memory: Callable[[], int],
        look: Callable[[], Circumstances] = look_around,
    ) -> None:
        self.trainer: Any = None
        self._pace = pace
        self._watch = watch
        self._clock = clock
        self._measure_memory = measure_memory
        self._look = look
        self._told: list[str] = []
        self._began = self._worked = 0.0
        self._first_step = self._tokens = 0

    def restore(self, folder: Path) -> None:
        """What was told before is not told again."""
        try:
            self._told = [str(c) for c in json.loads((folder / STATE).read_text("utf-8"))["told"]]
        except (OSError, ValueError, KeyError, TypeError):
            self._told = []

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / STATE, {"told": self._told})

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began, self._first_step = self._clock(), state.global_step
        self._worked = self._look().worked if self._pace else 0.0
        self._tokens = self.trainer.tokens_seen if self.trainer else 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        pace = self._pace
        if pace is None or not state.is_world_process_zero:
            return
        memory = self._measure_memory()
        if pace.memory and memory > pace.memory * MOST_MEMORY:
            self._tell(
                "memory-above-plan",
                f"{memory / 1e9:.2f} GB are held, {pace.memory / 1e9:.2f} GB were planned",
            )
        steps, seconds = state.global_step - self._first_step, self._clock() - self._began
        if steps < LEAST_STEPS or seconds < LEAST_SECONDS:
            return
        times = seconds / steps / pace.step_seconds
        code = next((c for most, c in OVERRUNS if times >= most), None)
        if code is None or code in self._told:
            return
        left = seconds / steps * (state.max_steps - state.global_step)
        cause = self._find_cause(pace, steps, seconds)
        self._tell(
            code,
            f"a step takes {seconds / steps:.1f} s, {times:.1f} times what was planned; about "
            f"{left / 60:.0f} min are left. Likely: {cause}",
        )
        # Who was told of ten times need not be told of two.
        self._told += [c for most, c in OVERRUNS if times >= most and c not in self._told]

    def _find_cause(self, pace: Pace, steps: int, seconds: float) -> str:
        now = self._look()
        tokens = ((self.trainer.tokens_seen if self.trainer else 0) - self._tokens) / steps
        if now.swapped > _SWAPPED or now.stalled > _STALLED:
            return (
                f"the box is short of memory ({now.swapped / 1e6:.0f} MB swapped out, "
                f"waiting {now.stalled:.0%} of the time)"
            )
        if pace.step_tokens and tokens > pace.step_tokens * _LONG_ROWS:
            return f"the rows are longer than planned ({tokens:.0f} tokens a step, {pace.step_tokens:.0f} planned)"
        if now.load > now.cores * 1.5:
            return f"others compute on this box (load {now.load:.1f} on {now.cores} cores)"
        if (now.worked - self._worked) / seconds < _IDLE:
            return "the process stood still (suspended, paused, or waiting for the disk)"
        return (
            f"this device is slower than what the plan was made from ({tokens * steps / seconds:.0f} "
            f"tokens/s, {pace.step_tokens / pace.step_seconds:.0f} planned)"
        )

    def _tell(self, code: str, text: str) -> None:
        if code not in self._told:
            self._told.append(code)
            self._watch.warn(code, text)
