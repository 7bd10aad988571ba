"""Beads changed by hand, in every state of a run: on the embedded ledger and on real ``bd``."""

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from gtft.beads.bd import BdLedger
from gtft.beads.ledger import REVIEW_LABEL, Bead, Ledger
from gtft.beads.local import LocalLedger
from gtft.errors import ConflictError
from gtft.records.store import Store, open_sqlite
from gtft.runner.byhand import respect_hands
from gtft.runner.control import is_finished
from gtft.runner.lease import claim_next
from gtft.runner.moves import hold
from gtft.runner.outbox import find_review_beads
from gtft.runner.review import approve
from gtft.runner.status import view_run
from gtft.runner.workspace import Config, Workspace
from run_case import WORKER, add_run, claim_of, finish_stage, make_waiting
from town_case import DoltServer, make_beads, make_environ, run

HAND = "ann"
_runs = itertools.count()


class Hands:
    """What a person types: plain ``bd`` where there is one."""

    def __init__(self, ledger: Ledger, bd: Callable[..., None] | None) -> None:
        self.ledger, self.bd = ledger, bd

    def close(self, bead: str) -> None:
        if self.bd:
            self.bd("close", bead, "--force", "--reason=not wanted any more, says ann")
        else:
            self._sql(
                "UPDATE beads SET status = 'closed', close_reason = 'not wanted any more, says ann'"
                " WHERE id = ?",
                bead,
            )

    def open(self, bead: str) -> None:
        if self.bd:
            self.bd("update", bead, "--status=open", "--assignee=")
        else:
            self.ledger.release(bead, failed=False, actor=HAND)

    def reopen(self, bead: str) -> None:
        if self.bd:
            self.bd("reopen", bead)
        else:
            self.ledger.reopen(bead, "look again", actor=HAND)

    def claim(self, bead: str) -> None:
        if self.bd:
            self.bd("update", bead, "--claim", f"--actor={HAND}")
        else:
            assert self.ledger.claim(bead, HAND)

    def assign(self, bead: str) -> None:
        if self.bd:
            self.bd("update", bead, f"--assignee={HAND}")
        else:
            self.ledger.hand_over(bead, HAND)

    def hold(self, bead: str) -> None:
        if self.bd:
            self.bd("update", bead, "--status=blocked")
        else:
            self.ledger.block(bead, "wait", actor=HAND)

    def remove(self, bead: str) -> None:
        if self.bd:
            self.bd("delete", bead, "--force")
        else:
            self._sql("DELETE FROM beads WHERE id = ?", bead)

    def _sql(self, sql: str, bead: str) -> None:
        """What the embedded ledger has no call for: ``bd close --force`` and ``bd delete``."""
        assert isinstance(self.ledger, LocalLedger)
        with sqlite3.connect(self.ledger._path) as c:
            c.execute(sql, (bead,))


@pytest.fixture(scope="module", params=["embedded", "bd"])
def hands(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hands]:
    folder = tmp_path_factory.mktemp("hands")
    if request.param == "embedded":
        yield Hands(LocalLedger(folder / "beads.db", "tt", time.time), None)
        return
    server: DoltServer = request.getfixturevalue("dolt_server")
    beads = make_beads(folder / "rig", server, prefix="hands")
    environ = make_environ(folder)

    def bd(*argv: str) -> None:
        run("bd", *argv, environ=environ | {"BEADS_DIR": str(beads)}, cwd=folder / "rig")

    yield Hands(BdLedger(beads, environ), bd)


@pytest.fixture
def ws(hands: Hands, tmp_path: Path) -> Workspace:
    """A store of its own; the ledger is shared, each test's run has its own name."""
    (tmp_path / "artifacts").mkdir()
    store = Store(open_sqlite(tmp_path / "gtft.db"), time.time)
    store.migrate()
    return Workspace(tmp_path, Config(), store, hands.ledger, time.time, {})


@pytest.fixture
def name() -> str:
    return f"run-{next(_runs)}"


def bead_of(ws: Workspace, name: str, stage: str) -> str:
    return ws.store.find_stage(name, stage).bead_id or ""


def look(ws: Workspace, name: str) -> list[str]:
    found = ws.store.find_run(name)
    assert found is not None
    return respect_hands(ws, [found])


