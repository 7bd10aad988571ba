"""Before a run starts: what it will need and how that is known. No figure is made up.

Minutes and memory come from runs of this box, whose job folders are in the workspace; what was not
measured is said to be unknown, with what can be computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gtft.contract import METRICS_FILE, STAGES
from gtft.recipe.resolve import Resolved
from gtft.recipe.schema import Base, Recipe
from gtft.records.rows import EventRow, Run
from gtft.runner.box import RUNNER, WORKER, Box, say_count, say_size, survey_box
from gtft.runner.workspace import Workspace

# How many earlier runs are looked at, newest first.
MOST_PASTS = 5


@dataclass(frozen=True)
class Figure:
    """A figure and where it is from. ``low``–``high`` as measured; None when it is not known."""

    low: float | None
    high: float | None
    source: str


@dataclass(frozen=True)
class Launch:
    """The summary. ``stages``: seconds by stage; ``memory`` and ``disk``: bytes."""

    formula: str
    hash: str
    role: str
    scope: tuple[str, ...]
    base: str
    stages: dict[str, Figure]
    memory: Figure
    disk: Figure
    box: Box
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "box": self.box.as_dict()}


@dataclass(frozen=True)
class Past:
    """What a run of this box took: seconds by stage (single attempts only), bytes of memory and disk."""

    run: Run
    seconds: dict[str, float]
    peak: float | None
    disk: int
    rows: int | None


def plan_launch(
    ws: Workspace | None, resolved: Resolved, *, root: Path, disk_at: Path, source_bytes: int
) -> Launch:
    """The summary of a run that is not there yet. ``ws`` None = no workspace, so nothing was measured.

    ``root``: where relative paths of the recipe start. ``disk_at`` exists and is on the disk that the
    run writes to. ``source_bytes``: what it reads.
    """
    recipe = resolved.recipe
    box = survey_box(disk_at)
    pasts = list(islice(_recall(ws, resolved), MOST_PASTS)) if ws is not None else []
    same = [p for p in pasts if p.run.recipe_hash == resolved.hash]
    used, which = (same, "this recipe") if same else (pasts, "other recipes on this base")
    folder = find_base_folder(recipe.base, root)
    memory = _estimate_memory(folder, used, which)
    disk = _estimate_disk(used, which, source_bytes)
    return Launch(
        formula=resolved.formula,
        hash=resolved.hash,
        role=recipe.role,
        scope=recipe.scope,
        base=describe_base(recipe.base),
        stages={s: _estimate_stage(s, recipe, used, which) for s in STAGES},
        memory=memory,
        disk=disk,
        box=box,
        warnings=tuple(_warn(box, memory, disk, folder)),
    )


def describe_base(base: Base) -> str:
    if base.model == "nano":
        n = base.nano
        return f"nano ({n.layers} layers, width {n.hidden}, {n.vocab} tokens), built from the town's text"
    return base.model + (f" at {base.revision}" if base.revision else "") + f", {base.quantization}"


def _recall(ws: Workspace, resolved: Resolved) -> Iterator[Past]:
    """Runs on the same base that this box carried out, newest first."""
    wanted = resolved.document["recipe"]["base"]
    for run in ws.store.list_runs():
        if run.recipe["recipe"]["base"] != wanted:
            continue
        events = ws.store.list_events(run.id)
        here = [s for s in STAGES if ws.job_dir(run.id, s).is_dir()]
        seconds: dict[str, float] = {
            s: t for s in here if (t := _measure_stage(events, s)) is not None
        }
        if not seconds:
            continue
        made = {s.stage: s.artifact_id for s in ws.store.list_stages(run.id) if s.artifact_id}
        trained = ws.store.find_artifact(made["train"]) if "train" in made else None
        rows = trained.summary.get("rows") if trained else None
        folders = [ws.job_dir(run.id, s) for s in here]
        for artifact_id in made.values():
            row = ws.store.find_artifact(artifact_id)
            if row is not None:
                folders.append(ws.artifact_path(row.path))
        yield Past(
            run=run,
            seconds=seconds,
            peak=_read_peak(ws.job_dir(run.id, "train") / METRICS_FILE),
            disk=sum(measure_folder(f) for f in folders),
            rows=rows if isinstance(rows, int) else None,
        )


def _measure_stage(events: list[EventRow], stage: str) -> float | None:
    """Seconds from the claim to the evidence; None when it took more than one attempt or did not end."""
    starts = [e for e in events if e.stage == stage and e.kind in ("claimed", "taken-over")]
    ends = [e for e in events if e.stage == stage and e.kind == "review"]
    if len(starts) != 1 or not ends:
        return None
    return (ends[0].created_us - starts[0].created_us) / 1e6


def _read_peak(path: Path) -> float | None:
    """``peak_memory_bytes`` of a training; None when it did not get that far."""
    peak: float | None = None
    try:
        with path.open(encoding="utf-8") as f:
            for line in f:
                if '"peak_memory_bytes"' in line:
                    peak = float(json.loads(line)["value"])
    except (OSError, ValueError, KeyError):
        return None
    return peak


def measure_folder(folder: Path) -> int:
    """Bytes of the files below a folder; 0 when it is not there."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _estimate_stage(stage: str, recipe: Recipe, pasts: list[Past], which: str) -> Figure:
    values = [p.seconds[stage] for p in pasts if stage in p.seconds]
    if values:
        return Figure(min(values), max(values), _say_source(len(values), which))
    known = {"train": _count_updates(recipe, pasts), "eval": _count_answers(recipe)}.get(stage, "")
    text = "no run was measured on this box yet"
    return Figure(None, None, f"{text}; {known}" if known else text)


