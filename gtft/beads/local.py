"""The embedded ledger: beads in a SQLite file, for when there is no town.

It keeps bd's words and rules (a bead with an open blocker is not ready, an epic with open children does
not close), so that the same contract tests run on it and on ``bd``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gtft.beads import rules
from gtft.beads.ledger import FAILED_LABEL, REVIEW_LABEL, Bead, NewBead
from gtft.errors import ConflictError, DiskFull, InputError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS beads (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  parent TEXT,
  title TEXT NOT NULL,
  description TEXT NOT NULL,
  type TEXT NOT NULL,
  status TEXT NOT NULL,
  priority INTEGER NOT NULL,
  assignee TEXT,
  acceptance TEXT NOT NULL,
  metadata TEXT NOT NULL,
  close_reason TEXT,
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS labels (bead TEXT NOT NULL, label TEXT NOT NULL, PRIMARY KEY (bead, label));
CREATE INDEX IF NOT EXISTS labels_by_label ON labels (label, bead);
CREATE TABLE IF NOT EXISTS needs (bead TEXT NOT NULL, blocker TEXT NOT NULL, PRIMARY KEY (bead, blocker));
CREATE TABLE IF NOT EXISTS notes (
  number INTEGER PRIMARY KEY, bead TEXT NOT NULL, text TEXT NOT NULL, created_us INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS notes_by_bead ON notes (bead);
CREATE TABLE IF NOT EXISTS graphs (
  digest TEXT NOT NULL, key TEXT NOT NULL, bead TEXT NOT NULL, PRIMARY KEY (digest, key)
);
"""


