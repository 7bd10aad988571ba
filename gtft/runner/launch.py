"""Before a run starts: what it will need, how that is known, and whether it fits.

Minutes and memory come from runs of this box, whose job folders are in the workspace, or from a probe; what
was not measured is computed from the recipe and the base's shape (gtft.runner.budget), and says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, read_artifact
from gtft.contract import STAGES, Job
from gtft.errors import InputError
from gtft.footprint import Shape, read_shape_of, shape_nano
from gtft.recipe.resolve import Resolved
from gtft.recipe.schema import Base, Recipe
from gtft.records.rows import Run
from gtft.runner.box import RUNNER, WORKER, Box, say_count, say_size, survey_box
from gtft.runner.budget import Given, Plan, Probe, Verdict, judge, plan_training
from gtft.runner.past import Past, recall
from gtft.runner.planned import Planned, find_plan, record_plan, summarize
from gtft.runner.volume import add_replay, measure_volume
from gtft.runner.workspace import Config, Workspace

# How many earlier runs are looked at, newest first.
MOST_PASTS = 5
MB = 1024**2


@dataclass(frozen=True)
class Figure:
    """A figure and where it is from. ``low``–``high`` as measured; None when it is not known."""

    low: float | None
    high: float | None
    source: str


@dataclass(frozen=True)
class Launch:
    """The summary. ``stages``: seconds by stage; ``memory`` and ``disk``: bytes; ``plan``: the training's."""

    formula: str
    hash: str
    role: str
    scope: tuple[str, ...]
    base: str
    stages: dict[str, Figure]
    memory: Figure
    disk: Figure
    box: Box
    plan: Plan
    planned: Planned
    verdict: Verdict
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "box": self.box.as_dict()}


def plan_launch(
    ws: Workspace | None,
    resolved: Resolved,
    *,
    root: Path,
    disk_at: Path,
    source_bytes: int,
    corpus: Artifact | None = None,
    probe: Probe | None = None,
) -> Launch:
    """The summary of a run that is not there yet. ``ws`` None = no workspace, so nothing was measured.

    ``root``: where relative paths of the recipe start. ``disk_at`` exists and is on the disk that the
    run writes to. ``source_bytes``: what it reads. ``corpus``: what it would train on, when that is known.
    """
    recipe = resolved.recipe
    given = _gather(
        ws, recipe, resolved.document, resolved.hash,
        root=root, disk_at=disk_at, source_bytes=source_bytes, corpus=corpus, probe=probe,
    )  # fmt: skip
    box, same = given.box, given.same
    used, which = (same, "this recipe") if same else (given.pasts, "other recipes on this base")
    folder = find_base_folder(recipe.base, root)
    plan = plan_training(given)
    disk = _estimate_disk(used, which, source_bytes, plan)
    verdict = judge(given, plan, box.disk_free)
    return Launch(
        formula=resolved.formula,
        hash=resolved.hash,
        role=recipe.role,
        scope=recipe.scope,
        base=describe_base(recipe.base),
        stages={s: _estimate_stage(s, recipe, used, which, plan) for s in STAGES},
        memory=_estimate_memory(same, used, which, plan),
        disk=disk,
        box=box,
        plan=plan,
        planned=summarize(plan),
        verdict=verdict,
        warnings=tuple(_warn(box, verdict, disk, folder)),
    )


def plan_stage(ws: Workspace, run: Run, job: Job) -> Planned:
    """The plan of a run's training on its corpus: made once, before its first attempt, and kept.

    Raises EvidenceError for a corpus that cannot be read.
    """
    kept = find_plan(ws, run.id, job.stage)
    if kept is not None:
        return kept
    given = _gather(
        ws, Recipe.model_validate_json(json.dumps(job.recipe)), run.recipe, run.recipe_hash,
        root=job.root, disk_at=ws.path, source_bytes=0,
        corpus=read_artifact(job.input("harvest").path, kind="corpus"), probe=None,
    )  # fmt: skip
    planned = summarize(plan_training(given))
    record_plan(ws, run.id, job.stage, planned, job.actor, given.box.name_machine())
    return planned


def _gather(
    ws: Workspace | None,
    recipe: Recipe,
    document: Mapping[str, Any],
    recipe_hash: str,
    *,
    root: Path,
    disk_at: Path,
    source_bytes: int,
    corpus: Artifact | None,
    probe: Probe | None,
) -> Given:
    box = survey_box(disk_at)
    pasts = tuple(islice(recall(ws, document), MOST_PASTS)) if ws is not None else ()
    same = tuple(p for p in pasts if p.run.recipe_hash == recipe_hash)
    found = measure_volume(recipe, corpus, same, source_bytes)
    headroom = (ws.config if ws is not None else Config()).headroom_mb * MB
    return Given(
        recipe=recipe,
        shape=find_shape(recipe.base, find_base_folder(recipe.base, root)),
        volume=found if found.exact else add_replay(recipe, found),
        pasts=pasts,
        same=same,
        box=box,
        free=max(0, box.free - headroom),
        gpu=max((g.free for g in box.gpus), default=None),
        probe=probe,
    )


