"""Runs without workers, for tests: real moves, real (tiny) artifacts, in whatever workspace a test has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from gtft.artifact import stage_artifact
from gtft.contract import STAGES
from gtft.recipe.resolve import Resolved, resolve
from gtft.recipe.schema import Notify, Recipe, Review
from gtft.records.rows import Run, StageRow, make_ready
from gtft.runner.dispatch import dispatch, finish_dispatch
from gtft.runner.evidence import KINDS, Evidence
from gtft.runner.lease import Claim, claim_next
from gtft.runner.moves import accept, submit
from gtft.runner.workspace import Workspace
from tiny_town import FORMULA

WORKER = "gizmo/polecats/a"


# -- a run of a recipe made on the spot


def add_run(
    ws: Workspace,
    run_id: str = "run-1",
    review: Review | None = None,
    notify: Notify | None = None,
) -> Run:
    """A dispatched run: its rows and its beads."""
    recipe = Recipe(
        role="witness", review=review or Review(), notify=notify or Notify()
    ).model_dump(mode="json")
    run = Run(run_id, "mol-x", "sha256:r", {"recipe": recipe}, "witness", None, "me", str(ws.path),
              "run", ws.store.now_us())  # fmt: skip
    now = ws.store.now_us()
    rows = tuple(make_ready(run.id, stage, n, now) for n, stage in enumerate(STAGES))
    ws.store.add_run(run, rows)
    finish_dispatch(ws, run)
    return run


def make_waiting(
    ws: Workspace,
    run_id: str = "run-1",
    review: Review | None = None,
    notify: Notify | None = None,
) -> StageRow:
    """A run whose eval waits for its witness."""
    add_run(ws, run_id, review, notify)
    for _ in STAGES[:3]:
        row = finish_stage(ws, claim_of(ws, run_id))
    return row


# -- a run of the tiny formula


def write_formula(folder: Path, *tables: str) -> Path:
    """The tiny formula, with more of ``[gtft…]`` before its steps."""
    path = folder / "formulas" / "mol-gtft-tiny.formula.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    head, steps, tail = FORMULA.partition("[[steps]]")
    path.write_text("\n".join([head, *tables, ""]) + steps + tail)
    return path


def resolve_tiny(folder: Path, *tables: str) -> Resolved:
    return resolve(write_formula(folder, *tables), root=folder)


def make_run(ws: Workspace, folder: Path, *tables: str, actor: str = "mayor") -> Run:
    """A dispatched run of the tiny formula."""
    return find_run(ws, dispatch(ws, resolve_tiny(folder, *tables), actor, folder))


def find_run(ws: Workspace, run_id: str) -> Run:
    run = ws.store.find_run(run_id)
    assert run is not None
    return run


# -- its stages


def claim_of(ws: Workspace, run_id: str, actor: str = WORKER) -> Claim:
    claim = claim_next(ws, actor, run_id)
    assert claim is not None
    return claim


def submit_stage(ws: Workspace, claim: Claim) -> StageRow:
    """What a runner does when a worker wrote its artifact."""
    stage = claim.stage.stage
    with stage_artifact(ws.artifacts, KINDS[stage]) as s:  # type: ignore[index]
        (s.path / "verdict.md").write_text(f"{stage} of {claim.stage.run_id}")
    summary = {"rows": 120} if stage == "train" else {}
    return submit(ws, claim, Evidence(s.result, summary, f"{stage} {s.result.id}"))


def finish_stage(ws: Workspace, claim: Claim) -> StageRow:
    """Submit, and for a machine's stage accept."""
    row = submit_stage(ws, claim)
    return row if row.stage == "eval" else accept(ws, row, "gtft", "re-hashed")


def carry_on(
    ws: Workspace, run: Run, *stages: str, then: Callable[[str], None] = lambda stage: None
) -> None:
    """Carry out stages and have each accepted; ``then`` is called between the claim and the evidence."""
    for stage in stages:
        accept(ws, bring_to_review(ws, run, stage, then), "gizmo/witness", "fine")


def bring_to_review(
    ws: Workspace, run: Run, stage: str, then: Callable[[str], None] = lambda stage: None
) -> StageRow:
    claim = claim_of(ws, run.id)
    assert claim.stage.stage == stage
    ws.job_dir(run.id, stage).mkdir(parents=True, exist_ok=True)
    then(stage)
    return submit_stage(ws, claim)


def write_peak(ws: Workspace, run: Run, peak: int) -> None:
    """What a training leaves about its memory."""
    line = {"step": 40, "name": "peak_memory_bytes", "value": float(peak)}
    (ws.job_dir(run.id, "train") / "metrics.jsonl").write_text(json.dumps(line) + "\n")
