"""An example on its way into the corpus: light, its body stays on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from gtft.corpus.example import Example, Origin, Provenance
from gtft.corpus.governance.row import Row
from gtft.corpus.shard import Bodies, Piece, Talk


class Draft(msgspec.Struct):
    """What is decided about one example. ``path``, ``at`` and ``size`` say where its body is.

    ``unit`` and ``place`` are its shard and its place in it. ``words``, ``sketch`` and ``masked`` are set
    when its text was changed after it was read. ``link`` is its conversation's cluster key.
    """

    unit: int
    place: int
    path: Path
    talk: Talk
    piece: Piece
    id: str
    at: int
    size: int
    row: Row
    link: str
    provenance: Provenance
    weight: float
    cluster: str = ""
    changed: Features | None = None

    @property
    def answers(self) -> bytes:
        """A digest of what it teaches."""
        return self.piece.answers if self.changed is None else self.changed.answers

    @property
    def masked(self) -> bytes:
        """A digest of its words with numbers and ids masked."""
        return self.piece.masked if self.changed is None else self.changed.masked

    def read_body(self, bodies: Bodies) -> dict[str, Any]:
        """``messages`` and ``tools``."""
        found: dict[str, Any] = msgspec.json.decode(bodies.read(self.path, self.at, self.size))
        return found

    def build(self, body: dict[str, Any], by: tuple[str, ...]) -> Example:
        """The example as it stands in the corpus, but for the redaction of its labels."""
        row = self.row
        return Example(
            id=self.id,
            source=row.source,
            cluster=self.cluster,
            messages=tuple(body["messages"]),
            tools=tuple(body["tools"]),
            role=row.role,
            rig=row.rig,
            bead=row.bead,
            weight=self.weight,
            provenance=self.provenance,
            origin=Origin(self.talk.file, self.piece.lines, row.session, self.piece.number),
            actor=row.actor,
            outcome=row.outcome,
            by=by,
            started=row.started,
            contributor=row.contributor,
        )


class Features(msgspec.Struct, frozen=True):
    """What is computed from a text."""

    words: npt.NDArray[np.uint64]
    sketch: npt.NDArray[np.uint32]
    masked: bytes
    answers: bytes


class Block(msgspec.Struct):
    """What goes into a corpus beside its examples, encoded: a text for the base model (JSON string), or a
    preference row (JSON object). ``link`` is its conversation's cluster key, ``why`` the pair's reason."""

    kind: Literal["prose", "pair"]
    link: str
    body: bytes
    row: Row
    why: str = ""
    place: Origin | None = None

    def read(self) -> Any:
        return msgspec.json.decode(self.body)
