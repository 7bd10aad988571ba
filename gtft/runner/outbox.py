"""The outbox: what must reach the ledger and people because of a change that is committed.

Messages are delivered in the order of their run, retried until done. Delivery may happen twice after a
crash, so each way out is idempotent: ledger calls by their nature, mail and feed by their mark.
"""

from __future__ import annotations

import json
import time
from typing import Any

from gtft.beads.ledger import KEEP_LABEL, LABEL, NewBead
from gtft.errors import ConflictError, GtftError, InternalError, TownError
from gtft.records.rows import Message, OutboxRow
from gtft.runner.identity import make_token
from gtft.runner.workspace import Workspace
from gtft.town.post import emit_event, nudge, send_mail

# A notice that gt refuses this often goes to the log instead, so that what follows it is not held up.
NOTICE_TRIES = 3


def tell_ledger(op: str, bead: str, actor: str, **arguments: Any) -> Message:
    """``op``: a method of `gtft.beads.ledger.Ledger` that takes the bead first, or ask, answer."""
    return Message("ledger", {"op": op, "bead": bead, "actor": actor, **arguments})


def tell_people(to: tuple[str, ...], subject: str, body: str) -> Message:
    """Mail that stays. ``subject`` begins with GTFT_REVIEW, GTFT_FAILED, GTFT_DONE, GTFT_DEPLOYED,
    GTFT_UNDEPLOYED, GTFT_ROLLBACK or GTFT_AB."""
    return Message("notice", {"to": list(to), "subject": subject, "body": body})


def nudge_people(to: tuple[str, ...], subject: str) -> Message:
    """A line for those who are awake; it leaves no mail behind."""
    return Message("nudge", {"to": list(to), "subject": subject, "body": ""})


def tell_feed(kind: str, bead: str, actor: str, text: str) -> Message:
    """A line of the town's feed; ``kind`` begins with ``gtft_``."""
    return Message("feed", {"event": kind, "bead": bead, "actor": actor, "text": text})


def deliver(ws: Workspace) -> list[OutboxRow]:
    """Deliver what is due; returns what could not be delivered (it stays and is tried again)."""
    token = make_token()
    stuck: list[OutboxRow] = []
    try:
        while True:
            lease = ws.store.now_us() + int(ws.config.lease_seconds * 1_000_000)
            row = ws.store.take_message(token, lease)
            if row is None:
                return stuck
            error: str | None = None
            try:
                deliver_one(ws, row)
            except (GtftError, OSError) as e:
                error = str(e)
                stuck.append(row)
            ws.store.settle_message(row, token, error)
    except TownError:
        # The change is committed; whoever delivers next goes on here.
        return stuck


def deliver_one(ws: Workspace, row: OutboxRow) -> None:
    """One message on its way out, whatever became of an earlier try. Raises what kept it back."""
    match row.kind:
        case "ledger":
            try:
                _tell_ledger(ws, row)
            except ConflictError as e:
                # Somebody moved or removed the bead by hand: their word stands, and ours is on record.
                ws.store.add_event(row.run_id, None, "refused", "ledger", _describe(row, e))
        case "notice":
            _write_notice(ws, row)
        case "nudge":
            _nudge(ws, row)
        case "feed":
            _tell_feed(ws, row)
        case kind:
            # Never marked as delivered: it stays, and doctor shows it.
            raise InternalError(f"the outbox holds {kind!r}, which goes nowhere", fix="gtft doctor")


def _tell_ledger(ws: Workspace, row: OutboxRow) -> None:
    p = row.payload
    bead, actor = p["bead"], p["actor"]
    match p["op"]:
        case "submit":
            ws.ledger.submit(bead, p["note"], actor=actor)
        case "close":
            ws.ledger.close(bead, p["reason"], actor=actor)
        case "release":
            now = ws.store.find_bead(bead)
            # Late, and the stage is claimed again: its bead is the new holder's.
            if now is None or now.state == "ready":
                ws.ledger.release(bead, failed=p["failed"], actor=actor)
        case "note":
            ws.ledger.note(bead, p["text"], actor=actor)
        case "ask":
            _ask_review(ws, row.run_id, p)
        case "answer":
            for asked in find_review_beads(ws, row.run_id):
                ws.ledger.close(asked, p["reason"], actor=actor)
        case op:
            raise InternalError(f"the outbox holds {op!r}, which no ledger does", fix="gtft doctor")