def describe_base(base: Base) -> str:
    if base.model == "nano":
        n = base.nano
        return f"nano ({n.layers} layers, width {n.hidden}, {n.vocab} tokens), built from the town's text"
    return base.model + (f" at {base.revision}" if base.revision else "") + f", {base.quantization}"


def find_base_folder(base: Base, root: Path) -> Path | None:
    """Where a base that is a folder of this box should be; None for nano and for hub ids."""
    if base.model == "nano":
        return None
    folder = root / Path(base.model).expanduser()
    looks_local = base.model.startswith(("/", ".", "~"))
    return folder if looks_local or folder.is_dir() else None


def find_shape(base: Base, folder: Path | None) -> Shape | None:
    """The shape of a recipe's base; None when it is not on this box, or of a family that is not known."""
    if base.model == "nano":
        n = base.nano
        return shape_nano(n.vocab, n.hidden, n.layers, n.heads)
    if folder is None:
        return None
    try:
        return read_shape_of(folder)
    except InputError:
        return None


def _estimate_stage(
    stage: str, recipe: Recipe, pasts: tuple[Past, ...], which: str, plan: Plan
) -> Figure:
    values = [p.seconds[stage] for p in pasts if stage in p.seconds]
    computed = stage == "train" and plan.seconds is not None
    if values and not (computed and which != "this recipe" and "time" not in plan.rough):
        return Figure(min(values), max(values), _say_source(len(values), which))
    if computed:
        text = f"{plan.updates} updates, {plan.tokens} tokens; {plan.sources['time']}"
        return Figure(plan.seconds, plan.seconds, text)
    text = "no run was measured on this box yet"
    if stage == "train":
        text += f"; {plan.updates} updates, {plan.tokens} tokens; {plan.sources['time']}"
    elif stage == "eval":
        text += f"; {_count_answers(recipe)}"
    return Figure(None, None, text)


def _count_answers(recipe: Recipe) -> str:
    e = recipe.eval
    items = e.max_items * (len(e.suites) + len(e.files))
    answers = e.seeds * (len({*e.candidates, "base", "tuned"}) + len(e.models) + len(e.endpoints))
    return (
        f"about {items} items and every safety item, at most {answers} answers each, "
        f"at most {e.max_new_tokens} tokens an answer"
    )


def _estimate_memory(
    same: tuple[Past, ...], pasts: tuple[Past, ...], which: str, plan: Plan
) -> Figure:
    for runs in (same, () if plan.memory is not None else pasts):
        peaks = [p.peak for p in runs if p.peak is not None]
        if peaks:
            return Figure(min(peaks), max(peaks), _say_source(len(peaks), which))
    if plan.memory is None:
        text = (
            f"no training on this base was measured on this box yet, and {plan.sources['memory']}"
        )
        return Figure(None, None, text)
    return Figure(plan.memory, plan.memory, plan.sources["memory"])


def _estimate_disk(pasts: tuple[Past, ...], which: str, source_bytes: int, plan: Plan) -> Figure:
    sizes = [float(p.disk) for p in pasts]
    if sizes:
        text = f"{_say_source(len(sizes), which)}: corpus, checkpoints, answers, card"
        return Figure(min(sizes), max(sizes), text)
    text = "the sources' own size, as a measure of the corpus"
    if plan.disk is None:
        return Figure(float(source_bytes), None, f"{text}; checkpoints come on top")
    both = float(source_bytes + plan.disk)
    return Figure(both, both, f"{text}, and {plan.sources['disk']}")


def _say_source(n: int, which: str) -> str:
    return f"measured: {say_count(n, 'run')} of {which} on this box"


def _warn(box: Box, verdict: Verdict, disk: Figure, base: Path | None) -> Iterator[str]:
    if verdict.word != "not known":
        yield from verdict.lacks
    need = disk.high or disk.low
    if need is not None and need > box.disk_free and not any("disk" in t for t in verdict.lacks):
        yield f"disk: {say_size(need)} needed, {say_size(box.disk_free)} free"
    if base is not None and not base.is_dir():
        yield f"base: {base} is not there, and training will stop for it"
    busy = [say_count(len(g.pids), g.what) for g in box.groups if g.what in (RUNNER, WORKER)]
    if busy:
        yield f"busy: {' and '.join(busy)} on this box already"
