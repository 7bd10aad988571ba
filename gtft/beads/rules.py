"""What bd allows in a bead. Both ledgers keep to it, so that a bead reads the same in either."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace

from gtft.beads.ledger import NewBead
from gtft.errors import ConflictError

TITLE_BYTES = 500
REASON_CHARACTERS = 20
TYPES = ("task", "bug", "feature", "epic", "chore", "decision")
CUT = "…"
# ``bd`` resolves a partial id to a bead that begins so: only full ids pass, and no flag does.
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]*(-[A-Za-z0-9_]+)+(\.[0-9]+)*", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_:./@+-]*", re.ASCII)
_METADATA_KEY = re.compile(r"[a-zA-Z][a-zA-Z0-9_.]*", re.ASCII)
# bd reads a close reason with one of these in it as a failure (types.FailureCloseKeywords); beside each
# a word that says the same and is not read so.
_FAILURE_WORDS = {
    "unblocked": "freed",
    "blocked": "held up",
    "failed": "unmet",
    "rejected": "refused",
    "wontfix": "left as is",
    "won't fix": "left as is",
    "canceled": "called off",
    "cancelled": "called off",
    "abandoned": "left",
    "error": "deviation",
    "timeout": "time limit",
    "aborted": "stopped",
}
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def word_reason(reason: str, *, success: bool | None = None) -> str:
    """A close reason that bd reads as it is meant: with no word of failure in it when it is a success,
    and at least 20 characters long (``validation.on-close`` refuses less).

    Without ``success`` a reason that begins with rejected, cancelled, failed, expired or superseded
    stays as it is: it is to be read as what it says.
    """
    text = tidy_text(reason).strip()
    if success is None:
        first = re.split(r"\W", text, maxsplit=1)[0].lower()
        success = first not in ("rejected", "cancelled", "failed", "expired", "superseded")
    if success:
        for word, other in _FAILURE_WORDS.items():
            text = re.sub(re.escape(word), other, text, flags=re.IGNORECASE)
    if len(text) < REASON_CHARACTERS:
        text = f"closed by gtft, reason: {text or 'none given'}"
    return text


def tidy_text(text: str) -> str:
    """Without what no argument and no database column can carry."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def tidy_title(title: str) -> str:
    """One line, at most 500 bytes, cut with a mark."""
    line = " ".join(tidy_text(title).split())
    raw = line.encode()
    if len(raw) <= TITLE_BYTES:
        return line
    return raw[: TITLE_BYTES - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def is_id(text: str) -> bool:
    return len(text) <= 255 and _ID.fullmatch(text) is not None


def check_id(bead_id: str) -> str:
    """The id, if it is a full one. Raises ConflictError: such a bead cannot exist."""
    if not is_id(bead_id):
        raise missing(bead_id if len(bead_id) < 80 else bead_id[:80] + CUT)
    return bead_id


def missing(bead_id: str) -> ConflictError:
    shown = bead_id if is_id(bead_id) else repr(bead_id)
    return ConflictError(f"there is no bead {shown}", fix="gtft runs list")


def check_actor(actor: str) -> str:
    """Raises ConflictError for a name that no bead can be assigned to."""
    if not actor.strip() or len(actor) > 255 or not actor.isprintable():
        raise ConflictError(
            f"{actor[:80]!r} is no name for an actor", fix="--as NAME, or set BD_ACTOR"
        )
    return actor


def check_label(label: str) -> str:
    if len(label) > 255 or not _LABEL.fullmatch(label):
        raise ConflictError(f"{label[:80]!r} is no label", why="letters, digits and _ : . / @ + -")
    return label


def check_note(text: str) -> str:
    tidy = tidy_text(text)
    if not tidy.strip():
        raise ConflictError("a note cannot be empty", fix="say what it is about")
    return tidy


def tidy_graph(beads: tuple[NewBead, ...]) -> tuple[NewBead, ...]:
    """The beads as a ledger can keep them. Raises ConflictError for the first that it cannot."""
    if len({b.key for b in beads}) != len(beads):
        raise ConflictError("two beads of one graph have the same key", fix="name each its own")
    return tuple(_tidy_bead(b) for b in beads)


def check_links(beads: tuple[NewBead, ...], known: Mapping[str, str]) -> None:
    """Parents and needs, as bd takes them: ``known`` is id → type of the beads outside the graph.

    Raises ConflictError when one is not there, when an epic and a task would block each other, when a
    child would wait for its parent, or when beads would wait in a circle.
    """
    types = {**known, **{b.key: b.type for b in beads}}
    for b in beads:
        for other in (*b.needs, *([b.parent] if b.parent else [])):
            if other not in types:
                raise missing(other)
        if b.parent is not None and types[b.parent] != "epic":
            raise ConflictError(f"{b.parent} cannot be a parent", why="it is not an epic")
        for other in b.needs:
            check_need(b.key, b.type, other, types[other])
            if other == b.parent:
                raise ConflictError(
                    f"{b.key} cannot need {other}", why="a child never waits for its parent"
                )
    waits = {b.key: b.needs for b in beads}
    for b in beads:
        if reaches(waits, b.needs, b.key):
            raise circle(b.key)


def check_need(bead: str, bead_type: str, blocker: str, blocker_type: str) -> None:
    """Raises ConflictError: bd lets a task wait for a task and an epic for an epic, nothing else."""
    if bead == blocker:
        raise circle(bead)
    if (bead_type == "epic") != (blocker_type == "epic"):
        raise ConflictError(
            f"{bead} cannot need {blocker}",
            why="an epic waits for epics only, and any other bead never for an epic",
        )


def circle(bead: str) -> ConflictError:
    return ConflictError(f"{bead} would wait for itself", why="the needs go in a circle")


def reaches(waits: Mapping[str, tuple[str, ...]], start: tuple[str, ...], goal: str) -> bool:
    """Does one who follows the needs from ``start`` come to ``goal``?"""
    todo, seen = list(start), set[str]()
    while todo:
        at = todo.pop()
        if at == goal:
            return True
        if at not in seen:
            seen.add(at)
            todo += waits.get(at, ())
    return False


def digest_graph(beads: tuple[NewBead, ...]) -> str:
    """The same beads give the same digest: sha256, as 12 base-36 characters."""
    text = json.dumps([asdict(b) for b in beads], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    out = ""
    for _ in range(12):
        number, digit = divmod(number, 36)
        out += _ALPHABET[digit]
    return out


def _tidy_bead(bead: NewBead) -> NewBead:
    title = tidy_title(bead.title)
    if not title:
        raise ConflictError(f"bead {bead.key} has no title", fix="give it one")
    if bead.type not in TYPES:
        raise ConflictError(f"bead {bead.key} has no type of bd", why=", ".join(TYPES))
    if not 0 <= bead.priority <= 4:
        raise ConflictError(f"bead {bead.key} has priority {bead.priority}", why="it goes 0 to 4")
    for key in bead.metadata:
        if not _METADATA_KEY.fullmatch(key):
            raise ConflictError(f"{key[:80]!r} is no metadata key", why="letters, digits, _ and .")
    return replace(
        bead,
        title=title,
        description=tidy_text(bead.description),
        acceptance=tidy_text(bead.acceptance),
        labels=tuple(sorted({check_label(x) for x in bead.labels})),
        metadata={k: tidy_text(v) for k, v in bead.metadata.items()},
        assignee=check_actor(bead.assignee) if bead.assignee else "",
    )
