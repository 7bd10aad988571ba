"""What earlier runs of this box took: the only figures of a plan that were measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from gtft.contract import METRICS_FILE, STAGES
from gtft.records.rows import EventRow, Run
from gtft.runner.workspace import Workspace

# Figures of a training's end, and those of its steps that a plan reads.
PEAKS = ("peak_anon_bytes", "peak_memory_bytes")
_RATE = "tokens_per_s"
_WANTED = (*PEAKS, _RATE, "base_seconds", "train_seconds")


@dataclass(frozen=True)
class Past:
    """What a run of this box took: seconds by stage (single attempts only), bytes of memory and disk.

    ``tokens``: of one pass over its rows; ``rate``: tokens a second of its training; ``base_seconds``: until its base was there; ``train_seconds``: of loading and all steps."""

    run: Run
    seconds: dict[str, float]
    peak: float | None
    disk: int
    rows: int | None
    tokens: int | None = None
    rate: float | None = None
    base_seconds: float | None = None
    train_seconds: float | None = None
    steps: int | None = None

    @property
    def start_seconds(self) -> float | None:
        """What the train stage took besides its steps and its base: imports, loading, writing."""
        total = self.seconds.get("train")
        if total is None or self.train_seconds is None:
            return None
        return max(0.0, total - self.train_seconds - (self.base_seconds or 0.0))


def recall(ws: Workspace, document: Mapping[str, Any]) -> Iterator[Past]:
    """Runs on the same base that this box carried out, newest first. ``document``: a resolved recipe's."""
    wanted = document["recipe"]["base"]
    for run in ws.store.list_runs():
        if run.recipe["recipe"]["base"] == wanted and (past := recall_run(ws, run)) is not None:
            yield past


def recall_run(ws: Workspace, run: Run) -> Past | None:
    """What one run took here; None when no stage of it was measured."""
    events = ws.store.list_events(run.id)
    here = [s for s in STAGES if ws.job_dir(run.id, s).is_dir()]
    seconds: dict[str, float] = {s: t for s in here if (t := measure_stage(events, s)) is not None}
    if not seconds:
        return None
    made = {s.stage: s.artifact_id for s in ws.store.list_stages(run.id) if s.artifact_id}
    trained = ws.store.find_artifact(made["train"]) if "train" in made else None
    read = count_read(trained.summary) if trained else None
    folders = [ws.job_dir(run.id, s) for s in here]
    for artifact_id in made.values():
        row = ws.store.find_artifact(artifact_id)
        if row is not None:
            folders.append(ws.artifact_path(row.path))
    figures = read_figures(ws.job_dir(run.id, "train") / METRICS_FILE)
    return Past(
        run=run,
        seconds=seconds,
        peak=find_peak(figures),
        disk=sum(measure_folder(f) for f in folders),
        rows=read[0] if read else None,
        tokens=read[1] if read else None,
        rate=find_rate(figures),
        base_seconds=last(figures, "base_seconds"),
        train_seconds=last(figures, "train_seconds"),
        steps=_read_whole(trained.summary.get("steps")) if trained else None,
    )


def _read_whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def count_read(summary: dict[str, Any]) -> tuple[int, int] | None:
    """(rows, tokens) that one pass of a training read: the corpus's own, which the summary states, and general
    rows beside them, taken to be as long."""
    rows, tokens = _read_whole(summary.get("rows")), count_tokens(summary)
    if not rows or tokens is None:
        return None
    replayed = _read_whole((summary.get("retention") or {}).get("replayed_rows")) or 0
    return rows + replayed, round(tokens * (rows + replayed) / rows)


def count_tokens(summary: dict[str, Any]) -> int | None:
    """Tokens of the corpus's own rows, as an adapter's summary states them."""
    tokens = summary.get("tokens")
    if not isinstance(tokens, dict):
        return None
    values = [tokens.get("context"), tokens.get("supervised")]
    return sum(values) if all(isinstance(v, int) for v in values) else None  # type: ignore[arg-type]


def measure_stage(events: list[EventRow], stage: str) -> float | None:
    """Seconds from the claim to the evidence; None when it took more than one attempt or did not end."""
    starts = [e for e in events if e.stage == stage and e.kind in ("claimed", "taken-over")]
    ends = [e for e in events if e.stage == stage and e.kind == "review"]
    if len(starts) != 1 or not ends:
        return None
    return (ends[0].created_us - starts[0].created_us) / 1e6


def read_figures(path: Path) -> dict[str, list[float]]:
    """The figures of a ``metrics.jsonl`` that a plan reads, in order; a torn or foreign line is passed over."""
    found: dict[str, list[float]] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as f:
            for line in f:
                if any(f'"{name}"' in line for name in _WANTED):
                    try:
                        doc = json.loads(line)
                        name, value = str(doc["name"]), float(doc["value"])
                    except (ValueError, KeyError, TypeError):
                        # A line that a killed worker left torn.
                        continue
                    if math.isfinite(value):
                        found.setdefault(name, []).append(value)
    except OSError:
        return {}
    return found


def last(figures: dict[str, list[float]], name: str) -> float | None:
    values = figures.get(name)
    return values[-1] if values else None


def find_peak(figures: dict[str, list[float]]) -> float | None:
    """The peak of a training: of its own memory, or where that was not sampled of all that was resident."""
    return next((p for name in PEAKS if (p := last(figures, name)) is not None), None)


def find_rate(figures: dict[str, list[float]]) -> float | None:
    """Tokens a second over the whole training: every step reads about as much."""
    rates = [r for r in figures.get(_RATE, []) if r > 0]
    return harmonic_mean(rates) if rates else None


def measure_folder(folder: Path) -> int:
    """Bytes of the files below a folder; 0 when it is not there."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
