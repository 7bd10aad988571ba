"""The witness's word: who may give it, and what it does to the run."""

from pathlib import Path

import pytest

from gtft.artifact import stage_artifact
from gtft.contract import STAGES
from gtft.errors import EvidenceError, ReviewError
from gtft.recipe.schema import Recipe, Review
from gtft.records.rows import ArtifactRow, Change, Run, StageRow
from gtft.runner.dispatch import finish_dispatch
from gtft.runner.evidence import KINDS
from gtft.runner.execution import catch_up
from gtft.runner.lease import claim_next
from gtft.runner.outbox import deliver, tell_ledger
from gtft.runner.review import approve, find_waiting, reject
from gtft.runner.status import view_run
from gtft.runner.workspace import Workspace


def make_waiting(ws: Workspace, review: Review | None = None) -> StageRow:
    """A run whose eval is submitted: real artifacts, real moves, by worker ``gizmo/polecats/a``."""
    recipe = Recipe(role="witness", review=review or Review()).model_dump(mode="json")
    run = Run("run-1", "mol-x", "sha256:r", {"recipe": recipe}, "witness", None, "me", str(ws.path),
              "run", ws.store.now_us())  # fmt: skip
    rows = tuple(
        StageRow(run.id, s, n, None, "ready", None, "", None, None, 0, None, None, None, None, 0)
        for n, s in enumerate(STAGES)
    )
    ws.store.add_run(run, rows)
    finish_dispatch(ws, run)
    for stage in ("harvest", "train", "eval"):
        claim = claim_next(ws, "gizmo/polecats/a")
        assert claim is not None and claim.stage.stage == stage
        with stage_artifact(ws.artifacts, KINDS[stage]) as s:
            (s.path / "verdict.md").write_text(stage)
        path = str(s.result.path.relative_to(ws.path))
        made = ArtifactRow(s.result.id, KINDS[stage], path, {}, ws.store.now_us())
        up = Change("active", "review", None, claim.actor, "")
        row = ws.store.change(run.id, stage, up, token=claim.token, artifact=made)
        if stage != "eval":
            ws.store.change(run.id, stage, Change("review", "done", None, "gtft", ""))
            ws.ledger.close(row.bead_id or "", "accepted by the machine, found whole")
    return find_waiting(ws, run.id)


def test_a_witness_approves_and_the_card_becomes_ready(ws: Workspace) -> None:
    done = approve(ws, make_waiting(ws), "gizmo/witness", "fine")
    assert (done.state, done.reviewer) == ("done", "gizmo/witness")
    assert ws.ledger.show(done.bead_id or "").status == "closed"
    assert [s.stage for s in ws.store.list_claimable()] == ["card"]


@pytest.mark.parametrize(
    ("review", "actor", "allowed"),
    [
        (Review(), "gizmo/polecats/a", False),
        (Review(approvers=("polecat",)), "gizmo/polecats/a", False),
        (Review(approvers=("polecat",), self_approval=True), "gizmo/polecats/a", True),
        (Review(approvers=("polecat",)), "gizmo/polecats/b", True),
        (Review(approvers=("overseer/ann",)), "overseer/ann", True),
        (Review(approvers=("overseer/ann",)), "overseer/bob", False),
    ],
)
def test_who_may_review(ws: Workspace, review: Review, actor: str, allowed: bool) -> None:
    row = make_waiting(ws, review)
    if allowed:
        assert approve(ws, row, actor, "").state == "done"
    else:
        with pytest.raises(ReviewError):
            approve(ws, row, actor, "")
        assert find_waiting(ws, "run-1").state == "review"


def test_a_rejection_needs_a_reason_ends_the_run_and_is_told(ws: Workspace) -> None:
    row = make_waiting(ws)
    with pytest.raises(ReviewError, match="needs its reason"):
        reject(ws, row, "gizmo/witness", "  ")
    ended = reject(ws, row, "gizmo/witness", "unsafe on two items")
    assert [(s.stage, s.state, s.reason) for s in ended] == [
        ("eval", "done", "rejected"),
        ("card", "done", "rejected"),
    ]
    run = ws.store.find_run("run-1")
    assert run is not None
    assert view_run(ws, run).state == "done (rejected)"
    assert ws.ledger.show(run.epic_bead or "").status == "closed"
    assert "unsafe on two items" in ws.mail_log.read_text()
    with pytest.raises(ReviewError):
        find_waiting(ws, "run-1")


def test_evidence_that_changed_cannot_be_approved(ws: Workspace) -> None:
    row = make_waiting(ws)
    found = ws.store.find_artifact(row.artifact_id or "")
    assert found is not None
    Path(ws.artifact_path(found.path) / "verdict.md").write_text("better than ever")
    with pytest.raises(EvidenceError, match="has changed"):
        approve(ws, row, "gizmo/witness", "")
    assert find_waiting(ws, "run-1").state == "review"


def test_a_cancel_that_comes_too_late_for_a_stage_still_ends_the_run(ws: Workspace) -> None:
    """The worker finished before it could be asked to stop: what it made stays, nothing else starts."""
    make_waiting(ws)
    ws.store.set_desired("run-1", "cancel", "overseer/ann", "wrong rig")
    catch_up(ws)
    rows = {s.stage: (s.state, s.reason) for s in ws.store.list_stages("run-1")}
    assert rows["train"] == ("done", None)
    assert rows["eval"] == rows["card"] == ("done", "cancelled")
    assert ws.store.list_claimable() == []


def test_a_paused_run_says_so_between_two_stages(ws: Workspace) -> None:
    approve(ws, make_waiting(ws), "gizmo/witness", "")
    ws.store.set_desired("run-1", "pause", "overseer/ann")
    run = ws.store.find_run("run-1")
    assert run is not None
    view = view_run(ws, run)
    assert (view.state, view.waits_for) == ("ready (paused)", "the operator")
    assert view.next == "gtft runs resume run-1"


def test_a_message_that_nobody_understands_is_kept_not_dropped(ws: Workspace) -> None:
    row = make_waiting(ws)
    odd = Change(
        "review", "ready", "failed", "gtft", "", (tell_ledger("dance", row.bead_id or ""),)
    )
    ws.store.change("run-1", "eval", odd)
    assert [m.payload["op"] for m in deliver(ws)] == ["dance"]
    assert "dance" in ws.store.list_messages(pending=True)[0].last_error
