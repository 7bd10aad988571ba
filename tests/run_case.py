"""A run without workers: real moves, real (tiny) artifacts, in whatever workspace a test has."""

from __future__ import annotations

from gtft.artifact import stage_artifact
from gtft.contract import STAGES
from gtft.recipe.schema import Notify, Recipe, Review
from gtft.records.rows import Run, StageRow, make_ready
from gtft.runner.dispatch import finish_dispatch
from gtft.runner.evidence import KINDS, Evidence
from gtft.runner.lease import Claim, claim_next
from gtft.runner.moves import accept, submit
from gtft.runner.workspace import Workspace

WORKER = "gizmo/polecats/a"


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


def claim_of(ws: Workspace, run_id: str, actor: str = WORKER) -> Claim:
    claim = claim_next(ws, actor, run_id)
    assert claim is not None
    return claim


def finish_stage(ws: Workspace, claim: Claim) -> StageRow:
    """What a runner does when a worker wrote its artifact: submit, and for a machine's stage accept."""
    stage = claim.stage.stage
    with stage_artifact(ws.artifacts, KINDS[stage]) as s:  # type: ignore[index]
        (s.path / "verdict.md").write_text(f"{stage} of {claim.stage.run_id}")
    row = submit(ws, claim, Evidence(s.result, {}, f"{stage} {s.result.id}"))
    return row if stage == "eval" else accept(ws, row, "gtft", "re-hashed")


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