class LocalLedger:
    """`Ledger` over one SQLite file. ``now`` gives seconds since the epoch."""

    def __init__(self, path: Path, prefix: str, now: Callable[[], float]) -> None:
        self._path = path
        self._prefix = prefix
        self._now = now
        with self._transaction() as c:
            for statement in _SCHEMA.split(";"):
                c.execute(statement)

    def create_graph(self, beads: tuple[NewBead, ...], *, actor: str) -> dict[str, str]:
        rules.check_actor(actor)
        beads = rules.tidy_graph(beads)
        digest = rules.digest_graph(beads)
        keys = {b.key for b in beads}
        stamp = self._stamp()
        with self._transaction() as c:
            made = c.execute("SELECT key, bead FROM graphs WHERE digest = ?", (digest,)).fetchall()
            if made:
                return dict(made)
            outside = {x for b in beads for x in (*b.needs, b.parent) if x is not None} - keys
            known = {i: self._read(c, i).type for i in outside}
            rules.check_links(beads, known)
            ids: dict[str, str] = {}
            for b in beads:
                ids[b.key] = bead_id = self._new_id(c, ids.get(b.parent or "", b.parent))
                c.execute(
                    "INSERT INTO beads (id, parent, title, description, type, status, priority,"
                    " assignee, acceptance, metadata, created_us, updated_us)"
                    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                    (
                        bead_id,
                        ids.get(b.parent or "", b.parent),
                        b.title,
                        b.description.replace("{id}", bead_id),
                        b.type,
                        "open",
                        b.priority,
                        b.assignee or None,
                        b.acceptance,
                        json.dumps(b.metadata, sort_keys=True),
                        stamp,
                        stamp,
                    ),
                )
                c.execute("INSERT INTO graphs VALUES (?,?,?)", (digest, b.key, bead_id))
                c.executemany("INSERT INTO labels VALUES (?,?)", [(bead_id, x) for x in b.labels])
            for b in beads:
                links = [(ids[b.key], ids.get(x, x)) for x in b.needs]
                c.executemany("INSERT OR IGNORE INTO needs VALUES (?,?)", links)
        return ids

    def show(self, bead_id: str) -> Bead:
        with self._transaction() as c:
            return self._read(c, bead_id)

    def look(self, bead_ids: Iterable[str], *, notes: bool = True) -> dict[str, Bead]:
        with self._transaction() as c:
            there = {
                i: c.execute("SELECT 1 FROM beads WHERE id = ?", (i,)).fetchone()
                for i in bead_ids
                if rules.is_id(i)
            }
            return {i: self._read(c, i) for i, row in there.items() if row is not None}

    def find(self, *, label: str, metadata: dict[str, str] | None = None) -> list[Bead]:
        with self._transaction() as c:
            rows = c.execute(
                "SELECT b.id FROM beads b JOIN labels l ON l.bead = b.id WHERE l.label = ?"
                " ORDER BY b.number",
                (label,),
            ).fetchall()
            found = [self._read(c, r[0]) for r in rows]
        wanted = (metadata or {}).items()
        return [b for b in found if all(b.metadata.get(k) == v for k, v in wanted)]

    def list_ready(self, *, label: str) -> list[Bead]:
        with self._transaction() as c:
            rows = c.execute(
                "SELECT b.id FROM beads b JOIN labels l ON l.bead = b.id"
                " WHERE l.label = ? AND b.status = 'open' AND b.assignee IS NULL AND b.type != 'epic'"
                " AND NOT EXISTS (SELECT 1 FROM needs n JOIN beads x ON x.id = n.blocker"
                "   WHERE n.bead = b.id AND x.status != 'closed')"
                " ORDER BY b.priority, b.number",
                (label,),
            ).fetchall()
            return [self._read(c, r[0]) for r in rows]

    def claim(self, bead_id: str, actor: str) -> bool:
        rules.check_actor(actor)
        with self._transaction() as c:
            bead = self._read(c, bead_id)
            if bead.status == "in_progress":
                return bead.assignee == actor
            if bead.status not in ("open", "hooked"):
                raise ConflictError(f"{bead_id} is {bead.status}, not open", fix="gtft status")
            if bead.assignee != actor and (bead.assignee or bead.status == "hooked"):
                return False
            self._set(c, bead_id, "status = 'in_progress', assignee = ?", actor)
            return True

    def release(self, bead_id: str, *, failed: bool, actor: str) -> None:
        rules.check_actor(actor)
        with self._transaction() as c:
            self._read_open(c, bead_id)
            self._set(c, bead_id, "status = 'open', assignee = NULL")
            self._unlabel(c, bead_id, REVIEW_LABEL)
            if failed:
                self._label(c, bead_id, FAILED_LABEL)
            else:
                self._unlabel(c, bead_id, FAILED_LABEL)

    def hand_over(self, bead_id: str, actor: str) -> None:
        rules.check_actor(actor)
        with self._transaction() as c:
            self._read_open(c, bead_id)
            self._set(c, bead_id, "status = 'in_progress', assignee = ?", actor)

    def submit(self, bead_id: str, note: str, *, actor: str) -> None:
        rules.check_actor(actor)
        text = rules.check_note(note)
        with self._transaction() as c:
            bead = self._read(c, bead_id)
            if bead.status != "in_progress":
                raise ConflictError(
                    f"{bead_id} is {bead.status}, not in_progress", fix="gtft status"
                )
            self._unlabel(c, bead_id, FAILED_LABEL)
            self._label(c, bead_id, REVIEW_LABEL)
            self._add_note(c, bead, text)

    def close(self, bead_id: str, reason: str, *, actor: str) -> None:
        rules.check_actor(actor)
        with self._transaction() as c:
            bead = self._read(c, bead_id)
            if bead.status != "closed":
                self._check_free(c, bead)
                worded = rules.word_reason(reason)
                self._set(c, bead_id, "status = 'closed', close_reason = ?", worded)
            self._unlabel(c, bead_id, REVIEW_LABEL)

    def reopen(self, bead_id: str, reason: str, *, actor: str) -> None:
        rules.check_actor(actor)
        text = rules.check_note(reason)
        with self._transaction() as c:
            bead = self._read(c, bead_id)
            if bead.status == "closed":
                self._set(c, bead_id, "status = 'open', assignee = NULL, close_reason = NULL")
                self._add_note(c, bead, text)

    def block(self, bead_id: str, reason: str, *, actor: str) -> None:
        rules.check_actor(actor)
        text = rules.check_note(reason)
        with self._transaction() as c:
            bead = self._read_open(c, bead_id)
            self._set(c, bead_id, "status = 'blocked'")
            self._add_note(c, bead, text)

    def need(self, bead_id: str, blocker: str, *, actor: str) -> None:
        rules.check_actor(actor)
        with self._transaction() as c:
            bead, other = self._read(c, bead_id), self._read(c, blocker)
            if blocker in bead.needs:
                return
            rules.check_need(bead.id, bead.type, other.id, other.type)
            waits: dict[str, tuple[str, ...]] = {}
            for one, on in c.execute("SELECT bead, blocker FROM needs").fetchall():
                waits[one] = (*waits.get(one, ()), on)
            if rules.reaches(waits, (other.id,), bead.id):
                raise rules.circle(bead.id)
            c.execute("INSERT INTO needs VALUES (?,?)", (bead_id, blocker))

    def note(self, bead_id: str, text: str, *, actor: str) -> None:
        rules.check_actor(actor)
        tidy = rules.check_note(text)
        with self._transaction() as c:
            self._add_note(c, self._read(c, bead_id), tidy)

    def _check_free(self, c: sqlite3.Connection, bead: Bead) -> None:
        """Raises ConflictError when something open keeps the bead from closing."""
        child = c.execute(
            "SELECT id FROM beads WHERE parent = ? AND status != 'closed'", (bead.id,)
        ).fetchone()
        if child is not None:
            raise ConflictError(f"{bead.id} cannot close", why=f"its child {child[0]} is open")
        blocker = c.execute(
            "SELECT x.id FROM needs n JOIN beads x ON x.id = n.blocker"
            " WHERE n.bead = ? AND x.status != 'closed'",
            (bead.id,),
        ).fetchone()
        if blocker is not None:
            raise ConflictError(f"{bead.id} cannot close", why=f"it needs {blocker[0]}: open")

    def _add_note(self, c: sqlite3.Connection, bead: Bead, text: str) -> None:
        # The outbox may deliver twice after a crash; the same note is kept once.
        if text not in bead.notes:
            c.execute(
                "INSERT INTO notes (bead, text, created_us) VALUES (?,?,?)",
                (bead.id, text, self._stamp()),
            )

    def _new_id(self, c: sqlite3.Connection, parent: str | None) -> str:
        if parent is not None:
            count = c.execute("SELECT COUNT(*) FROM beads WHERE parent = ?", (parent,)).fetchone()
            return f"{parent}.{count[0] + 1}"
        number = c.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM beads").fetchone()[0]
        return f"{self._prefix}-{number}"

    def _read_open(self, c: sqlite3.Connection, bead_id: str) -> Bead:
        bead = self._read(c, bead_id)
        if bead.status == "closed":
            raise ConflictError(f"{bead_id} is closed", fix="gtft status")
        return bead

    def _read(self, c: sqlite3.Connection, bead_id: str) -> Bead:
        row = c.execute(
            "SELECT id, title, description, type, status, priority, assignee, metadata, parent,"
            " close_reason, acceptance FROM beads WHERE id = ?",
            (rules.check_id(bead_id),),
        ).fetchone()
        if row is None:
            raise rules.missing(bead_id)

        def column(sql: str) -> tuple[str, ...]:
            return tuple(r[0] for r in c.execute(sql, (bead_id,)).fetchall())

        return Bead(
            id=row[0],
            title=row[1],
            description=row[2],
            type=row[3],
            status=row[4],
            priority=row[5],
            assignee=row[6],
            labels=column("SELECT label FROM labels WHERE bead = ? ORDER BY label"),
            metadata=json.loads(row[7]),
            needs=column("SELECT blocker FROM needs WHERE bead = ? ORDER BY blocker"),
            parent=row[8],
            close_reason=row[9],
            notes=column("SELECT text FROM notes WHERE bead = ? ORDER BY number"),
            acceptance=row[10],
        )

    def _set(self, c: sqlite3.Connection, bead_id: str, what: str, *values: str) -> None:
        sql = f"UPDATE beads SET {what}, updated_us = ? WHERE id = ?"  # noqa: S608 - constants only
        c.execute(sql, (*values, self._stamp(), bead_id))

    @staticmethod
    def _label(c: sqlite3.Connection, bead_id: str, label: str) -> None:
        c.execute("INSERT OR IGNORE INTO labels VALUES (?,?)", (bead_id, label))

    @staticmethod
    def _unlabel(c: sqlite3.Connection, bead_id: str, label: str) -> None:
        c.execute("DELETE FROM labels WHERE bead = ? AND label = ?", (bead_id, label))

    def _stamp(self) -> int:
        return int(self._now() * 1_000_000)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        c: sqlite3.Connection | None = None
        try:
            c = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            c.execute("PRAGMA journal_mode = WAL")
            c.execute("PRAGMA synchronous = FULL")
            c.execute("BEGIN IMMEDIATE")
            yield c
            c.execute("COMMIT")
        except sqlite3.DatabaseError as e:
            kind = DiskFull if "disk is full" in str(e) else InputError
            raise kind(
                f"the ledger {self._path} cannot be used", why=str(e), fix="gtft doctor"
            ) from e
        finally:
            # Closing without COMMIT rolls back.
            if c is not None:
                c.close()
