"""Claim and lease: who may work on a stage, for how long, and who may take over."""

from __future__ import annotations

from dataclasses import dataclass

from gtft.beads.lifecycle import check_move
from gtft.errors import ConflictError
from gtft.records.rows import Change, StageRow
from gtft.runner.identity import make_token, owner_is_gone
from gtft.runner.outbox import tell_feed
from gtft.runner.patience import insist
from gtft.runner.workspace import Workspace


@dataclass(frozen=True)
class Claim:
    """A stage that is ours until the lease lapses."""

    stage: StageRow
    token: str
    actor: str


def claim_stage(ws: Workspace, row: StageRow, actor: str) -> Claim | None:
    """Claim a ready stage, or take over an active one whose lease lapsed. None = somebody else has it.

    The store decides among gtft's runners; then the ledger is asked, which decides among everybody.
    """
    if row.state == "active" and not may_take_over(ws, row):
        return None
    check_move(row.state, "active", "expired" if row.state == "active" else None)  # type: ignore[arg-type]
    token = make_token()
    text = f"attempt {row.attempt + 1}"
    if row.state == "active":
        text += f"; the lease of {row.worker} lapsed"
    started = (tell_feed("gtft_started", row.bead_id or "", actor, f"{row.stage}, {text}"),)
    won = ws.store.claim(row, actor, token, lease_end(ws), text, started)
    if won is None or won.bead_id is None:
        return None
    bead_id = won.bead_id
    try:
        if row.state == "active":
            insist(ws, lambda: ws.ledger.hand_over(bead_id, actor))
        elif not insist(ws, lambda: ws.ledger.claim(bead_id, actor)):
            seen = ws.ledger.show(bead_id)
            _give_back(
                ws, won, token, actor, f"is {seen.status}, held by {seen.assignee or 'nobody'}"
            )
            return None
    except ConflictError as e:
        _give_back(ws, won, token, actor, f"cannot be claimed: {e.what}")
        return None
    return Claim(won, token, actor)


def _give_back(ws: Workspace, won: StageRow, token: str, actor: str, why: str) -> None:
    """The bead is somebody else's by hand: the stage waits."""
    check_move("active", "ready", "paused")
    back = Change("active", "ready", "paused", actor, f"bead {won.bead_id} {why}")
    ws.store.change(won.run_id, won.stage, back, token=token)


def claim_next(ws: Workspace, actor: str, run_id: str | None = None) -> Claim | None:
    """Claim the oldest stage that can be worked on, of one run or of any; None when there is none."""
    rows = [*find_lapsed(ws), *ws.store.list_claimable()]
    for row in rows:
        if run_id is not None and row.run_id != run_id:
            continue
        claim = claim_stage(ws, row, actor)
        if claim is not None:
            return claim
    return None


def find_lapsed(ws: Workspace) -> list[StageRow]:
    """Active stages that may be taken over."""
    return [s for s in ws.store.list_stages(state="active") if may_take_over(ws, s)]


def may_take_over(ws: Workspace, row: StageRow) -> bool:
    """The lease is over, or its holder was a process of this host that is gone."""
    if row.token is None or row.lease_until_us is None:
        return True
    return row.lease_until_us < ws.store.now_us() or owner_is_gone(row.token)


def lease_end(ws: Workspace) -> int:
    """When a lease taken now ends, microseconds since the epoch."""
    return ws.store.now_us() + int(ws.config.lease_seconds * 1_000_000)
