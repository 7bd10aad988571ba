"""What somebody did to a run's beads by hand, and what follows (docs/lifecycle.md, "By hand").

A person's word stands: a bead that is closed or removed ends the run. What gt's own recovery does to beads of
agents that died (back to open, or hooked to another) does not: the work goes on under its lease.
"""

from __future__ import annotations

from dataclasses import replace

from gtft.beads.ledger import REVIEW_LABEL, Bead
from gtft.errors import ConflictError
from gtft.records.rows import Run, StageRow
from gtft.runner.control import cancel
from gtft.runner.lease import may_take_over
from gtft.runner.outbox import find_review_beads
from gtft.runner.workspace import Workspace

WHO = "by hand"


def respect_hands(ws: Workspace, runs: list[Run]) -> list[str]:
    """Compare unfinished runs with their beads and act; returns what was found, in words.

    Runs with undelivered ledger messages are left: there the ledger lags behind the store, not ahead. So
    are those that moved while the ledger was asked: the next look compares them.
    """
    before = _read_settled(ws, runs)
    own = [s.bead_id for rows in before.values() for s in rows if s.bead_id]
    waiting = [s.run_id for rows in before.values() for s in rows if _waits_for_witness(s)]
    asked = [b for run in waiting for b in find_review_beads(ws, run)]
    beads = ws.ledger.look([*own, *asked], notes=False)
    after = _read_settled(ws, runs) if before else {}
    found: list[str] = []
    for run in runs:
        if not _is_same(before.get(run.id, []), after.get(run.id, [])):
            continue
        for row in before.get(run.id, []):
            try:
                said = _compare(ws, run, row, beads)
            except ConflictError as e:
                # Somebody else is at it, or bd does not let us: one run keeps none of the others.
                said = f"{row.bead_id}: {e.what}"
            if said is not None:
                found.append(said)
                # What follows changes the other stages too; they are looked at the next time.
                break
    return found


def _read_settled(ws: Workspace, runs: list[Run]) -> dict[str, list[StageRow]]:
    """The stages with beads of unfinished runs, of those that the ledger knows all about."""
    rows: dict[str, list[StageRow]] = {r.id: [] for r in runs}
    for row in ws.store.list_stages(runs[0].id if len(runs) == 1 else None):
        if row.run_id in rows and row.bead_id:
            rows[row.run_id].append(row)
    late = {m.run_id for m in ws.store.list_messages(pending=True, kind="ledger")}
    return {
        run: stages
        for run, stages in rows.items()
        if run not in late and any(s.state != "done" for s in stages)
    }


def _is_same(before: list[StageRow], after: list[StageRow]) -> bool:
    """Nothing but leases changed."""
    return [replace(s, lease_until_us=None) for s in before] == [
        replace(s, lease_until_us=None) for s in after
    ]


def _waits_for_witness(row: StageRow) -> bool:
    return row.stage == "eval" and row.state == "review"


def _compare(ws: Workspace, run: Run, row: StageRow, beads: dict[str, Bead]) -> str | None:
    bead = beads.get(row.bead_id or "")
    if row.state == "done":
        reopened = bead is not None and bead.status != "closed" and row.reason is None
        return _stop_after_reopening(ws, run, row) if reopened else None
    if bead is None:
        return _end(ws, run, f"bead {row.bead_id} of {row.stage} was removed")
    if bead.status == "closed":
        why = f": {bead.close_reason}" if bead.close_reason else ""
        return _end(ws, run, f"bead {bead.id} of {row.stage} was closed{why}")
    if row.state == "active":
        return _keep_working(ws, run, row, bead)
    if row.state == "review":
        return _keep_waiting(ws, run, row, bead, beads)
    return None


def _end(ws: Workspace, run: Run, text: str) -> str | None:
    if run.desired == "cancel":
        return None
    cancel(ws, run, WHO, text)
    return text


def _stop_after_reopening(ws: Workspace, run: Run, row: StageRow) -> str | None:
    """What is done stays done; the run waits until somebody says whether it shall go on."""
    text = f"bead {row.bead_id} of {row.stage}, which is done, was reopened"
    if run.desired != "run" or any(e.text == text for e in ws.store.list_events(run.id)):
        return None
    ws.store.set_desired(run.id, "pause", WHO, text)
    return text


def _keep_working(ws: Workspace, run: Run, row: StageRow, bead: Bead) -> str | None:
    if may_take_over(ws, row) or bead.status == "in_progress":
        return None
    if bead.status in ("blocked", "deferred"):
        if run.desired != "run":
            return None
        text = f"bead {bead.id} of {row.stage} was set to {bead.status}"
        ws.store.set_desired(run.id, "pause", WHO, text)
        return text
    # Open, or hooked to another: gt thinks that nobody works on it, and the lease says who does.
    ws.ledger.hand_over(bead.id, row.worker or "gtft")
    text = f"bead {bead.id} was {bead.status} while {row.worker} works on it: claimed again"
    ws.store.add_event(run.id, row.stage, "claimed again", WHO, text)
    return text


def _keep_waiting(
    ws: Workspace, run: Run, row: StageRow, bead: Bead, beads: dict[str, Bead]
) -> str | None:
    """Evidence that was submitted waits for the witness's word, whatever the bead looks like."""
    wanted = {"gtft.run": run.id, "gtft.stage": "review", "gtft.attempt": str(row.attempt)}
    asked = [b for b in beads.values() if wanted.items() <= b.metadata.items()]
    shut = [b for b in asked if b.status == "closed" and _waits_for_witness(row)]
    for b in shut:
        ws.ledger.reopen(
            b.id, f"decide with: gtft review approve {row.bead_id} (or reject)", actor="gtft"
        )
    if bead.status != "in_progress" or REVIEW_LABEL not in bead.labels:
        ws.ledger.hand_over(bead.id, row.worker or "gtft")
        ws.ledger.submit(
            bead.id, f"still waits for review: gtft review show {bead.id}", actor="gtft"
        )
    elif not shut:
        return None
    text = f"bead {(shut or [bead])[0].id} was changed while the eval waits for its witness: it waits on"
    ws.store.add_event(run.id, row.stage, "waits on", WHO, text)
    return text
