"""Who is told what: by verbosity, in the order of the run, without a town in ``mail.log``."""

import json
from dataclasses import replace
from typing import Literal

import pytest

from gtft.beads.local import LocalLedger
from gtft.errors import TownError
from gtft.recipe.schema import Notify
from gtft.records.store import Store
from gtft.runner.moves import hold, reopen_held
from gtft.runner.outbox import deliver
from gtft.runner.review import approve
from gtft.runner.workspace import Workspace
from run_case import add_run, claim_of, finish_stage, make_waiting

Verbosity = Literal["quiet", "normal", "loud"]


def read_log(ws: Workspace) -> list[str]:
    if not ws.mail_log.exists():
        return []
    return [json.loads(line)["subject"] for line in ws.mail_log.read_text().splitlines()]


@pytest.mark.parametrize(
    ("verbosity", "told"),
    [
        ("quiet", ["GTFT_REVIEW"]),
        ("normal", ["GTFT_REVIEW", "GTFT_DONE"]),
        ("loud", ["GTFT_DONE", "GTFT_DONE", "GTFT_REVIEW", "GTFT_DONE", "GTFT_DONE"]),
    ],
)
def test_what_is_told_of_a_good_run(ws: Workspace, verbosity: Verbosity, told: list[str]) -> None:
    row = make_waiting(ws, notify=Notify(verbosity=verbosity))
    approve(ws, row, "gizmo/witness", "fine")
    card = finish_stage(ws, claim_of(ws, "run-1"))
    assert card.state == "done"
    assert [s.split(":")[0] for s in read_log(ws)] == told
    assert ws.store.list_messages(pending=True) == []


def test_a_loud_stage_is_a_nudge_and_no_mail(ws: Workspace) -> None:
    add_run(ws, notify=Notify(verbosity="loud"))
    finish_stage(ws, claim_of(ws, "run-1"))
    kinds = [m.kind for m in ws.store.list_messages(pending=False)]
    assert kinds.count("nudge") == 1 and "notice" not in kinds


@pytest.mark.parametrize("verbosity", ["quiet", "normal", "loud"])
def test_a_failure_is_always_told(ws: Workspace, verbosity: Verbosity) -> None:
    add_run(ws, notify=Notify(verbosity=verbosity))
    hold(ws, claim_of(ws, "run-1"), "failed", "no room left")
    assert [s.split(":")[0] for s in read_log(ws)] == ["GTFT_FAILED"]


def test_the_feed_hears_every_turn(ws: Workspace) -> None:
    row = make_waiting(ws)
    approve(ws, row, "gizmo/witness", "fine")
    assert finish_stage(ws, claim_of(ws, "run-1")).state == "done"
    sent = ws.store.list_messages(pending=False, kind="feed")
    assert [m.payload["event"] for m in sent] == [
        "gtft_started", "gtft_started", "gtft_started", "gtft_review", "gtft_started", "gtft_done",
    ]  # fmt: skip


class BusyLedger(LocalLedger):
    """A ledger that cannot give a bead back now."""

    def release(self, bead_id: str, *, failed: bool, actor: str) -> None:
        raise TownError("the bead database is busy")


def test_a_bead_that_is_claimed_again_is_not_given_back_by_a_late_message(
    ws: Workspace, clock: list[float]
) -> None:
    store = Store(ws.store.units.engine, lambda: clock[0])
    ws = replace(ws, store=store)
    run = add_run(ws)
    busy = BusyLedger(ws.path / "beads.db", "ft", lambda: clock[0])
    hold(replace(ws, ledger=busy), claim_of(ws, run.id), "paused", "")
    reopen_held(ws, run, "overseer/ann")
    claim = claim_of(ws, run.id)
    assert any(m.payload.get("op") == "release" for m in store.list_messages(pending=True))
    clock[0] += ws.config.lease_seconds + 1
    deliver(ws)
    assert store.list_messages(pending=True) == []
    bead = ws.ledger.show(claim.stage.bead_id or "")
    assert (bead.status, bead.assignee) == ("in_progress", claim.actor)
