"""opencode: the database ``~/.local/share/opencode/opencode.db``, and the older folders of small files.

Older: ``storage/{session/<project>,message/<session>,part/<message>}/*.json``, known by their keys.
What each field means: docs/corpus.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from gtft.corpus.claims import Claims
from gtft.corpus.example import Call, Conversation, Entry, Mark
from gtft.corpus.files import InputFile, read_head
from gtft.corpus.jsonl import decode_objects, read_document
from gtft.corpus.sources.block import (
    name_kind,
    note_drift,
    read_arguments,
    read_object,
    read_text,
    write_placeholder,
)
from gtft.corpus.sources.clues import Clues, judge_author
from gtft.corpus.sources.database import BROKEN, DATABASE, name_error, open_database
from gtft.corpus.tally import Tally

_TABLES = ("session", "message", "part")
_ASIDE = frozenset({"step-finish", "snapshot", "patch", "agent", "retry", "subtask"})
# What else stands in the folder: it says nothing, and one of it holds keys.
_SIDE_FILES = frozenset(
    {"session_diff", "session_share", "todo", "project", "permission", "auth.json", "mcp-auth.json"}
)
_DENIED = ("The user rejected permission", "The user has rejected permission")
_DONE = frozenset({"completed", "success"})

_HOMELESS = (
    "SELECT DISTINCT session_id FROM message WHERE session_id NOT IN (SELECT id FROM session)"
    " ORDER BY session_id"
)
_LOOSE = "SELECT id FROM part WHERE message_id NOT IN (SELECT id FROM message)"

Key = tuple[int, str]


@dataclass
class _Open:
    """One session while it is read; ``file`` is where its messages stand."""

    clues: Clues
    file: InputFile
    entries: list[Entry] = field(default_factory=list)
    header: str = ""
    step: int = 0


@dataclass
class _Index:
    """The older folders: which file holds what, by id, in the order of their times."""

    sessions: dict[str, InputFile] = field(default_factory=dict)
    messages: dict[str, list[tuple[Key, InputFile]]] = field(default_factory=dict)
    parts: dict[str, list[tuple[str, InputFile]]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)


def read(files: Sequence[InputFile], tally: Tally, claims: Claims) -> Iterator[Conversation]:
    """The sessions of databases, in the order of the files, then those of the older folders.

    Tables: ``records`` (kind of row), ``dropped`` (reason, in rows), ``kept``, ``blocks``, ``models``,
    ``drift``. A line of an entry is the number of its message in the session.
    """
    done: set[str] = set()
    loose: list[InputFile] = []
    for file in files:
        if _is_database(file):
            for s in _read_database(file, done, tally):
                yield from _finish(s)
        else:
            loose.append(file)
    for s in _read_folders(loose, done, tally):
        yield from _finish(s)


def _finish(s: _Open) -> Iterator[Conversation]:
    if s.entries:
        evidence = s.clues.write_evidence()
        yield Conversation(
            source="opencode",
            file=s.file.name,
            links=s.clues.list_links(evidence),
            entries=tuple(s.entries),
            evidence=evidence,
            header=s.header,
        )


def _is_database(file: InputFile) -> bool:
    return read_head(file, len(DATABASE)) == DATABASE


def _read_database(file: InputFile, done: set[str], tally: Tally) -> Iterator[_Open]:
    """Session by session. What is wrong with the database is named; what can be read of it stays."""
    db = open_database(file, _TABLES, tally)
    if db is None:
        return
    with closing(db):
        try:
            for row in db.execute("SELECT * FROM session ORDER BY time_created, id"):
                tally.add("records", "session")
                tally.add("dropped", "session header")
                if s := _open_session(dict(row), file, done):
                    _read_messages(db, s, tally)
                    yield s
                else:
                    tally.add("sessions", "read before")
            for row in db.execute(_HOMELESS):
                if s := _open_session({"id": row["session_id"]}, file, done):
                    _read_messages(db, s, tally)
                    yield s
            for _ in db.execute(_LOOSE):
                tally.add("records", "part")
                tally.add("dropped", "part without a message")
        except BROKEN as e:
            name_error(e, file, tally)


def _open_session(row: dict[str, Any], file: InputFile, done: set[str]) -> _Open | None:
    session = read_text(row.get("id"))
    if not session or session in done:
        return None
    done.add(session)
    parent = read_text(row.get("parent_id")) or read_text(row.get("parentID"))
    return _Open(Clues(session, parent, read_text(row.get("directory")) or None), file)


def _read_messages(db: sqlite3.Connection, s: _Open, tally: Tally) -> None:
    query = "SELECT id, data FROM message WHERE session_id = ? ORDER BY time_created, id"
    inner = "SELECT data FROM part WHERE message_id = ? ORDER BY id"
    try:
        for number, row in enumerate(db.execute(query, (s.clues.session,)), start=1):
            columns = [part["data"] for part in db.execute(inner, (row["id"],))]
            said = _decode(row["data"], s.file, number, tally)
            parts = [_decode(data, s.file, number, tally) for data in columns]
            tally.add("records", f"message {read_text(said.get('role'))}".strip())
            _take(s, read_text(row["id"]), said, parts, number, tally)
    except BROKEN as e:
        name_error(e, s.file, tally)


def _decode(data: Any, file: InputFile, line: int, tally: Tally) -> dict[str, Any]:
    """The object in a column. A torn one is named, and what follows in it is not another."""
    if not isinstance(data, str):
        tally.name("column is no text", file.name, line)
        return {}
    return next(decode_objects(data, file, line, tally), {})


def _read_folders(files: Sequence[InputFile], done: set[str], tally: Tally) -> Iterator[_Open]:
    index = _index(files, tally)
    for session in [*index.sessions, *(m for m in index.messages if m not in index.sessions)]:
        if session in done:
            messages_too = len(index.messages.get(session, ()))
            tally.add("records", "message", messages_too)
            tally.add("dropped", "session of the database too", messages_too)
            continue
        messages = sorted(index.messages.get(session, ()), key=lambda m: (m[0], m[1].name))
        home = index.sessions.get(session) or messages[0][1]
        row = _load(home) if session in index.sessions else {"id": session}
        if not (s := _open_session({**row, "id": session}, home, done)):
            continue
        for number, (_, file) in enumerate(messages, start=1):
            said = _load(file)
            key = read_text(said.get("id")) or file.path.stem
            tally.add("records", f"message {read_text(said.get('role'))}".strip())
            parts = [_load(f) for _, f in sorted(index.parts.get(key, ()), key=lambda p: p[0])]
            _take(s, key, said, parts, number, tally)
        yield s


def _index(files: Sequence[InputFile], tally: Tally) -> _Index:
    """Every file is told by its keys; a part may say its message by its folder alone."""
    index = _Index()
    for file in files:
        if _SIDE_FILES.intersection(file.path.parts[-3:]):
            tally.add("records", "side file")
            tally.add("dropped", "side file")
            continue
        value = next((row.value for row in read_document(file, tally)), None)
        if value is None:
            continue
        key = read_text(value.get("id")) or file.path.stem
        folder = file.path.parent.name
        if isinstance(value.get("role"), str):
            created = read_object(value.get("time")).get("created")
            time = created if isinstance(created, int) else 0
            session = read_text(value.get("sessionID")) or folder
            index.messages.setdefault(session, []).append(((time, key), file))
            index.known.add(key)
        elif "directory" in value or "projectID" in value:
            tally.add("records", "session")
            tally.add("dropped", "session header")
            index.sessions.setdefault(key, file)
        elif isinstance(value.get("type"), str):
            message = read_text(value.get("messageID")) or folder
            index.parts.setdefault(message, []).append((file.path.stem, file))
        else:
            tally.add("records", "unknown")
            tally.add("dropped", "unknown type")
            note_drift("file", value, file, 1, tally)
    for message in index.parts.keys() - index.known:
        tally.add("records", "part", len(index.parts[message]))
        tally.add("dropped", "part without a message", len(index.parts[message]))
    return index


def _load(file: InputFile) -> dict[str, Any]:
    """A file that the index has read, and reported, before."""
    return next((row.value for row in read_document(file, Tally())), {})


def _take(
    s: _Open, key: str, m: dict[str, Any], parts: list[dict[str, Any]], number: int, tally: Tally
) -> None:
    """A message and its parts. Each step of an answer is an answer of its own."""
    role = read_text(m.get("role"))
    if role not in ("user", "assistant"):
        note_drift(f"message {name_kind(role, 'without role')}", m, s.file, number, tally)
        tally.add("dropped", "unknown role")
        role = ""
    else:
        tally.add("kept", f"message {role}")
        times = read_object(m.get("time"))
        s.clues.note_time(times.get("created"))
        s.clues.note_time(times.get("completed"))
    if role == "assistant":
        tally.add("models", name_kind(_read_model(m), "unknown"))
        s.clues.cwd = s.clues.cwd or read_text(read_object(m.get("path")).get("cwd")) or None
    s.step += 1
    failed = role == "assistant" and bool(m.get("error"))
    stopped = failed and read_object(m.get("error")).get("name") == "MessageAbortedError"
    for p in parts:
        kind = name_kind(p.get("type"))
        tally.add("records", f"part {kind}")
        tally.add("blocks", f"{role or 'no role'} {kind}")
        found = _take_part(s, p, role, key, m, number, tally) if role else "unknown role"
        if failed and not isinstance(found, str) and kind == "text":
            # What was cut off is no answer to learn from; calls that were answered are.
            found = "answer cut short"
        if isinstance(found, str):
            tally.add("dropped", found)
        else:
            tally.add("kept", f"part {kind}")
            s.entries += [_interrupt(e) for e in found] if stopped else found


def _interrupt(e: Entry) -> Entry:
    return e if e.mark or e.kind == "boundary" else replace(e, mark="interrupted")


def _take_part(
    s: _Open,
    p: dict[str, Any],
    role: str,
    key: str,
    m: dict[str, Any],
    number: int,
    tally: Tally,
) -> list[Entry] | str:
    """What a part says, or the reason why it says nothing."""
    kind = read_text(p.get("type"))
    response = f"{s.clues.session}:{key}:{s.step}"
    if kind == "text":
        text = read_text(p.get("text"))
        if p.get("ignored") is True:
            return "not in context"
        if role == "user":
            s.clues.note_text(text)
        if p.get("synthetic") is True:
            return "synthetic"
        if not text.strip():
            return "empty"
        if role == "user":
            s.header = s.header or text
            return [Entry("user", number, text, by=judge_author(text, s.clues.parent))]
        if m.get("summary") is True:
            return [Entry("summary", number, text)]
        model = _read_model(m)
        return [Entry("assistant", number, text.strip(), response=response, model=model)]
    if kind == "tool":
        return _take_tool(p, response, _read_model(m), number, tally)
    if kind == "file":
        if role != "user":
            return kind
        media = read_text(p.get("mime"))
        name = "image" if media.startswith("image/") else "file"
        return [Entry("user", number, write_placeholder(name, media))]
    if kind == "compaction":
        return [Entry("boundary", number)]
    if kind == "reasoning":
        return "thinking"
    if kind == "step-start":
        s.step += 1
        return kind
    if kind in _ASIDE:
        return kind
    note_drift(f"part {name_kind(kind)}", p, s.file, number, tally)
    return "unknown type"


def _read_model(m: dict[str, Any]) -> str:
    return read_text(m.get("modelID")) or read_text(read_object(m.get("model")).get("modelID"))


def _take_tool(
    p: dict[str, Any], response: str, model: str, number: int, tally: Tally
) -> list[Entry] | str:
    state = read_object(p.get("state"))
    status = read_text(state.get("status"))
    call_id = read_text(p.get("callID")) or read_text(p.get("id")) or f"{response}:{number}"
    call = Call(call_id, read_text(p.get("tool")) or "unknown", read_arguments(state.get("input")))
    entries = [Entry("assistant", number, response=response, calls=(call,), model=model)]
    tally.add("blocks", f"tool {name_kind(status, 'without status')}")
    if status in _DONE:
        entries.append(Entry("result", number, read_text(state.get("output")), call_id=call_id))
    elif status == "error":
        said = read_text(state.get("error"))
        mark: Mark = "denied" if said.startswith(_DENIED) else ""
        if said.startswith("Tool execution aborted"):
            mark = "interrupted"
        entries.append(Entry("result", number, said, call_id=call_id, mark=mark))
    return entries
