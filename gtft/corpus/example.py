"""The training item, and the shapes that lead to it.

A source yields `Conversation`s (what one file says about one session, bead or formula); the segmenter
cuts them into `Example`s, one JSON object a line in ``train.jsonl`` and ``heldout.jsonl``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from gtft.artifact import canonical_json

Provenance = Literal["agent", "human", "synthetic"]
Message = dict[str, Any]
EntryKind = Literal["user", "assistant", "result", "summary", "boundary"]


@dataclass(frozen=True)
class Labels:
    """Who spoke, as far as the file says. ``rung`` names what decided; "none" when nothing did."""

    role: str | None = None
    rig: str | None = None
    actor: str | None = None
    bead: str | None = None
    rung: str = "none"


@dataclass(frozen=True)
class Call:
    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One thing said in a session.

    ``response`` joins the pieces of one model answer; ``call_id`` joins a result with its call;
    ``line`` is 1-based. A ``boundary`` is a compaction: what follows starts from a summary.
    """

    kind: EntryKind
    line: int
    text: str = ""
    response: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""


@dataclass(frozen=True)
class Conversation:
    """What one file says about one session (or one bead, or one formula).

    ``links`` are the cluster keys that tie it to others, its own first. ``plain`` is prose for the
    base model (beads, formulas, docs; never transcripts). ``header`` is the first prompt, carried
    into later windows.
    """

    source: str
    file: str
    links: tuple[str, ...]
    entries: tuple[Entry, ...] = ()
    labels: Labels = Labels()
    provenance: Provenance = "agent"
    session: str | None = None
    header: str = ""
    plain: str = ""


@dataclass(frozen=True)
class Origin:
    """Where an example came from: relative path, first and last line, session, segment number."""

    file: str
    lines: tuple[int, int]
    session: str | None
    segment: int


@dataclass(frozen=True)
class Example:
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
            "bead": self.bead,
            "weight": self.weight,
            "provenance": self.provenance,
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
        )

    def identified(self) -> Example:
        """The same example with the id that its content gives."""
        return replace(self, id=make_id(self.messages, self.tools))

    def map_strings(self, change: Callable[[str], str]) -> Example:
        """``change`` applied to every string that people or agents wrote; the id is made anew."""

        def maybe(value: str | None) -> str | None:
            return None if value is None else change(value)

        return replace(
            self,
            cluster=change(self.cluster),
            messages=tuple(map_tree(m, change) for m in self.messages),
            tools=tuple(map_tree(t, change) for t in self.tools),
            role=maybe(self.role),
            rig=maybe(self.rig),
            bead=maybe(self.bead),
            origin=replace(
                self.origin, file=change(self.origin.file), session=maybe(self.origin.session)
            ),
        ).identified()


def make_id(messages: tuple[Message, ...], tools: tuple[dict[str, Any], ...]) -> str:
    """``ex-`` and 16 hex digits of the sha256 of the canonical messages and tools."""
    text = canonical_json({"messages": list(messages), "tools": list(tools)})
    return "ex-" + hashlib.sha256(text.encode()).hexdigest()[:16]


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
    return len(message["content"]) + sum(len(canonical_json(c["function"])) for c in calls)