def _count_updates(recipe: Recipe, pasts: list[Past]) -> str:
    train = recipe.train
    if train.max_steps:
        return f"{train.max_steps} updates at most"
    per = train.batch * train.accumulation
    rows = next((p.rows for p in pasts if p.rows), None)
    if rows:
        return f"about {rows * train.epochs / per:.0f} updates ({rows} rows, as last time)"
    return f"updates = rows × {train.epochs:g} epochs / {per}; rows are known after the harvest"


def _count_answers(recipe: Recipe) -> str:
    items = recipe.eval.max_items * len(recipe.eval.suites)
    return (
        f"at most {items} items, each answered twice, {recipe.eval.max_new_tokens} tokens at most"
    )


def find_base_folder(base: Base, root: Path) -> Path | None:
    """Where a base that is a folder of this box should be; None for nano and for hub ids."""
    if base.model == "nano":
        return None
    folder = root / Path(base.model).expanduser()
    looks_local = base.model.startswith(("/", ".", "~"))
    return folder if looks_local or folder.is_dir() else None


def _estimate_memory(folder: Path | None, pasts: list[Past], which: str) -> Figure:
    peaks = [p.peak for p in pasts if p.peak is not None]
    if peaks:
        return Figure(min(peaks), max(peaks), _say_source(len(peaks), which))
    text = "no training on this base was measured on this box yet"
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors")) if folder else 0
    if not size:
        return Figure(None, None, text)
    return Figure(float(size), None, f"{text}; the base's files as stored; training comes on top")


def _estimate_disk(pasts: list[Past], which: str, source_bytes: int) -> Figure:
    sizes = [float(p.disk) for p in pasts]
    if sizes:
        text = f"{_say_source(len(sizes), which)}: corpus, checkpoints, answers, card"
        return Figure(min(sizes), max(sizes), text)
    text = "the sources' own size, as a measure of the corpus; checkpoints come on top"
    return Figure(float(source_bytes), None, text)


def _say_source(n: int, which: str) -> str:
    return f"measured: {say_count(n, 'run')} of {which} on this box"


def _warn(box: Box, memory: Figure, disk: Figure, base: Path | None) -> Iterator[str]:
    if memory.high is not None and memory.high > box.free:
        yield f"memory: {say_size(memory.high)} needed, {say_size(box.free)} free"
    need = disk.high or disk.low
    if need is not None and need > box.disk_free:
        yield f"disk: {say_size(need)} needed, {say_size(box.disk_free)} free"
    if base is not None and not base.is_dir():
        yield f"base: {base} is not there, and training will stop for it"
    busy = [say_count(len(g.pids), g.what) for g in box.groups if g.what in (RUNNER, WORKER)]
    if busy:
        yield f"busy: {' and '.join(busy)} on this box already"