class SlowLedger:
    """A ledger that answers late: ``meanwhile`` happens between the question and the answer."""

    def __init__(self, ledger: Ledger, meanwhile: Callable[[], object]) -> None:
        self._ledger, self._meanwhile = ledger, meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def look(self, bead_ids: Iterable[str], *, notes: bool = True) -> dict[str, Bead]:
        self._meanwhile()
        return self._ledger.look(bead_ids, notes=notes)


def look_late(ws: Workspace, name: str, meanwhile: Callable[[], object]) -> list[str]:
    return look(replace(ws, ledger=cast(Ledger, SlowLedger(ws.ledger, meanwhile))), name)


def test_a_stage_that_is_done_while_the_ledger_is_asked_was_not_closed_by_hand(
    ws: Workspace, name: str
) -> None:
    add_run(ws, name)
    claim = claim_of(ws, name)
    assert look_late(ws, name, lambda: finish_stage(ws, claim)) == []
    run = ws.store.find_run(name)
    assert run is not None
    assert run.desired == "run"
    assert [s.stage for s in ws.store.list_claimable() if s.run_id == name] == ["train"]


def test_a_stage_that_pauses_while_the_ledger_is_asked_is_not_claimed_again(
    ws: Workspace, name: str
) -> None:
    add_run(ws, name)
    claim = claim_of(ws, name)
    assert look_late(ws, name, lambda: hold(ws, claim, "paused", "")) == []
    assert ws.ledger.show(bead_of(ws, name, "harvest")).status == "open"


def test_an_eval_that_is_approved_while_the_ledger_is_asked_stays_approved(
    ws: Workspace, name: str
) -> None:
    row = make_waiting(ws, name)
    assert look_late(ws, name, lambda: approve(ws, row, "gizmo/witness", "")) == []
    statuses = {ws.ledger.show(b).status for b in find_review_beads(ws, name)}
    assert statuses == {"closed"}
    assert ws.ledger.show(row.bead_id or "").status == "closed"


class StubbornLedger(SlowLedger):
    """A ledger that gives no bead to anybody."""

    def hand_over(self, bead_id: str, actor: str) -> None:
        raise ConflictError(f"{bead_id} is pinned")


def test_a_bead_that_gtft_may_not_change_holds_up_no_other_run(
    ws: Workspace, name: str, hands: Hands
) -> None:
    other = f"{name}-other"
    runs = [add_run(ws, name), add_run(ws, other)]
    for made in runs:
        claim_of(ws, made.id)
    hands.open(bead_of(ws, name, "harvest"))
    hands.close(bead_of(ws, other, "harvest"))
    stubborn = replace(ws, ledger=cast(Ledger, StubbornLedger(ws.ledger, lambda: None)))
    said = respect_hands(stubborn, runs)
    assert "is pinned" in said[0]
    assert "was closed" in said[1]


def test_nothing_was_done_by_hand(ws: Workspace, name: str) -> None:
    add_run(ws, name)
    assert look(ws, name) == []
    finish_stage(ws, claim_of(ws, name))
    claim_of(ws, name)
    assert look(ws, name) == []


def test_a_ready_bead_closed_by_hand_ends_the_run(ws: Workspace, hands: Hands, name: str) -> None:
    add_run(ws, name)
    hands.close(bead_of(ws, name, "train"))
    assert "was closed: not wanted any more" in look(ws, name)[0]
    run_row = ws.store.find_run(name)
    assert run_row is not None and is_finished(ws, run_row)
    assert {s.reason for s in ws.store.list_stages(name)} == {"cancelled"}
    assert ws.ledger.show(run_row.epic_bead or "").status == "closed"
    assert ws.store.list_messages(pending=True, kind="ledger") == []


def test_an_active_bead_closed_by_hand_asks_its_worker_to_stop(
    ws: Workspace, hands: Hands, name: str
) -> None:
    add_run(ws, name)
    claim_of(ws, name)
    hands.close(bead_of(ws, name, "harvest"))
    assert len(look(ws, name)) == 1
    found = ws.store.find_run(name)
    # Its runner lives (it is this process): it ends the worker and then the run.
    assert found is not None and found.desired == "cancel"
    assert look(ws, name) == []


def test_an_eval_closed_by_hand_is_not_approved(ws: Workspace, hands: Hands, name: str) -> None:
    make_waiting(ws, name)
    hands.close(bead_of(ws, name, "eval"))
    look(ws, name)
    assert ws.store.find_stage(name, "eval").reason == "cancelled"
    assert ws.store.list_models() == []


