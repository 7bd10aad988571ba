"""The training item, and the shapes that lead to it.

A source yields `Conversation`s (what one file says about one session, bead or formula); the segmenter
cuts them into `Example`s, one JSON object a line in ``train.jsonl`` and ``heldout.jsonl``.
What is made by the million is a msgspec Struct: frozen like a dataclass, and several times cheaper to make.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

Provenance = Literal["agent", "human", "synthetic", "own"]
Message = dict[str, Any]
EntryKind = Literal["user", "assistant", "result", "summary", "boundary"]
# "" is what the kind implies: user = human, assistant = agent, result = tool, summary = harness.
Author = Literal["", "human", "agent", "tool", "harness"]
# What became of a turn, where the file says so. A branch that was taken back is "rewound".
Mark = Literal["", "interrupted", "denied", "rewound"]


class Labels(msgspec.Struct, frozen=True):
    """Who spoke. ``rung`` names what decided ("none": nothing did), ``confidence`` how sure that is, 0 to 1."""

    role: str | None = None
    rig: str | None = None
    actor: str | None = None
    bead: str | None = None
    rung: str = "none"
    confidence: float = 0.0


class Evidence(msgspec.Struct, frozen=True):
    """What a file itself says about who spoke; the town's records are asked later (`gtft.corpus.linking.link`).

    ``candidates`` in the order of the cascade. ``parent`` is the session that started a sub-agent.
    ``started`` and ``ended``: ISO 8601 of the first and last record, "" when the file has none.
    """

    session: str | None = None
    parent: str | None = None
    candidates: tuple[Labels, ...] = ()
    started: str = ""
    ended: str = ""
    branch: str = ""


class Call(msgspec.Struct, frozen=True):
    id: str
    name: str
    arguments: dict[str, Any]


class Entry(msgspec.Struct, frozen=True):
    """One thing said in a session.

    ``response`` joins the pieces of one model answer; ``call_id`` joins a result with its call;
    ``line`` is 1-based. A ``boundary`` is a compaction: what follows starts from a summary.
    ``model`` is the name that the file gives for who answered.
    """

    kind: EntryKind
    line: int
    text: str = ""
    response: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""
    by: Author = ""
    model: str = ""
    mark: Mark = ""


class Conversation(msgspec.Struct, frozen=True):
    """What one file says about one session (or one bead, or one formula).

    ``links`` are the cluster keys that tie it to others, its own first. ``plain`` is prose for the
    base model (beads, formulas, docs; never transcripts). ``header`` is the first prompt, carried
    into later windows. ``contributor`` is who owns the work (an e-mail or a name), where the file says.
    """

    source: str
    file: str
    links: tuple[str, ...]
    entries: tuple[Entry, ...] = ()
    evidence: Evidence = Evidence()
    provenance: Provenance = "agent"
    header: str = ""
    plain: str = ""
    contributor: str = ""


@dataclass(frozen=True)
class Origin:
    """Where an example came from: relative path, first and last line, session, segment number."""

    file: str
    lines: tuple[int, int]
    session: str | None
    segment: int


@dataclass(frozen=True)
class Example:
    """One training item. ``by`` says for each message who wrote it: ``human``, ``agent:MODEL``, ``tool``,
    ``harness``, ``own:MODEL:GENERATION``. ``contributor`` is a keyed hash, ``started`` a date (YYYY-MM-DD)."""

    id: str
    source: str
    cluster: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    role: str | None
    rig: str | None
    bead: str | None
    weight: float
    provenance: Provenance
    origin: Origin
    actor: str | None = None
    outcome: str = ""
    by: tuple[str, ...] = ()
    started: str = ""
    contributor: str = ""

    def to_json(self) -> dict[str, Any]:
        """The line of ``train.jsonl`` (keys as documented in docs/corpus.md)."""
        return {
            "id": self.id,
            "source": self.source,
            "cluster": self.cluster,
            "messages": list(self.messages),
            "tools": list(self.tools),
            "role": self.role,
            "rig": self.rig,
            "actor": self.actor,
            "bead": self.bead,
            "outcome": self.outcome,
            "weight": self.weight,
            "provenance": self.provenance,
            "by": list(self.by),
            "started": self.started,
            "contributor": self.contributor,
            "origin": {
                "file": self.origin.file,
                "lines": list(self.origin.lines),
                "session": self.origin.session,
                "segment": self.origin.segment,
            },
        }

    @staticmethod
    def from_json(doc: dict[str, Any]) -> Example:
        """The inverse of `to_json`. Raises KeyError or TypeError on another shape."""
        o = doc["origin"]
        return Example(
            id=doc["id"],
            source=doc["source"],
            cluster=doc["cluster"],
            messages=tuple(doc["messages"]),
            tools=tuple(doc["tools"]),
            role=doc["role"],
            rig=doc["rig"],
            bead=doc["bead"],
            weight=float(doc["weight"]),
            provenance=doc["provenance"],
            origin=Origin(o["file"], (o["lines"][0], o["lines"][1]), o["session"], o["segment"]),
            # What a corpus of format 1 does not say.
            actor=doc.get("actor"),
            outcome=doc.get("outcome", ""),
            by=tuple(doc.get("by", ())),
            started=doc.get("started", ""),
            contributor=doc.get("contributor", ""),
        )

    def identified(self) -> Example:
        """The same example with the id that its content gives."""
        return replace(self, id=name_body(encode_body(self.messages, self.tools)))

    def map_labels(self, change: Callable[[str], str]) -> Example:
        """``change`` applied to everything that is said about the example, its messages left alone."""

        def maybe(value: str | None) -> str | None:
            return None if value is None else change(value)

        # The same few names stand beside every message.
        names = {b: change(b) for b in set(self.by)}
        return replace(
            self,
            by=tuple([names[b] for b in self.by]),
            cluster=change(self.cluster),
            role=maybe(self.role),
            rig=maybe(self.rig),
            actor=maybe(self.actor),
            bead=maybe(self.bead),
            origin=replace(
                self.origin, file=change(self.origin.file), session=maybe(self.origin.session)
            ),
        )


def encode_body(messages: Sequence[Message], tools: Sequence[Message]) -> bytes:
    """What an example says, as JSON with sorted keys: the part of it that its id is made of."""
    return msgspec.json.encode({"messages": messages, "tools": tools}, order="sorted")


def name_body(body: bytes) -> str:
    """``ex-`` and 16 hex digits of the sha256 of an encoded body."""
    return "ex-" + hashlib.sha256(body).hexdigest()[:16]


def map_tree(value: Any, change: Callable[[str], str]) -> Any:
    """``change`` applied to every string of a JSON value, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_tree(v, change) for v in value]
    if isinstance(value, dict):
        return {change(k): map_tree(v, change) for k, v in value.items()}
    return value


def count_characters(message: Message) -> int:
    """The length of a message as a model sees it, in characters, its call arguments included."""
    calls = message.get("tool_calls") or []
    return len(message["content"]) + sum([len(msgspec.json.encode(c["function"])) for c in calls])
