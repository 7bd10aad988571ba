"""Bead exports in every shape they have had: one example per bead that says what it is about.

JSON lines of every generation, the side files of a backup, what ``bd … --json`` prints, old SQLite
databases. Rows are known by their keys, not by the file's name. A bead that several files hold is taken once,
from the row that was updated last; labels, comments and dependencies join it wherever they stand.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation, Entry, Evidence, Labels, Provenance
from gtft.corpus.files import InputFile, read_head
from gtft.corpus.jsonl import LONGEST_LINE, Row, parse_object, read_rows
from gtft.corpus.linking.link import parse_actor
from gtft.corpus.sources.block import name_kind, note_drift
from gtft.corpus.sources.block import read_text as _text
from gtft.corpus.sources.database import BROKEN, DATABASE, name_error, open_database
from gtft.corpus.tally import Tally

_REAL_TYPES = frozenset({"task", "bug", "feature", "epic", "chore", "decision", "spike", "story"})
_LEAST_DESCRIPTION = 40
_LEAST_REASON = 20
_LONGEST_BODY = 400
_MEMORY = "kv.memory."
_TABLES = (
    "SELECT * FROM issues ORDER BY id",
    "SELECT * FROM labels ORDER BY issue_id, label",
    "SELECT * FROM comments ORDER BY issue_id, id",
    "SELECT * FROM dependencies ORDER BY issue_id, depends_on_id",
)
_SHAPES: tuple[tuple[str, frozenset[str]], ...] = (
    ("event", frozenset({"issue_id", "event_type"})),
    ("dependency", frozenset({"issue_id", "depends_on_id"})),
    ("label", frozenset({"issue_id", "label"})),
    ("comment", frozenset({"issue_id", "text"})),
    ("interaction", frozenset({"id", "kind"})),
    ("deletion", frozenset({"id", "deleted_at", "deleted_by"})),
    ("config", frozenset({"key", "value"})),
)
_NOISE_LABELS = ("gt:message", "gt:agent", "gt:role", "gt:rig", "gt:wisp", "gt:digest")
_NOISE_TITLE = (
    ("digest", re.compile(r"^(digest|patrol digest|.* digest:)", re.I)),
    ("heartbeat", re.compile(r"^heartbeat", re.I)),
    ("molecule", re.compile(r"^mol-")),
    ("flag as title", re.compile(r"^-")),
    ("patrol report", re.compile(r"^(plugin run|compactor dog|session ended|handoff|🤝)", re.I)),
)
# Reasons that a program wrote when it tidied up.
_HOUSEKEEPING = ("squashed from", "burned", "stale:", "closed", "done", "completed")
# Lines that sling writes above a description (any case; "_", "-" or nothing between the words).
_ATTACHMENT = re.compile(
    r"^(attached[_-]?(molecule|formula|at|args|vars)|dispatched[_-]?by|no[_-]?merge|review[_-]?only"
    r"|mode|convoy([_-]?(id|owned))?|merge[_-]?strategy|formula[_-]?vars)\s*:",
    re.I,
)


@dataclass
class _Index:
    """What all files together say. ``newest``: which row of a bead counts; ``above``: its epics and convoys."""

    newest: dict[str, tuple[datetime, int, int, int]] = field(default_factory=dict)
    labels: dict[str, set[str]] = field(default_factory=dict)
    comments: dict[str, list[str]] = field(default_factory=dict)
    above: dict[str, set[str]] = field(default_factory=dict)


def read(files: Sequence[InputFile], tally: Tally, _: Claims) -> Iterator[Conversation]:
    """One conversation per informative bead, and one of prose alone per memory.

    Tables: ``records`` (shape), ``dropped``, ``kept``, ``drift``.
    """
    index = _build_index(files)
    memories: set[str] = set()
    for number, file in enumerate(files):
        for row in list_rows(file, tally):
            shape = _tell_shape(row.value)
            tally.add("records", shape)
            if shape == "unknown":
                note_drift("row", row.value, file, row.line, tally)
            found = _take(row, number, shape, index, memories, file)
            if isinstance(found, str):
                tally.add("dropped", found)
            else:
                tally.add("kept", shape)
                yield from found


def list_rows(file: InputFile, tally: Tally) -> Iterator[Row]:
    """The rows of a file of any shape. Envelopes (``{"schema_version", "data"}``) and arrays are opened.

    Tables and errors as `read_rows`.
    """
    head = read_head(file, 4096)
    if head.startswith(DATABASE):
        yield from _read_tables(file, tally)
        return
    text = head.replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf \t\r\n")
    first, newline, _ = text.partition(b"\n")
    if text[:1] == b"[" or (newline and first.strip() == b"{"):
        yield from _read_array(file, tally)
        return
    for row in read_rows(file, tally):
        inner = row.value.get("data", row.value.get("issues"))
        if isinstance(inner, list) and "id" not in row.value:
            for order, value in enumerate(inner):
                if isinstance(value, dict):
                    yield Row(row.line, row.order * 1_000_000 + order, value)
        else:
            yield row


def _read_array(file: InputFile, tally: Tally) -> Iterator[Row]:
    """One document: an array of beads, or an object that holds one, or a lone bead. A torn one is named."""
    raw = read_head(file, LONGEST_LINE + 1)
    if len(raw) > LONGEST_LINE:
        tally.name("document too long", file.name, 1)
        return
    text = raw.replace(b"\x00", b"").decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    at = _enter(text)
    order = 0
    while (at := _OPENING.match(text, at).end()) < len(text) and text[at] == "{":  # type: ignore[union-attr]
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            tally.name("document torn", file.name, text.count("\n", 0, at) + 1)
            tally.add("lines", "lost characters", len(text) - at)
            return
        value = parse_object(text[at:end])
        if value is None:
            tally.name("nested too deep", file.name, order + 1)
        else:
            yield Row(order + 1, order, value)
        order += 1
        at = end


_DECODER = json.JSONDecoder()
_OPENING = re.compile(r"[\s,]*")
_ENVELOPE = re.compile(
    r'\{(?:\s*"[\w-]{1,40}"\s*:\s*(?:"[^"\\]{0,200}"|-?\d{1,20}|true|false|null)\s*,){0,8}'
    r'\s*"(?:data|issues)"\s*:\s*\[?'
)


def _enter(text: str) -> int:
    """Where the first bead may start: behind the bracket of the array, or of the object around it."""
    if text[:1] == "[":
        return 1
    found = _ENVELOPE.match(text)
    return found.end() if found else 0


def _read_tables(file: InputFile, tally: Tally) -> Iterator[Row]:
    """The tables of an old database, in the order of their keys; each row as an export would have it."""
    db = open_database(file, ("issues",), tally)
    if db is None:
        return
    order = 0
    with closing(db):
        for query in _TABLES:
            try:
                for found in db.execute(query):
                    yield Row(order + 1, order, dict(found))
                    order += 1
            except BROKEN as e:
                # The oldest ones have no comments.
                name_error(e, file, tally)


def _build_index(files: Sequence[InputFile]) -> _Index:
    index = _Index()
    for number, file in enumerate(files):
        for row in list_rows(file, Tally()):
            r = row.value
            shape = _tell_shape(r)
            if shape == "bead":
                key = r["id"]
                index.newest[key] = max(
                    _rank(row, number), index.newest.get(key, _rank(row, number))
                )
                for edge in _list_objects(r.get("dependencies")):
                    _note_edge(edge, index)
            elif shape == "label" and isinstance(r["label"], str):
                index.labels.setdefault(_text(r["issue_id"]), set()).add(r["label"])
            elif shape == "comment" and _text(r["text"]).strip():
                index.comments.setdefault(_text(r["issue_id"]), []).append(r["text"].strip())
            elif shape == "dependency":
                _note_edge(r, index)
    return index


def _rank(row: Row, number: int) -> tuple[datetime, int, int, int]:
    """The newest row counts, of equal ones the one that says most, then the first."""
    said = sum(1 for v in row.value.values() if v)
    return (_parse_time(row.value.get("updated_at")), said, -number, -row.order)


def _note_edge(edge: dict[str, Any], index: _Index) -> None:
    """A child stands below its epic, a tracked bead below its convoy."""
    low, high = _text(edge.get("issue_id")), _text(edge.get("depends_on_id"))
    kind = edge.get("type", edge.get("dependency_type"))
    if kind == "tracks":
        low, high = high, low
    if low and high and kind in ("parent-child", "child", "tracks"):
        index.above.setdefault(low, set()).add(high)


def _take(
    row: Row, number: int, shape: str, index: _Index, memories: set[str], file: InputFile
) -> list[Conversation] | str:
    """What a row gives by itself, or the reason why it is left out. Rows that join a bead give nothing."""
    r = row.value
    if shape in ("label", "comment", "dependency"):
        return [] if _text(r["issue_id"]) in index.newest else f"{shape} of a bead that is not here"
    if shape == "memory" or (shape == "config" and _text(r["key"]).startswith(_MEMORY)):
        return _take_memory(r, memories, file)
    if shape != "bead":
        return f"{shape} row"
    if index.newest.get(r["id"]) != _rank(row, number):
        return "older version"
    labels = {x for x in _list_any(r.get("labels")) if isinstance(x, str)}
    labels |= index.labels.get(r["id"], set())
    reason = _judge(r, labels)
    return reason or [_convert(row, sorted(labels), index, file)]


def _take_memory(
    r: dict[str, Any], memories: set[str], file: InputFile
) -> list[Conversation] | str:
    """What an agent was told to remember: prose."""
    text = _text(r.get("value")).strip()
    key = _text(r.get("key")).removeprefix(_MEMORY)
    if len(text) < _LEAST_DESCRIPTION:
        return "memory too short"
    if text in memories:
        return "copy of another memory"
    memories.add(text)
    return [Conversation("beads", file.name, (f"memory:{key}",), plain=text)]


def _tell_shape(r: dict[str, Any]) -> str:
    """What table a row is from, by its keys."""
    if r.get("_type") == "memory":
        return "memory"
    if isinstance(r.get("id"), str) and isinstance(r.get("title"), str):
        return "bead"
    return next((name for name, needed in _SHAPES if needed <= r.keys()), "unknown")


def _judge(r: dict[str, Any], labels: set[str]) -> str:
    """Why a bead is noise for training; empty when it is not."""
    title = r["title"].strip()
    kind = r.get("issue_type") or "task"
    if r.get("status") == "tombstone":
        return "tombstone"
    if r.get("ephemeral") or r.get("wisp") or r.get("wisp_type") or "-wisp-" in r["id"]:
        return "wisp"
    if r.get("is_template"):
        return "template"
    if not isinstance(kind, str) or kind not in _REAL_TYPES:
        return f"type {name_kind(kind)}"
    if any(x.startswith(_NOISE_LABELS) for x in labels):
        return "infrastructure label"
    for reason, pattern in _NOISE_TITLE:
        if pattern.search(title):
            return reason
    if not title:
        return "no title"
    if len(strip_attachments(_text(r.get("description")))) < _LEAST_DESCRIPTION:
        return "description too short"
    return ""


def strip_attachments(description: str) -> str:
    """A description without the lines that sling wrote above it."""
    lines = description.splitlines()
    while lines and (not lines[0].strip() or _ATTACHMENT.match(lines[0].strip())):
        lines.pop(0)
    return "\n".join(lines).strip()


def _convert(row: Row, names: list[str], index: _Index, file: InputFile) -> Conversation:
    r = row.value
    description = strip_attachments(_text(r.get("description")))
    title = " ".join(r["title"].split())
    labels, author = _link(r, names)
    session = _text(r.get("closed_by_session"))
    contributor = _text(r.get("owner")) or (_text(r.get("created_by")) if author == "human" else "")
    return Conversation(
        source="beads",
        file=file.name,
        links=(
            f"bead:{r['id']}",
            *(f"bead:{x}" for x in sorted(index.above.get(r["id"], ()))),
            *((f"session:{session}",) if session else ()),
        ),
        entries=(
            Entry("user", row.line, text=f"File a bead for this.\n\n{description}"),
            Entry(
                "assistant",
                row.line,
                text=f"```bash\n{write_create(r, title, description, names)}\n```",
                response=r["id"],
            ),
        ),
        evidence=Evidence(
            candidates=(labels,),
            started=_write_time(r.get("created_at")),
            ended=_write_time(r.get("updated_at")),
        ),
        provenance=author,
        plain=_write_prose(r, title, description, index.comments.get(r["id"], [])),
        contributor=contributor,
    )


def _write_prose(r: dict[str, Any], title: str, description: str, comments: list[str]) -> str:
    """All that was written about a bead, in the order in which it is read."""
    said = [title, description]
    for key, name in (
        ("design", "Design"),
        ("acceptance_criteria", "Acceptance"),
        ("notes", "Notes"),
    ):
        if text := _text(r.get(key)).strip():
            said.append(f"{name}: {text}")
    inner = [_text(c.get("text")).strip() for c in _list_objects(r.get("comments"))]
    said += [f"Comment: {text}" for text in dict.fromkeys([*inner, *comments]) if text]
    reason = _text(r.get("close_reason")).strip()
    if len(reason) >= _LEAST_REASON and not reason.lower().startswith(_HOUSEKEEPING):
        said.append(f"Closed: {reason}")
    return "\n".join(said)


def write_create(r: dict[str, Any], title: str, description: str, names: Sequence[str]) -> str:
    """The ``bd create`` line for a bead: title, type, priority, labels and a short body."""
    kind = r.get("issue_type") or "task"
    priority = r.get("priority")
    words = ["bd create", f"--title={_quote(title)}", "-t", str(kind)]
    if isinstance(priority, int) and not isinstance(priority, bool) and 0 <= priority <= 4:
        words += ["-p", str(priority)]
    if names:
        words += ["-l", shlex.quote(",".join(names))]
    body = description.split("\n\n")[0].strip()
    if body and "\n" not in body and len(body) <= _LONGEST_BODY:
        words.append(f"--description={_quote(body)}")
    return " ".join(words)


def _quote(text: str) -> str:
    """As people write it: double quotes, unless the shell would read something into them."""
    return shlex.quote(text) if re.search(r'["\\$`!]', text) else f'"{text}"'


def _link(r: dict[str, Any], names: Sequence[str]) -> tuple[Labels, Provenance]:
    """Role and rig of who filed it. A name that is no town address is a person's."""
    creator = _text(r.get("created_by")).strip()
    actor = parse_actor(creator) if creator else None
    rig = next((x.removeprefix("rig:") for x in names if x.startswith("rig:")), "")
    rig = rig or _text(r.get("rig")) or (actor.rig or "" if actor else "")
    labels = Labels(
        role=actor.role if actor else None,
        rig=rig or None,
        actor=actor.actor if actor else None,
        bead=r["id"],
        rung="bead" if actor or rig else "none",
        confidence=0.95 if actor or rig else 0.0,
    )
    return labels, "human" if creator and actor is None and "/" not in creator else "agent"


def _parse_time(value: Any) -> datetime:
    """A time in UTC; the year 1 when it is absent or unreadable."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", _text(value)[:60])
    for part in (text, text[:19]):
        try:
            when = datetime.fromisoformat(part)
            return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            continue
    return datetime.min.replace(tzinfo=UTC)


def _write_time(value: Any) -> str:
    when = _parse_time(value)
    return when.isoformat() if when.year > 1970 else ""


def _list_any(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _list_objects(value: Any) -> list[dict[str, Any]]:
    return [x for x in _list_any(value) if isinstance(x, dict)]