def find_review_beads(ws: Workspace, run_id: str) -> list[str]:
    """The beads that ask a witness to review this run's eval; the newest attempt comes last."""
    found = ws.ledger.find(label=LABEL, metadata={"gtft.run": run_id, "gtft.stage": "review"})
    return [b.id for b in found]


def _ask_review(ws: Workspace, run_id: str, p: dict[str, Any]) -> None:
    """A bead for the witness, and the eval bead needs it: ``bd`` itself then refuses to close the eval."""
    bead, actor = p["bead"], p["actor"]
    wanted = {"gtft.run": run_id, "gtft.stage": "review", "gtft.attempt": str(p["attempt"])}
    found = ws.ledger.find(label=LABEL, metadata=wanted)
    if found:
        asked = found[0].id
    else:
        new = NewBead(
            key="review",
            title=f"Review the eval of {run_id}",
            description=f"Run: gtft review show {bead}\n\n"
            f"Then decide: gtft review approve {bead}, or gtft review reject {bead} --reason …\n"
            "gtft closes this bead with your word; closing it by hand decides nothing.",
            # Not among those that age away while they wait for somebody.
            labels=(LABEL, KEEP_LABEL),
            priority=1,
            metadata=wanted,
            assignee=p["assignee"],
        )
        asked = ws.ledger.create_graph((new,), actor=actor)["review"]
    ws.ledger.need(bead, asked, actor=actor)


def _write_notice(ws: Workspace, row: OutboxRow) -> None:
    """Mail in a town; a line in ``mail.log`` without one, or when gt keeps refusing it."""
    if ws.home is not None:
        failed: TownError | None = None
        # An address that gt does not know keeps none of the others from their mail.
        for to in row.payload["to"]:
            try:
                send_mail(
                    ws.home.town,
                    ws.environ,
                    to=to,
                    subject=row.payload["subject"],
                    body=row.payload["body"],
                    mark=_mark(row),
                    again=row.tries > 0,
                )
            except TownError as e:
                failed = e
        if failed is None:
            return
        if row.tries < NOTICE_TRIES:
            raise failed
        ws.store.add_event(row.run_id, None, "not mailed", "gtft", str(failed))
    _log(ws, row)


def _nudge(ws: Workspace, row: OutboxRow) -> None:
    if ws.home is not None and row.tries == 0:
        for to in row.payload["to"]:
            nudge(ws.home.town, ws.environ, to=to, text=row.payload["subject"])
    _log(ws, row)


def _tell_feed(ws: Workspace, row: OutboxRow) -> None:
    if ws.home is None:
        return
    p = row.payload
    try:
        emit_event(
            ws.home.town,
            ws.environ,
            kind=p["event"],
            actor=p["actor"],
            rig=ws.home.rig.name,
            bead=p["bead"],
            text=p["text"],
            mark=_mark(row),
            again=row.tries > 0,
        )
    except TownError as e:
        if row.tries < NOTICE_TRIES:
            raise
        ws.store.add_event(row.run_id, None, "not in the feed", "gtft", str(e))


def _log(ws: Workspace, row: OutboxRow) -> None:
    """A line in ``mail.log``, once each."""
    mark = _mark(row)
    if ws.mail_log.exists():
        with ws.mail_log.open(encoding="utf-8") as f:
            if any(f'"id": "{mark}"' in line for line in f):
                return
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.created_us / 1e6))
    line = json.dumps({"id": mark, "at": stamp, **row.payload}, ensure_ascii=False)
    with ws.mail_log.open("a", encoding="utf-8") as f:
        f.write(line + "\n")


def _mark(row: OutboxRow) -> str:
    return f"{row.run_id}/{row.seq}"


def _describe(row: OutboxRow, e: ConflictError) -> str:
    why = f" ({e.why})" if e.why else ""
    return f"{row.payload['op']} {row.payload['bead']}: {e.what}{why}"
