"""The embedded ledger: beads in a SQLite file, for when there is no town.

It keeps bd's words and rules (a bead with an open blocker is not ready, an epic with open children does
not close), so that the same contract tests run on it and on ``bd``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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

    def create_graph(self, beads: tuple[NewBead, ...]) -> dict[str, str]:
        ids: dict[str, str] = {}
        stamp = self._stamp()
        with self._transaction() as c:
            for b in beads:
                if not b.title.strip():
                    raise ConflictError(f"bead {b.key} has no title", fix="give it one")
                ids[b.key] = bead_id = self._new_id(c, ids.get(b.parent or "", b.parent))
                c.execute(
                    "INSERT INTO beads (id, parent, title, description, type, status, priority,"
                    " acceptance, metadata, created_us, updated_us) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                    (
                        bead_id,
                        ids.get(b.parent or "", b.parent),
                        b.title,
                        b.description.replace("{id}", bead_id),
                        b.type,
                        "open",
                        b.priority,
                        b.acceptance,
                        json.dumps(b.metadata, sort_keys=True),
                        stamp,
                        stamp,
                    ),
                )
                c.executemany("INSERT INTO labels VALUES (?,?)", [(bead_id, x) for x in b.labels])
                for need in b.needs:
                    c.execute("INSERT INTO needs VALUES (?,?)", (bead_id, ids.get(need, need)))
        return ids

    def show(self, bead_id: str) -> Bead:
        with self._transaction() as c:
            return self._read(c, bead_id)

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
        with self._transaction() as c:
            self._read(c, bead_id)
            done = c.execute(
                "UPDATE beads SET status = 'in_progress', assignee = ?, updated_us = ? WHERE id = ?"
                " AND ((status = 'open' AND (assignee IS NULL OR assignee = ?))"
                "   OR (status = 'in_progress' AND assignee = ?))",
                (actor, self._stamp(), bead_id, actor, actor),
            )
            return done.rowcount == 1

    def release(self, bead_id: str, *, failed: bool) -> None:
        with self._transaction() as c:
            bead = self._read(c, bead_id)
            if bead.status == "closed":
                raise ConflictError(f"{bead_id} is closed", fix="gtft status")
            self._set(c, bead_id, "status = 'open', assignee = NULL")
            self._unlabel(c, bead_id, REVIEW_LABEL)
            if failed:
                c.execute("INSERT OR IGNORE INTO labels VALUES (?,?)", (bead_id, FAILED_LABEL))
            else:
                self._unlabel(c, bead_id, FAILED_LABEL)

    def hand_over(self, bead_id: str, actor: str) -> None:
        with self._transaction() as c:
            bead = self._read(c, bead_id)
            if bead.status == "closed":
                raise ConflictError(f"{bead_id} is closed", fix="gtft status")
            self._set(c, bead_id, "status = 'in_progress', assignee = ?", actor)

    def submit(self, bead_id: str, note: str) -> None:
        with self._transaction() as c:
            bead = self._read(c, bead_id)
            if bead.status != "in_progress":
                raise ConflictError(
                    f"{bead_id} is {bead.status}, not in_progress", fix="gtft status"
                )
            self._unlabel(c, bead_id, FAILED_LABEL)
            c.execute("INSERT OR IGNORE INTO labels VALUES (?,?)", (bead_id, REVIEW_LABEL))
            self._add_note(c, bead, note)

    def close(self, bead_id: str, reason: str) -> None:
        with self._transaction() as c:
            bead = self._read(c, bead_id)
            if bead.status == "closed":
                return
            open_child = c.execute(
                "SELECT id FROM beads WHERE parent = ? AND status != 'closed'", (bead_id,)
            ).fetchone()
            if open_child is not None:
                raise ConflictError(
                    f"{bead_id} cannot close", why=f"its child {open_child[0]} is open"
                )
            self._set(c, bead_id, "status = 'closed', close_reason = ?", reason)
            self._unlabel(c, bead_id, REVIEW_LABEL)

    def note(self, bead_id: str, text: str) -> None:
        with self._transaction() as c:
            self._add_note(c, self._read(c, bead_id), text)

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

    def _read(self, c: sqlite3.Connection, bead_id: str) -> Bead:
        row = c.execute(
            "SELECT id, title, description, type, status, priority, assignee, metadata, parent,"
            " close_reason FROM beads WHERE id = ?",
            (bead_id,),
        ).fetchone()
        if row is None:
            raise ConflictError(f"there is no bead {bead_id}", fix="gtft runs list")

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
        )

    def _set(self, c: sqlite3.Connection, bead_id: str, what: str, *values: str) -> None:
        sql = f"UPDATE beads SET {what}, updated_us = ? WHERE id = ?"  # noqa: S608 - constants only
        c.execute(sql, (*values, self._stamp(), bead_id))

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
