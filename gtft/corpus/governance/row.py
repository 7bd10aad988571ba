"""An example without its text: what consent, selection, withdrawals and comparisons look at."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import msgspec

from gtft.artifact import Artifact
from gtft.corpus.example import Example
from gtft.errors import EvidenceError


class Row(msgspec.Struct, frozen=True):
    """Whose an example is and what it is about. ``labels`` are those of its bead, ``parent`` the session
    that started a sub-agent, ``links`` the cluster keys that it is tied to, ``started`` a date (YYYY-MM-DD); "" or None is what is not known."""

    source: str = ""
    role: str | None = None
    rig: str | None = None
    actor: str | None = None
    bead: str | None = None
    session: str | None = None
    parent: str | None = None
    cluster: str = ""
    outcome: str = ""
    started: str = ""
    contributor: str = ""
    labels: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


def hash_contributor(key: bytes, who: str) -> str:
    """16 hex digits of HMAC-SHA256 of an e-mail or name; "" for nobody. Equal people stay equal, and
    nobody is guessed without the key."""
    text = who.strip().lower().encode("utf-8", "surrogatepass")
    return hmac.new(key, b"contributor:" + text, hashlib.sha256).hexdigest()[:16] if text else ""


class Place(msgspec.Struct, frozen=True):
    """`Origin`, as a line of a corpus has it."""

    file: str
    lines: tuple[int, int]
    session: str | None
    segment: int


class Listed(msgspec.Struct, frozen=True):
    """A line of ``train.jsonl`` or ``heldout.jsonl``; its messages are skipped, not built."""

    id: str
    source: str
    cluster: str
    origin: Place
    weight: float = 1.0
    role: str | None = None
    rig: str | None = None
    bead: str | None = None
    actor: str | None = None
    provenance: str = ""
    outcome: str = ""
    started: str = ""
    contributor: str = ""

    def row(self) -> Row:
        return Row(
            source=self.source,
            role=self.role,
            rig=self.rig,
            actor=self.actor,
            bead=self.bead,
            session=self.origin.session,
            cluster=self.cluster,
            outcome=self.outcome,
            started=self.started,
            contributor=self.contributor,
        )


def describe(e: Example) -> Row:
    """The row of a whole example."""
    return Row(
        source=e.source,
        role=e.role,
        rig=e.rig,
        actor=e.actor,
        bead=e.bead,
        session=e.origin.session,
        cluster=e.cluster,
        outcome=e.outcome,
        started=e.started,
        contributor=e.contributor,
    )


SIDES = {"train": "train.jsonl", "heldout": "heldout.jsonl"}


def read_listed(corpus: Artifact, side: str) -> Iterator[Listed]:
    """The examples of one side, one by one. Raises EvidenceError when the file cannot be read."""
    path = corpus.file(SIDES[side])
    decoder = msgspec.json.Decoder(Listed)
    try:
        with path.open("rb") as f:
            for line in f:
                yield decoder.decode(line)
    except (OSError, msgspec.MsgspecError, RecursionError) as e:
        raise EvidenceError(f"{path} cannot be read", why=str(e), fix="gtft doctor") from e
