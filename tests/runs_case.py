"""Runs for tests, moved by the real moves; what a worker would make is made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from gtft.artifact import stage_artifact
from gtft.recipe.resolve import Resolved, resolve
from gtft.records.rows import Run, StageRow
from gtft.runner.dispatch import dispatch
from gtft.runner.evidence import KINDS, Evidence
from gtft.runner.lease import claim_next
from gtft.runner.moves import accept, submit
from gtft.runner.workspace import Workspace
from tiny_town import FORMULA

WORKER = "gizmo/polecats/nux"


def write_formula(folder: Path, *tables: str) -> Path:
    """The tiny formula, with more of ``[gtft…]`` before its steps."""
    path = folder / "formulas" / "mol-gtft-tiny.formula.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    head, steps, tail = FORMULA.partition("[[steps]]")
    path.write_text("\n".join([head, *tables, ""]) + steps + tail)
    return path


def make_run(ws: Workspace, folder: Path, *tables: str, actor: str = "mayor") -> Run:
    """A dispatched run of the tiny formula."""
    return find_run(ws, dispatch(ws, resolve_tiny(folder, *tables), actor, folder))


def resolve_tiny(folder: Path, *tables: str) -> Resolved:
    return resolve(write_formula(folder, *tables), root=folder)


def find_run(ws: Workspace, run_id: str) -> Run:
    run = ws.store.find_run(run_id)
    assert run is not None
    return run


def carry_on(
    ws: Workspace, run: Run, *stages: str, then: Callable[[str], None] = lambda stage: None
) -> None:
    """Carry out stages and have each accepted; ``then`` is called between the claim and the evidence."""
    for stage in stages:
        accept(ws, bring_to_review(ws, run, stage, then), "gizmo/witness", "fine")


def bring_to_review(
    ws: Workspace, run: Run, stage: str, then: Callable[[str], None] = lambda stage: None
) -> StageRow:
    claim = claim_next(ws, WORKER, run.id)
    assert claim is not None and claim.stage.stage == stage
    ws.job_dir(run.id, stage).mkdir(parents=True, exist_ok=True)
    then(stage)
    with stage_artifact(ws.artifacts, KINDS[stage]) as staging:  # type: ignore[index]
        (staging.path / "made.txt").write_text(f"{stage} of {run.id}")
    summary = {"rows": 120} if stage == "train" else {}
    return submit(ws, claim, Evidence(staging.result, summary, f"{stage} made"))


def write_peak(ws: Workspace, run: Run, peak: int) -> None:
    """What a training leaves about its memory."""
    line = {"step": 40, "name": "peak_memory_bytes", "value": float(peak)}
    (ws.job_dir(run.id, "train") / "metrics.jsonl").write_text(json.dumps(line) + "\n")
