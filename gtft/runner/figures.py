"""The figures of a run's stages, read from the files of their jobs: what was appended since the last look.

A worker writes ``metrics.jsonl`` and ``events.jsonl`` while others read; a line may be torn, a step may be
written again after a resume (its last value counts), and a file may be cut off or replaced.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gtft.contract import (
    EVENTS_FILE,
    METRICS_FILE,
    Checkpoint,
    Event,
    Metric,
    Paused,
    Progress,
    Warned,
    parse_event,
)

# What a first look takes from the end of a file: days of a training, milliseconds of reading.
LAST_BYTES = 1 << 20
# A longer line is nobody's figure; it is skipped without being kept.
_LONGEST_LINE = 1 << 16
_MOST_STEPS = 10**9
_MOST_NAMES = 64
_MOST_KEPT = 1000


class Tail:
    """The lines appended to a file since the last `read`. The first read begins ``last`` bytes before the
    end, or at the start when None; a file that was replaced or cut off is read from its start again."""

    def __init__(self, path: Path, last: int | None = LAST_BYTES) -> None:
        self._path = path
        self._last = last
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._rest = b""
        # Inside a line that is not kept: one cut by the first look, or one that is too long.
        self._skipping = False
        # When the file was last written to, seconds since the epoch; 0 = not there.
        self.changed = 0.0
        # Of the last read: the file is another one, and what was read before is of no account.
        self.began_again = False

    def read(self) -> list[bytes]:
        """Whole lines only; a torn last line waits for its end. No file = no lines."""
        self.began_again = False
        try:
            with self._path.open("rb") as f:
                self._find_place(os.fstat(f.fileno()))
                f.seek(self._offset)
                data = f.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, rest = (self._rest + data).split(b"\n")
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        if self._skipping or len(rest) > _LONGEST_LINE:
            self._skipping, rest = True, b""
        self._rest = rest
        return [line for line in lines if 0 < len(line) <= _LONGEST_LINE]

    def _find_place(self, now: os.stat_result) -> None:
        """Where to read on: on from before, or anew in a file that is not the one of before."""
        file = (now.st_dev, now.st_ino)
        self.changed = now.st_mtime
        if self._file is None:
            self._offset = max(0, now.st_size - self._last) if self._last is not None else 0
            self._skipping = self._offset > 0
        elif file != self._file or now.st_size < self._offset:
            self.began_again = True
            self._offset, self._rest, self._skipping = 0, b"", False
        self._file = file


@dataclass
class Figures:
    """What is known of one stage so far. ``series``: name → step → value, the last one written."""

    series: dict[str, dict[int, float]] = field(default_factory=dict)
    progress: Progress | None = None
    checkpoints: list[int] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    pauses: list[int] = field(default_factory=list)
    resumes: list[int] = field(default_factory=list)
    # Lines that are no figure and no event.
    unreadable: int = 0
    _paused: bool = False

    def take_metric(self, line: bytes) -> None:
        """One line of ``metrics.jsonl``."""
        try:
            found = Metric.model_validate_json(line)
        except ValidationError:
            self.unreadable += 1
            return
        known = found.name in self.series or len(self.series) < _MOST_NAMES
        if not (known and 0 <= found.step <= _MOST_STEPS and math.isfinite(found.value)):
            self.unreadable += 1
            return
        self.series.setdefault(found.name, {})[found.step] = found.value

    def take_event(self, line: bytes) -> Event | None:
        """One line of ``events.jsonl``; None for what is no event."""
        try:
            event = parse_event(line)
        except ValueError:
            self.unreadable += 1
            return None
        match event:
            case Progress():
                self._note_progress(event)
            case Checkpoint(step=step):
                _keep(self.checkpoints, step)
            case Warned():
                self.warnings.append(event)
                del self.warnings[:-_MOST_KEPT]
            case Paused(step=step):
                self._paused = True
                if step is not None:
                    _keep(self.pauses, step)
            case _:
                pass
        return event

    def _note_progress(self, event: Progress) -> None:
        before = self.progress
        if event.total is not None and event.done > 0:
            back = before is not None and before.unit == event.unit and event.done < before.done
            if self._paused or back or event.note.startswith("resumed"):
                _keep(self.resumes, event.done)
            self._paused = False
        self.progress = event

    def last(self, name: str) -> float | None:
        """The value of the highest step; None when the figure was never written."""
        steps = self.series.get(name)
        return steps[max(steps)] if steps else None

    def points(self, name: str) -> list[tuple[int, float]]:
        """(step, value) in the order of steps."""
        return sorted(self.series.get(name, {}).items())


def _keep(steps: list[int], step: int) -> None:
    if step not in steps:
        steps.append(step)
        del steps[:-_MOST_KEPT]


class Follower:
    """The figures of one job, kept up to date by reading only what was appended."""

    def __init__(self, job_dir: Path, last: int | None = LAST_BYTES) -> None:
        self._metrics = Tail(job_dir / METRICS_FILE, last)
        self._events = Tail(job_dir / EVENTS_FILE, last)
        self.figures = Figures()

    @property
    def changed(self) -> float:
        """When its files were last written to, seconds since the epoch; 0 = not there."""
        return max(self._metrics.changed, self._events.changed)

    def read(self) -> list[Event]:
        """Take in what is new; returns the new events, without those of single figures."""
        lines = self._metrics.read()
        if self._metrics.began_again:
            self.figures.series.clear()
        for line in lines:
            self.figures.take_metric(line)
        lines = self._events.read()
        if self._events.began_again:
            self.figures = Figures(series=self.figures.series)
        # A figure's event says what its line in metrics.jsonl says.
        events = [self.figures.take_event(li) for li in lines if b'"event":"metric"' not in li]
        return [e for e in events if e is not None]


def read_figures(job_dir: Path) -> Figures:
    """All figures of a job, once; empty where it has not begun."""
    follower = Follower(job_dir, last=None)
    follower.read()
    return follower.figures


@dataclass(frozen=True)
class Training:
    """A training in few figures. Losses in nats per trained token, memory in bytes, ``seconds`` without
    loading; None = not measured (yet)."""

    step: int
    total: int | None
    loss_first: float | None
    loss_last: float | None
    validation_best: float | None
    validation_best_step: int | None
    validation_last: float | None
    general_kl: float | None
    # The middle one of those logged, and the last.
    tokens_per_s: float | None
    tokens_per_s_last: float | None
    memory: float | None
    peak_memory: float | None
    seconds: float | None
    checkpoints: tuple[int, ...]
    pauses: tuple[int, ...]
    resumes: tuple[int, ...]
    warnings: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(figures: Figures) -> Training | None:
    """None when no step was trained yet."""
    losses = figures.points("loss")
    if not losses:
        return None
    held_out = figures.points("validation_loss")
    best = min(held_out, key=lambda p: p[1], default=(None, None))
    speeds = [v for _, v in figures.points("tokens_per_s")]
    # The second counts mapped pages of libraries and weights too; so only where there is no other.
    peak = "peak_anon_bytes" if "peak_anon_bytes" in figures.series else "peak_memory_bytes"
    memory = [v for n in ("memory_bytes", peak) for _, v in figures.points(n)]
    now = figures.progress
    return Training(
        step=losses[-1][0],
        total=now.total if now is not None and now.unit == "steps" else None,
        loss_first=losses[0][1],
        loss_last=losses[-1][1],
        validation_best=best[1],
        validation_best_step=best[0],
        validation_last=figures.last("validation_loss"),
        general_kl=figures.last("general_kl"),
        tokens_per_s=statistics.median(speeds) if speeds else None,
        tokens_per_s_last=figures.last("tokens_per_s"),
        memory=figures.last("memory_bytes"),
        peak_memory=max(memory, default=None),
        seconds=figures.last("train_seconds"),
        checkpoints=tuple(figures.checkpoints),
        pauses=tuple(figures.pauses),
        resumes=tuple(figures.resumes),
        warnings=len(figures.warnings),
    )


def draw_line(values: Sequence[float], width: int, ramp: str) -> str:
    """Values as one line of characters, each the mean of its share of them; ``ramp``: lowest to highest."""
    columns = [statistics.fmean(part) for part in _share_out(values, width)]
    if not columns:
        return ""
    low, high = min(columns), max(columns)
    top = len(ramp) - 1
    # Halved before they are subtracted: the largest floats have no difference.
    span = high / 2 - low / 2
    return "".join(
        ramp[round((c / 2 - low / 2) / span * top) if span else top // 2] for c in columns
    )


def _share_out(values: Sequence[float], width: int) -> list[Sequence[float]]:
    count = min(width, len(values))
    cuts = [len(values) * n // count for n in range(count + 1)] if count else []
    return [values[a:b] for a, b in itertools.pairwise(cuts)]


def mark_columns(steps: Sequence[int], marked: Sequence[int], width: int) -> str:
    """A line below `draw_line` of the same steps: ``^`` in the column that each of ``marked`` falls into."""
    starts = [int(part[0]) for part in _share_out(steps, width)]
    found = {bisect.bisect_right(starts, m) - 1 for m in marked}
    return "".join("^" if n in found else " " for n in range(len(starts))).rstrip()


def say_seconds(s: float) -> str:
    """A duration for people."""
    if s < 90:
        return f"{s:.0f} s"
    return f"{s / 60:.0f} min" if s < 5400 else f"{s / 3600:.1f} h"


def clean_text(text: object, longest: int = 300) -> str:
    """One line of others' text for people; what would steer a terminal or a page is spelled out."""
    shown = spell_out(" ".join(str(text)[: 4 * longest].split()))
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def spell_out(text: str) -> str:
    """Controls, invisible and direction characters as ``\\x1b`` or ``\\u202e``."""
    return "".join(c if c.isprintable() else _spell(c) for c in text)


def _spell(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