@pytest.mark.parametrize("stage", ["ready", "active", "review"])
def test_a_removed_bead_ends_the_run(ws: Workspace, hands: Hands, name: str, stage: str) -> None:
    if stage == "review":
        bead = make_waiting(ws, name).bead_id or ""
    else:
        add_run(ws, name)
        bead = bead_of(ws, name, "harvest")
        if stage == "active":
            claim_of(ws, name)
    hands.remove(bead)
    assert "was removed" in look(ws, name)[0]
    found = ws.store.find_run(name)
    assert (found is not None and found.desired == "cancel") or is_finished(ws, found)  # type: ignore[arg-type]
    # What could not be said to a bead that is gone is on record, and holds nothing up.
    assert ws.store.list_messages(pending=True, kind="ledger") == []


def test_a_ready_bead_claimed_by_hand_is_left_to_its_holder(
    ws: Workspace, hands: Hands, name: str
) -> None:
    add_run(ws, name)
    hands.claim(bead_of(ws, name, "harvest"))
    assert claim_next(ws, WORKER, name) is None
    row = ws.store.find_stage(name, "harvest")
    assert (row.state, row.reason) == ("ready", "paused")
    assert f"held by {HAND}" in row.reason_text


def test_an_active_bead_that_gt_set_back_to_open_is_claimed_again(
    ws: Workspace, hands: Hands, name: str
) -> None:
    add_run(ws, name)
    claim_of(ws, name)
    bead = bead_of(ws, name, "harvest")
    hands.open(bead)
    assert "claimed again" in look(ws, name)[0]
    seen = ws.ledger.show(bead)
    assert (seen.status, seen.assignee) == ("in_progress", WORKER)
    assert ws.store.find_stage(name, "harvest").state == "active"


def test_an_active_bead_given_to_another_keeps_that_name_and_the_work_goes_on(
    ws: Workspace, hands: Hands, name: str
) -> None:
    add_run(ws, name)
    claim = claim_of(ws, name)
    hands.assign(bead_of(ws, name, "harvest"))
    assert look(ws, name) == []
    assert ws.ledger.show(bead_of(ws, name, "harvest")).assignee == HAND
    assert finish_stage(ws, claim).state == "done"


def test_an_active_bead_put_on_hold_pauses_the_run(ws: Workspace, hands: Hands, name: str) -> None:
    add_run(ws, name)
    claim_of(ws, name)
    hands.hold(bead_of(ws, name, "harvest"))
    assert "set to blocked" in look(ws, name)[0]
    found = ws.store.find_run(name)
    assert found is not None and found.desired == "pause"


def test_an_eval_set_back_by_hand_waits_on(ws: Workspace, hands: Hands, name: str) -> None:
    row = make_waiting(ws, name)
    hands.open(row.bead_id or "")
    assert "waits on" in look(ws, name)[0]
    seen = ws.ledger.show(row.bead_id or "")
    assert seen.status == "in_progress" and REVIEW_LABEL in seen.labels
    assert look(ws, name) == []


def test_a_review_bead_closed_by_hand_decides_nothing(
    ws: Workspace, hands: Hands, name: str
) -> None:
    row = make_waiting(ws, name)
    [asked] = find_review_beads(ws, name)
    assert (
        ws.ledger.show(row.bead_id or "").needs[-1:] == (asked,)
        or asked in ws.ledger.show(row.bead_id or "").needs
    )
    hands.close(asked)
    look(ws, name)
    assert ws.store.find_stage(name, "eval").state == "review"
    assert ws.ledger.show(asked).status == "open"
    approve(ws, ws.store.find_stage(name, "eval"), "gizmo/witness", "fine")
    assert {ws.ledger.show(b).status for b in (asked, row.bead_id or "")} == {"closed"}


def test_a_done_bead_reopened_by_hand_stops_the_run_once(
    ws: Workspace, hands: Hands, name: str
) -> None:
    add_run(ws, name)
    finish_stage(ws, claim_of(ws, name))
    hands.reopen(bead_of(ws, name, "harvest"))
    assert "was reopened" in look(ws, name)[0]
    assert view_run(ws, ws.store.find_run(name)).state == "ready (paused)"  # type: ignore[arg-type]
    assert claim_next(ws, WORKER, name) is None
    # Whoever resumes it has seen it; it is not stopped for the same reason again.
    ws.store.set_desired(name, "run", HAND)
    assert look(ws, name) == []
