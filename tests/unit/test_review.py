"""The witness's word: who may give it, and what it does to the run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import stage_artifact
from gtft.errors import EvidenceError, ReviewError, UsageError
from gtft.recipe.schema import Review
from gtft.records.rows import Change, StageRow
from gtft.runner.control import get_run
from gtft.runner.evidence import Evidence
from gtft.runner.execution import catch_up, prepare_job, review_by_machine
from gtft.runner.moves import find_address, submit
from gtft.runner.outbox import deliver, find_review_beads, tell_ledger
from gtft.runner.review import approve, find_waiting, reject
from gtft.runner.status import view_run
from gtft.runner.workspace import Home, Workspace
from gtft.town.locate import Rig, Town
from run_case import add_run, claim_of, make_waiting


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


def test_a_rejection_that_was_cut_off_is_finished_by_whoever_comes_next(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make_waiting(ws)
    with monkeypatch.context() as m:
        change, calls = ws.store.change, iter((True, False))

        def die_at_the_second(*args: Any, **more: Any) -> StageRow:
            if not next(calls):
                raise KeyboardInterrupt
            return change(*args, **more)

        m.setattr(ws.store, "change", die_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            reject(ws, row, "gizmo/witness", "unsafe on two items")
    catch_up(ws)
    run = ws.store.find_run("run-1")
    assert run is not None
    card = ws.store.find_stage("run-1", "card")
    assert (card.state, card.reason, card.reviewer) == ("done", "rejected", "gizmo/witness")
    assert ws.ledger.show(run.epic_bead or "").status == "closed"
    assert "unsafe on two items" in ws.mail_log.read_text()


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


def test_a_review_is_found_by_eval_bead_run_epic_and_review_bead(ws: Workspace) -> None:
    row = make_waiting(ws)
    run = ws.store.find_run("run-1")
    assert run is not None
    [asked] = find_review_beads(ws, "run-1")
    for name in (row.bead_id or "", "run-1", run.epic_bead or "", asked):
        assert find_waiting(ws, name).bead_id == row.bead_id
    with pytest.raises(UsageError, match="no run or bead ft-nope"):
        find_waiting(ws, "ft-nope")


def test_an_id_that_several_runs_begin_with_is_named(ws: Workspace) -> None:
    for name in ("run-11", "run-12"):
        add_run(ws, name)
    with pytest.raises(UsageError, match="2 runs begin with run-1: run-1"):
        get_run(ws, "run-1")
    assert get_run(ws, "run-11").id == "run-11"


def test_two_that_review_the_same_evidence_at_once_agree(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner that submitted it, and a sweep that comes by: the slower one goes on, it does not fail."""
    add_run(ws)
    claim = claim_of(ws, "run-1")
    prepare_job(ws, get_run(ws, "run-1"), claim.stage, claim.actor)
    with stage_artifact(ws.artifacts, "corpus") as s:
        (s.path / "file").write_text("x")
    row = submit(ws, claim, Evidence(s.result, {}, "made"))
    monkeypatch.setattr("gtft.runner.execution.check_evidence", lambda *_: None)
    assert [review_by_machine(ws, row).state for _ in range(2)] == ["done", "done"]
    kinds = [e.kind for e in ws.store.list_events("run-1")]
    assert kinds.count("done") == 1


def test_the_witness_of_a_rig_that_is_gone_is_gtfts_own(ws: Workspace, tmp_path: Path) -> None:
    """Nobody reads the mail of an address that the town does not have."""
    run = add_run(ws)
    rigs = tuple(
        Rig(n, p, tmp_path, tmp_path, n, "") for n, p in (("finetune", "ft"), ("gz", "gz"))
    )
    in_town = replace(ws, home=Home(Town(tmp_path, "tt", rigs), rigs[0]))
    for scope, address in (
        (["rig:gz"], "gz/witness"),
        (["rig:gone"], "finetune/witness"),
        ([], "finetune/witness"),
    ):
        run.recipe["recipe"]["scope"] = scope
        assert find_address(in_town, run, "witness") == address
