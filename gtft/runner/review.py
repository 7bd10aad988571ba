"""Review: what waits for a witness, and the witness's word."""

from __future__ import annotations

from typing import Any

from gtft.artifact import verify_artifact
from gtft.contract import STAGES
from gtft.errors import ReviewError
from gtft.records.rows import Run, StageRow
from gtft.runner.control import get_run
from gtft.runner.evidence import KINDS
from gtft.runner.identity import fills_role
from gtft.runner.moves import accept, find_address, finish_unfinished, read_recipe
from gtft.runner.workspace import Workspace


def list_waiting(ws: Workspace) -> list[StageRow]:
    """Eval stages whose evidence waits for a person."""
    return [s for s in ws.store.list_stages(state="review") if s.stage == "eval"]


def find_waiting(ws: Workspace, name: str) -> StageRow:
    """By bead, or by run. Raises ReviewError when that run's eval does not wait, UsageError when
    there is no such run."""
    row = ws.store.find_bead(name)
    if row is None:
        row = ws.store.find_stage(get_run(ws, name).id, "eval")
    if row.stage != "eval" or row.state != "review":
        raise ReviewError(
            f"{name} does not wait for a review: {row.stage} of {row.run_id} is {row.state}",
            why="only a submitted eval is reviewed by a person",
            fix="gtft review list",
        )
    return row


def gather_evidence(ws: Workspace, row: StageRow) -> dict[str, Any]:
    """What a reviewer should see, hashed again now: every artifact of the run and the eval's figures."""
    seen: dict[str, Any] = {"run": row.run_id, "bead": row.bead_id, "worker": row.worker}
    artifacts = []
    for stage in STAGES[: STAGES.index("eval") + 1]:
        artifact_id = ws.store.find_stage(row.run_id, stage).artifact_id or ""
        found = ws.store.find_artifact(artifact_id)
        if found is None:
            raise ReviewError(f"{stage} has no artifact in the store", fix="gtft doctor")
        path = ws.artifact_path(found.path)
        verify_artifact(path, kind=KINDS[stage], expect=found.id)
        artifacts.append({"stage": stage, "id": found.id, "path": str(path)})
        if stage == "eval":
            seen |= {"summary": found.summary, "verdict_file": str(path / "verdict.md")}
    return {**seen, "artifacts": artifacts}


def approve(ws: Workspace, row: StageRow, actor: str, text: str) -> StageRow:
    """The witness accepts the eval. Raises ReviewError when this actor may not."""
    run = ws.store.find_run(row.run_id)
    assert run is not None
    check_reviewer(ws, run, row, actor)
    gather_evidence(ws, row)
    return accept(ws, row, actor, text or "evidence accepted")


def reject(ws: Workspace, row: StageRow, actor: str, text: str) -> list[StageRow]:
    """The witness refuses the eval: the run ends. A reason is required."""
    run = ws.store.find_run(row.run_id)
    assert run is not None
    if not text.strip():
        raise ReviewError(
            "a rejection needs its reason",
            why="it is what the next run learns from",
            fix=f'gtft review reject {row.bead_id} --reason "…"',
        )
    check_reviewer(ws, run, row, actor)
    return finish_unfinished(ws, run, "rejected", actor, text)


def check_reviewer(ws: Workspace, run: Run, row: StageRow, actor: str) -> None:
    """Raises ReviewError unless ``actor`` fills an approving role and did none of the run's work."""
    rules = read_recipe(run).review
    if not any(fills_role(actor, role) for role in rules.approvers):
        raise ReviewError(
            f"{actor} may not review this eval",
            why=f"the recipe names {', '.join(rules.approvers)}",
            fix=f"gtft review approve {row.bead_id} --as {rules.approvers[0]}"
            if ws.home is None
            else f"leave it to {find_address(ws, run, rules.approvers[0])}: gtft review list",
        )
    workers = {s.worker for s in ws.store.list_stages(run.id)}
    if actor in workers and not rules.self_approval:
        raise ReviewError(
            f"{actor} did the work and may not approve it",
            why="the reviewer is never the worker, unless the recipe sets review.self_approval",
            fix="ask a witness: gtft review list",
        )
