"""What one corpus holds of an example, a session or a bead, line by line and never loaded whole."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gtft.artifact import Artifact
from gtft.corpus.files import name_source
from gtft.corpus.governance.row import SIDES, Listed
from gtft.corpus.governance.withdrawal import Withdrawals
from gtft.errors import EvidenceError, UsageError
from gtft.shelf import read_document

# As many are shown; all are counted.
MOST_SHOWN = 20
_ID = re.compile(r"(?:ex-)?[0-9a-f]{2,16}")
_SHORTEST_SESSION = 8
_PLACEHOLDER = re.compile(rb"<SECRET:([a-z0-9_]+):[0-9a-f]{8}>")


@dataclass(frozen=True)
class Found:
    """An example in the corpus. ``redacted``: placeholders in it by type; ``withdrawn``: "" or by what; ``consent``:
    why it could be used, as the harvest recorded it; ``licence``: of its source."""

    side: str
    example: Listed
    redacted: dict[str, int]
    withdrawn: str
    consent: str
    licence: str


@dataclass
class Held:
    """``counts`` by side, of all; ``withdrawn`` of them; ``examples``: the first MOST_SHOWN."""

    counts: Counter[str] = field(default_factory=Counter)
    withdrawn: int = 0
    examples: list[Found] = field(default_factory=list)


def find_held(corpus: Artifact, who: str, register: Withdrawals) -> Held:
    """Examples whose id or session begins with ``who``, or that are of that bead or one below it.

    Raises UsageError for what can be none of these, EvidenceError when the corpus cannot be read.
    """
    if len(who) < 2 or not who.isprintable() or len(who) > 255:
        raise UsageError(
            f"{who[:40]!r} is no example, session or bead",
            why="an example's id is ex- and 16 hex digits",
            fix="gtft corpus preview shows ids",
        )
    manifest = read_document(corpus, "manifest.json")
    held = Held()
    decoder = msgspec.json.Decoder(Listed)
    for side, name in SIDES.items():
        path = corpus.file(name)
        try:
            with path.open("rb") as f:
                for line in f:
                    e = decoder.decode(line)
                    if not _is_meant(e, who):
                        continue
                    withdrawn = register.covers(e.row())
                    held.counts[side] += 1
                    held.withdrawn += bool(withdrawn)
                    if len(held.examples) < MOST_SHOWN:
                        held.examples.append(_describe(side, e, line, withdrawn, manifest))
        except (OSError, msgspec.MsgspecError, RecursionError) as e:
            raise EvidenceError(f"{path} cannot be read", why=str(e), fix="gtft doctor") from e
    return held


def _is_meant(e: Listed, who: str) -> bool:
    if _ID.fullmatch(who) and e.id.startswith(who if who.startswith("ex-") else f"ex-{who}"):
        return True
    sessions = (e.origin.session or "", e.cluster.removeprefix("session:"))
    if who in sessions or (
        len(who) >= _SHORTEST_SESSION and any(s.startswith(who) for s in sessions)
    ):
        return True
    beads = (e.bead or "", e.cluster.removeprefix("bead:"))
    return any(b == who or b.startswith(f"{who}.") for b in beads)


def _describe(side: str, e: Listed, line: bytes, withdrawn: str, manifest: dict[str, Any]) -> Found:
    kinds = Counter(m.decode() for m in _PLACEHOLDER.findall(line))
    return Found(
        side=side,
        example=e,
        redacted=dict(sorted(kinds.items())),
        withdrawn=withdrawn,
        consent=_find_consent(e, manifest),
        licence=_find_licence(e, manifest),
    )


def _find_consent(e: Listed, manifest: dict[str, Any]) -> str:
    if not e.rig:
        return "it names no rig: the town's own"
    rows = manifest.get("consent") or []
    why = next((str(r.get("why")) for r in rows if r.get("rig") == e.rig), "")
    return why or "not recorded"


def _find_licence(e: Listed, manifest: dict[str, Any]) -> str:
    """Of the source whose path the file begins with; of its only source of that type otherwise."""
    sources = (manifest.get("harvest") or {}).get("sources") or []
    of_type = [s for s in sources if s.get("type") in (e.source, "auto")]
    near = [s for s in of_type if e.origin.file.startswith(name_source(str(s.get("path"))))]
    found = near or of_type
    licences = {str(s.get("licence")) for s in found}
    return licences.pop() if len(licences) == 1 else "not recorded"
