"""The beads of an embedded ledger as lines of ``bd import``, and into the database of a rig."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from gtft.beads.bd import BdLedger
from gtft.beads.bd_program import BdProgram
from gtft.beads.ledger import Bead
from gtft.beads.local import LocalLedger
from gtft.errors import TownError

# One call of bd takes this many; beads of one epic stay together.
_AT_ONCE = 200
_DIGITS = 7


@dataclass(frozen=True)
class OldBead:
    """A bead of the embedded ledger with its times, microseconds since the epoch."""

    bead: Bead
    created_us: int
    updated_us: int
    noted_us: tuple[int, ...]

    @property
    def root(self) -> str:
        return self.bead.id.split(".")[0]


def read_old_beads(path: Path) -> list[OldBead]:
    """All beads of the embedded ledger at ``path``, in the order they were made; none without a file."""
    if not path.is_file():
        return []
    ledger = LocalLedger(path, "ft", lambda: 0.0)
    c = sqlite3.connect(path, timeout=30)
    try:
        times = c.execute("SELECT id, created_us, updated_us FROM beads ORDER BY number").fetchall()
        notes = c.execute("SELECT bead, created_us FROM notes ORDER BY number").fetchall()
    finally:
        c.close()
    beads = ledger.look(t[0] for t in times)
    return [
        OldBead(beads[i], created, updated, tuple(at for bead, at in notes if bead == i))
        for i, created, updated in times
    ]


def choose_ids(old: list[OldBead], prefix: str, ledger: BdLedger) -> dict[str, str]:
    """Old id → id in the rig. An id stays as it is when it has the rig's prefix and is free there; the
    same bead is given the same id each time."""
    there = ledger.look(o.bead.id for o in old)
    moved: dict[str, str] = {}
    for o in old:
        if o.bead.id != o.root:
            continue
        taken = any(
            not _is_same(x.bead, there[x.bead.id])
            for x in old
            if x.root == o.root and x.bead.id in there
        )
        if taken or not o.root.startswith(f"{prefix}-"):
            digest = sha256(f"{o.root} {o.created_us} {o.bead.title}".encode()).hexdigest()
            moved[o.root] = f"{prefix}-{digest[:_DIGITS]}"
    return {o.bead.id: moved.get(o.root, o.root) + o.bead.id[len(o.root) :] for o in old}


def rename_bead(bead: Bead, ids: dict[str, str]) -> Bead:
    """The bead as the rig will show it."""
    return replace(
        bead,
        id=ids[bead.id],
        description="\n".join(
            " ".join(ids.get(word, word) for word in line.split(" "))
            for line in bead.description.split("\n")
        ),
        needs=tuple(sorted(ids.get(x, x) for x in bead.needs)),
        parent=ids.get(bead.parent, bead.parent) if bead.parent else None,
    )


def move_beads(
    old: list[OldBead],
    ids: dict[str, str],
    bd: BdProgram,
    ledger: BdLedger,
    *,
    actor: str,
    now_us: int,
    keep: bool,
) -> int:
    """Bring the beads into the rig, through ``bd``; returns how many it did not have.

    What an earlier, cut off move left there is brought up to date, unless ``keep``. Raises TownError when
    a bead does not come back as it went in.
    """
    wanted = {ids[o.bead.id]: rename_bead(o.bead, ids) for o in old}
    there = ledger.look(wanted)
    new = [o for o in old if ids[o.bead.id] not in there]
    stale = [o for o in old if ids[o.bead.id] in there and not keep]
    stale = [o for o in stale if there[ids[o.bead.id]] != wanted[ids[o.bead.id]]]
    for o in stale:
        bead_id = ids[o.bead.id]
        extra = sorted(set(there[bead_id].labels) - set(o.bead.labels))
        if extra:
            bd.write("update", bead_id, *(f"--remove-label={x}" for x in extra), actor=actor)
    # bd passes over a row that is not newer than its own.
    rows = [_write_row(wanted[ids[o.bead.id]], o, o.updated_us) for o in new]
    rows += [_write_row(wanted[ids[o.bead.id]], o, now_us) for o in stale]
    for some in _cut(rows):
        bd.write("import", "-", actor=actor, stdin="".join(json.dumps(r) + "\n" for r in some))
    _compare(wanted, ledger.look(str(r["id"]) for r in rows), [str(r["id"]) for r in rows])
    return len(new)


def _compare(wanted: dict[str, Bead], found: dict[str, Bead], ids: list[str]) -> None:
    for bead_id in ids:
        have, want = found.get(bead_id), wanted[bead_id]
        if have == want:
            continue
        wrong = (
            [k for k, v in want.__dict__.items() if getattr(have, k) != v]
            if have
            else ["all of it"]
        )
        raise TownError(
            f"bead {bead_id} did not come into the rig as it was",
            why=f"bd shows something else for: {', '.join(wrong)}",
            fix=f"bd show {bead_id}; the old workspace is as it was",
        )


def _is_same(old: Bead, there: Bead) -> bool:
    run = "gtft.run"
    return (old.title, old.metadata.get(run)) == (there.title, there.metadata.get(run))


def _write_row(bead: Bead, old: OldBead, updated_us: int) -> dict[str, object]:
    links = [(x, "blocks") for x in bead.needs]
    if bead.parent is not None:
        links.append((bead.parent, "parent-child"))
    comments: list[dict[str, str]] = []
    last = 0
    for text, at in zip(bead.notes, old.noted_us, strict=True):
        # bd keeps whole seconds: notes of one second would lose their order.
        last = max(last + 1_000_000, at)
        comments.append({"author": "gtft", "text": text, "created_at": _stamp(last)})
    row: dict[str, object] = {
        "id": bead.id,
        "title": bead.title,
        "description": bead.description,
        "acceptance_criteria": bead.acceptance,
        "issue_type": bead.type,
        "status": bead.status,
        "priority": bead.priority,
        "assignee": bead.assignee or "",
        "labels": list(bead.labels),
        "metadata": bead.metadata,
        "comments": comments,
        "created_at": _stamp(old.created_us),
        "updated_at": _stamp(updated_us),
        "dependencies": [
            {"issue_id": bead.id, "depends_on_id": other, "type": kind} for other, kind in links
        ],
    }
    if bead.status == "closed":
        row |= {"close_reason": bead.close_reason or "", "closed_at": _stamp(old.updated_us)}
    return row


def _cut(rows: list[dict[str, object]]) -> Iterable[list[dict[str, object]]]:
    """Calls of bounded size; an epic and its children go in one, which bd makes one transaction."""
    some: list[dict[str, object]] = []
    last = ""
    for row in sorted(rows, key=lambda r: str(r["id"]).split(".")[0]):
        root = str(row["id"]).split(".")[0]
        if root != last and len(some) >= _AT_ONCE:
            yield some
            some = []
        some.append(row)
        last = root
    if some:
        yield some


def _stamp(us: int) -> str:
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
