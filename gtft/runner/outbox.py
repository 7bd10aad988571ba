"""The outbox: what must reach the ledger and people because of a change that is committed.

Messages are delivered in the order of their run, retried until done. Delivery may happen twice after a
crash, so each way out is idempotent: ledger calls by their nature, notices by their number.
"""

from __future__ import annotations

import json
import time
from typing import Any

from gtft.errors import GtftError, InternalError
from gtft.records.rows import Message, OutboxRow
from gtft.runner.identity import make_token
from gtft.runner.workspace import Workspace


def tell_ledger(op: str, bead: str, **arguments: Any) -> Message:
    """``op``: a method of `gtft.beads.ledger.Ledger` that takes the bead first."""
    return Message("ledger", {"op": op, "bead": bead, **arguments})


def tell_people(to: tuple[str, ...], subject: str, body: str) -> Message:
    """``subject`` begins with GTFT_REVIEW, GTFT_FAILED or GTFT_DONE (gas-town.md section 4)."""
    return Message("notice", {"to": list(to), "subject": subject, "body": body})


def deliver(ws: Workspace) -> list[OutboxRow]:
    """Deliver what is due; returns what could not be delivered (it stays and is tried again)."""
    token = make_token()
    stuck: list[OutboxRow] = []
    while True:
        lease = ws.store.now_us() + int(ws.config.lease_seconds * 1_000_000)
        row = ws.store.take_message(token, lease)
        if row is None:
            return stuck
        error: str | None = None
        try:
            _deliver_one(ws, row)
        except (GtftError, OSError) as e:
            error = str(e)
            stuck.append(row)
        ws.store.settle_message(row, token, error)


def _deliver_one(ws: Workspace, row: OutboxRow) -> None:
    p = row.payload
    if row.kind == "notice":
        _write_notice(ws, row)
        return
    match p["op"]:
        case "submit":
            ws.ledger.submit(p["bead"], p["note"])
        case "close":
            ws.ledger.close(p["bead"], p["reason"])
        case "release":
            ws.ledger.release(p["bead"], failed=p["failed"])
        case "note":
            ws.ledger.note(p["bead"], p["text"])
        case op:
            # Never marked as delivered: it stays, and doctor shows it.
            raise InternalError(f"the outbox holds {op!r}, which no ledger does", fix="gtft doctor")


def _write_notice(ws: Workspace, row: OutboxRow) -> None:
    """Without a town: a line in ``mail.log``, once each."""
    mark = f"{row.run_id}/{row.seq}"
    if ws.mail_log.exists():
        with ws.mail_log.open(encoding="utf-8") as f:
            if any(f'"id": "{mark}"' in line for line in f):
                return
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.created_us / 1e6))
    line = json.dumps({"id": mark, "at": stamp, **row.payload}, ensure_ascii=False)
    with ws.mail_log.open("a", encoding="utf-8") as f:
        f.write(line + "\n")
