"""The witness's word: who may give it, and what it does to the run."""

from pathlib import Path

import pytest

from gtft.errors import EvidenceError, ReviewError
from gtft.recipe.schema import Review
from gtft.records.rows import Change
from gtft.runner.execution import catch_up
from gtft.runner.outbox import deliver, tell_ledger
from gtft.runner.review import approve, find_waiting, reject
from gtft.runner.status import view_run
from gtft.runner.workspace import Workspace
from run_case import make_waiting


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
    row = make_waiting(ws, review=review)
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
        "review", "ready", "failed", "gtft", "", (tell_ledger("dance", row.bead_id or "", "gtft"),)
    )
    ws.store.change("run-1", "eval", odd)
    assert [m.payload["op"] for m in deliver(ws)] == ["dance"]
    assert "dance" in ws.store.list_messages(pending=True)[0].last_error
