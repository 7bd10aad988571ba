"""The ledger of a town: beads live in Gas Town's own database, and only ``bd`` touches them.

A bead is read again after every change: another writer's commit can put a row back (beads.md 14), and a
call that ran into somebody else must not be repeated blindly.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gtft.beads import rules
from gtft.beads.bd_program import BdProgram, NoSuchBead
from gtft.beads.ledger import FAILED_LABEL, REVIEW_LABEL, Bead, NewBead
from gtft.errors import ConflictError, TownError

# These make a bead wait; the other types of bd only relate.
_NEEDS = ("blocks", "conditional-blocks", "waits-for")
# One command line carries no more ids than this.
_AT_ONCE = 200
# What bd reads from a pipe; it has no flag for it where it wants a file.
_STDIN = "/dev/stdin"


class BdLedger:
    """`Ledger` over ``bd``, for the database of ``beads_dir`` (a ``.beads`` folder).

    ``environ`` is what ``bd`` is given, with the town's server settings in it; ``wait`` sleeps seconds,
    ``now`` gives seconds since the epoch.
    """

    def __init__(
        self,
        beads_dir: Path,
        environ: Mapping[str, str],
        wait: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._bd = BdProgram(beads_dir, environ, wait)
        self._prefix = ""

    def create_graph(self, beads: tuple[NewBead, ...], *, actor: str) -> dict[str, str]:
        rules.check_actor(actor)
        beads = rules.tidy_graph(beads)
        ids = self._name(beads)
        keys = {b.key for b in beads}
        outside = {
            x for b in beads for x in (*b.needs, b.parent) if x is not None and x not in keys
        }
        wanted = [_write_row(b, ids, actor) for b in beads]

        def attempt() -> None:
            # All rows go in as one transaction. Those that are there keep what they have become: also
            # those that somebody makes after this look, for bd skips what is older than its own row.
            stamp = {k: _as_time(self._now()) for k in ("created_at", "updated_at")}
            there = self.look({*ids.values(), *outside})
            rules.check_links(beads, {i: b.type for i, b in there.items() if i in outside})
            for b in beads:
                found = there.get(ids[b.key])
                if found is not None and not b.metadata.items() <= found.metadata.items():
                    raise ConflictError(
                        f"{found.id} is another bead than the one to create",
                        fix=f"bd show {found.id}",
                    )
            rows = [r | stamp for r in wanted if r["id"] not in there]
            if not rows:
                return
            lines = "".join(json.dumps(r) + "\n" for r in rows)
            made = self._bd.write("import", "-", actor=actor, stdin=lines)
            skipped = made.get("skipped_dependencies") if isinstance(made, dict) else None
            if skipped:
                raise TownError("bd left out dependencies", why="; ".join(map(str, skipped)))

        self._bd.persist(attempt)
        absent = set(ids.values()) - self.look(ids.values()).keys()
        if absent:
            raise ConflictError(f"bd did not keep {', '.join(sorted(absent))}", fix="gtft doctor")
        return ids

    def show(self, bead_id: str) -> Bead:
        found = self.look([rules.check_id(bead_id)])
        if bead_id not in found:
            raise rules.missing(bead_id)
        return found[bead_id]

    def look(self, bead_ids: Iterable[str], *, notes: bool = True) -> dict[str, Bead]:
        ids = sorted({i for i in bead_ids if rules.is_id(i)})
        found: dict[str, Bead] = {}
        for n in range(0, len(ids), _AT_ONCE):
            some = ids[n : n + _AT_ONCE]
            try:
                if notes:
                    # bd asks its server several times for each bead here.
                    rows = self._read_rows("show", *some, "--include-comments")
                else:
                    rows = self._read_rows("list", "--all", f"--id={','.join(some)}", "--limit=0")
            except NoSuchBead:
                continue
            # bd completes a partial id: what was not asked for by its full name is not there.
            found |= {b.id: b for b in map(_read_bead, rows) if b.id in some}
        return found

    def find(self, *, label: str, metadata: dict[str, str] | None = None) -> list[Bead]:
        wanted = dict(metadata or {})
        fields = [f"--metadata-field={k}={v}" for k, v in wanted.items()]
        rows = self._read_rows(
            "list", "--all", f"--label={rules.check_label(label)}", "--limit=0", *fields
        )
        return [b for b in self._read_beads(rows) if wanted.items() <= b.metadata.items()]

    def list_ready(self, *, label: str) -> list[Bead]:
        rows = self._read_rows(
            "ready", f"--label={rules.check_label(label)}", "--unassigned", "--limit=0"
        )
        beads = [b for b in self._read_beads(rows) if b.type != "epic"]
        return sorted(beads, key=lambda b: b.priority)

    def claim(self, bead_id: str, actor: str) -> bool:
        rules.check_actor(actor)

        def attempt() -> bool | None:
            bead = self.show(bead_id)
            if bead.status == "in_progress":
                return bead.assignee == actor
            _check_claimable(bead)
            if bead.assignee not in (None, actor) or (
                bead.status == "hooked" and not bead.assignee
            ):
                return False
            how = (
                ["--status=in_progress", f"--assignee={actor}"]
                if bead.status == "hooked"
                else ["--claim"]
            )
            # When somebody was quicker, the next look says who.
            with suppress(ConflictError):
                self._bd.write("update", bead_id, *how, actor=actor)
            return None

        won = self._bd.persist(attempt)
        if won is None:
            after = self.show(bead_id)
            won = after.status == "in_progress" and after.assignee == actor
        return won

    def release(self, bead_id: str, *, failed: bool, actor: str) -> None:
        def is_so(b: Bead) -> bool:
            return (
                (b.status, b.assignee) == ("open", None)
                and REVIEW_LABEL not in b.labels
                and (FAILED_LABEL in b.labels) == failed
            )

        def change(b: Bead) -> None:
            _check_open(b)
            self._update(
                b.id,
                "--status=open",
                "--assignee=",
                f"--remove-label={REVIEW_LABEL}",
                f"--{'add' if failed else 'remove'}-label={FAILED_LABEL}",
                actor=actor,
            )

        self._settle(bead_id, is_so, change)

    def hand_over(self, bead_id: str, actor: str) -> None:
        def change(b: Bead) -> None:
            _check_open(b)
            self._update(b.id, "--status=in_progress", f"--assignee={actor}", actor=actor)

        self._settle(bead_id, lambda b: (b.status, b.assignee) == ("in_progress", actor), change)

    def submit(self, bead_id: str, note: str, *, actor: str) -> None:
        text = rules.check_note(note)

        def is_so(b: Bead) -> bool:
            return (
                b.status == "in_progress"
                and REVIEW_LABEL in b.labels
                and FAILED_LABEL not in b.labels
                and text in b.notes
            )

        def change(b: Bead) -> None:
            if b.status != "in_progress":
                raise ConflictError(f"{b.id} is {b.status}, not in_progress", fix="gtft status")
            # The evidence first: who sees the label finds it.
            self._add_note(b, text, actor)
            self._update(
                b.id,
                f"--add-label={REVIEW_LABEL}",
                f"--remove-label={FAILED_LABEL}",
                actor=actor,
            )

        self._settle(bead_id, is_so, change)

    def close(self, bead_id: str, reason: str, *, actor: str) -> None:
        worded = rules.word_reason(reason)

        def change(b: Bead) -> None:
            if b.status != "closed":
                try:
                    self._bd.write("close", b.id, "--reason-file=-", actor=actor, stdin=worded)
                except ConflictError as e:
                    raise ConflictError(f"{b.id} cannot close", why=e.why, fix=e.fix) from e
            if REVIEW_LABEL in b.labels:
                self._update(b.id, f"--remove-label={REVIEW_LABEL}", actor=actor)

        self._settle(
            bead_id, lambda b: b.status == "closed" and REVIEW_LABEL not in b.labels, change
        )

    def reopen(self, bead_id: str, reason: str, *, actor: str) -> None:
        text = rules.check_note(reason)

        def change(b: Bead) -> None:
            # What must hold once it is open comes first: after the last call it is ready for anybody.
            self._add_note(b, text, actor)
            if b.assignee is not None:
                self._update(b.id, "--assignee=", actor=actor)
            self._bd.write("reopen", b.id, f"--reason={text[:400]}", actor=actor)

        self._settle(bead_id, lambda b: b.status != "closed", change)

    def block(self, bead_id: str, reason: str, *, actor: str) -> None:
        text = rules.check_note(reason)

        def change(b: Bead) -> None:
            _check_open(b)
            self._add_note(b, text, actor)
            self._update(b.id, "--status=blocked", actor=actor)

        self._settle(bead_id, lambda b: b.status == "blocked" and text in b.notes, change)

    def need(self, bead_id: str, blocker: str, *, actor: str) -> None:
        def change(b: Bead) -> None:
            other = self.show(blocker)
            rules.check_need(b.id, b.type, other.id, other.type)
            try:
                self._bd.write("dep", "add", b.id, other.id, "--type=blocks", actor=actor)
            except ConflictError as e:
                raise ConflictError(f"{b.id} cannot need {other.id}", why=e.why, fix=e.fix) from e

        self._settle(bead_id, lambda b: blocker in b.needs, change)

    def note(self, bead_id: str, text: str, *, actor: str) -> None:
        tidy = rules.check_note(text)
        self._settle(bead_id, lambda b: tidy in b.notes, lambda b: self._add_note(b, tidy, actor))

    def _settle(
        self, bead_id: str, is_so: Callable[[Bead], bool], change: Callable[[Bead], None]
    ) -> None:
        """Look, change, look again; change once more when the row went back, then give up."""

        def attempt() -> bool:
            bead = self.show(bead_id)
            if is_so(bead):
                return True
            change(bead)
            return False

        if self._bd.persist(attempt) or self._bd.persist(attempt):
            return
        after = self.show(bead_id)
        if not is_so(after):
            raise ConflictError(
                f"{bead_id} does not stay as gtft sets it",
                why=f"it is {after.status} again, held by {after.assignee or 'nobody'}",
                fix=f"bd show {bead_id}",
            )

    def _update(self, bead_id: str, *how: str, actor: str) -> None:
        self._bd.write("update", bead_id, *how, actor=actor)

    def _add_note(self, bead: Bead, text: str, actor: str) -> None:
        if text not in bead.notes:
            self._bd.write("comments", "add", bead.id, f"--file={_STDIN}", actor=actor, stdin=text)

    def _read_beads(self, rows: list[dict[str, Any]]) -> list[Bead]:
        """The beads of a list, oldest first; their notes come with a second call where there are any."""
        noted = [r["id"] for r in rows if int(r.get("comment_count") or 0)]
        whole = self.look(noted)
        rows = sorted(rows, key=lambda r: (r.get("created_at", ""), *_by_number(r["id"])))
        return [whole.get(r["id"]) or _read_bead(r) for r in rows]

    def _read_rows(self, *arguments: str) -> list[dict[str, Any]]:
        payload = self._bd.read(*arguments)
        if not isinstance(payload, list) or not all(isinstance(r, dict) for r in payload):
            raise TownError(
                f"bd {arguments[0]} answered in a way that gtft does not know", fix="gtft doctor"
            )
        return payload

    def _name(self, beads: tuple[NewBead, ...]) -> dict[str, str]:
        """The id of each bead, drawn from what it is: the same graph again has the same ids."""
        if not self._prefix:
            answer = self._bd.read("config", "get", "issue_prefix")
            self._prefix = str((answer or {}).get("value") or "").rstrip("-")
        if not rules.is_id(f"{self._prefix}-0"):
            raise TownError("the bead database has no prefix", fix="bd config get issue_prefix")
        digest = rules.digest_graph(beads)
        ids: dict[str, str] = {}
        children: dict[str, int] = {}
        for n, b in enumerate(beads):
            if b.parent in ids:
                parent = ids[b.parent]
                children[parent] = children.get(parent, 0) + 1
                ids[b.key] = f"{parent}.{children[parent]}"
            else:
                ids[b.key] = f"{self._prefix}-{digest[:7]}{f'{n:02x}' if n else ''}"
        return ids


def _check_open(bead: Bead) -> None:
    if bead.status == "closed":
        raise ConflictError(f"{bead.id} is closed", fix="gtft status")


def _check_claimable(bead: Bead) -> None:
    _check_open(bead)
    if bead.status not in ("open", "hooked"):
        raise ConflictError(f"{bead.id} is {bead.status}, not open", fix=f"bd show {bead.id}")


def _by_number(bead_id: str) -> tuple[str, tuple[int, ...]]:
    """ft-x.10 after ft-x.9."""
    root, *numbers = bead_id.split(".")
    return root, tuple(int(x) for x in numbers if x.isdigit())


def _write_row(bead: NewBead, ids: dict[str, str], actor: str) -> dict[str, Any]:
    """The line of ``bd import`` that makes this bead."""
    own = ids[bead.key]
    links = [(ids.get(x, x), "blocks") for x in bead.needs]
    if bead.parent is not None:
        links.append((ids.get(bead.parent, bead.parent), "parent-child"))
    return {
        "id": own,
        "title": bead.title,
        "description": bead.description.replace("{id}", own),
        "acceptance_criteria": bead.acceptance,
        "issue_type": bead.type,
        "status": "open",
        "priority": bead.priority,
        "assignee": bead.assignee,
        "created_by": actor,
        "labels": list(bead.labels),
        "metadata": bead.metadata,
        "dependencies": [
            {"issue_id": own, "depends_on_id": other, "type": kind} for other, kind in links
        ],
    }


def _read_bead(row: dict[str, Any]) -> Bead:
    # ``show`` gives whole beads with dependency_type, ``list`` and ``ready`` the bare links.
    links = [
        (str(d.get("depends_on_id") or d.get("id")), d.get("dependency_type") or d.get("type"))
        for d in row.get("dependencies") or []
    ]
    metadata = row.get("metadata") or {}
    if isinstance(metadata, str):
        metadata = json.loads(metadata, parse_int=str, parse_float=str)
    comments = sorted(
        row.get("comments") or [], key=lambda c: (c.get("created_at", ""), c.get("id", ""))
    )
    return Bead(
        id=row["id"],
        title=row["title"],
        description=row.get("description") or "",
        type=row.get("issue_type") or "task",
        status=row.get("status") or "open",
        priority=int(row["priority"]),
        assignee=row.get("assignee") or None,
        labels=tuple(sorted(row.get("labels") or [])),
        metadata={k: _as_text(v) for k, v in metadata.items()},
        needs=tuple(sorted(other for other, kind in links if kind in _NEEDS)),
        parent=next((other for other, kind in links if kind == "parent-child"), None),
        close_reason=row.get("close_reason") or None,
        notes=tuple(c["text"] for c in comments),
        acceptance=row.get("acceptance_criteria") or "",
    )


def _as_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
