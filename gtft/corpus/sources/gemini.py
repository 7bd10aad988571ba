"""Gemini CLI chats: ``~/.gemini/tmp/<project>/chats/session-*.{json,jsonl}``, and saved checkpoints.

The newer file is a log: a message with the same id replaces the earlier one, ``$rewindTo`` takes back
that message and all behind it, ``$set.messages`` sets the context anew. The older one is a single
object. A chat names no folder. What each field means: docs/corpus.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gtft.corpus.example import Call, Conversation, Entry, Labels
from gtft.corpus.files import InputFile, open_input
from gtft.corpus.jsonl import Row, read_document, read_rows
from gtft.corpus.link import link_session
from gtft.corpus.sources.block import (
    FIRST_TEXTS,
    list_blocks,
    read_object,
    read_text,
    write_placeholder,
)
from gtft.corpus.tally import Tally

_HARNESS = (
    "<hook_context",
    "<session_context",
    "<system-reminder",
    "System: Please continue",
    "This is the Gemini CLI. We are setting up the context",
)
_SUMMARY = "<state_snapshot"
_ANSWERS = frozenset({"gemini", "model", "assistant"})
_ASIDE = frozenset({"info", "error", "warning", "system", "slash_command", "shell_mode"})
_SNIFFED = 4096


@dataclass(frozen=True)
class _Said:
    """One message of a chat: its number in the file stands for a line."""

    kind: str
    number: int
    value: dict[str, Any]
    boundary: bool = False


@dataclass
class _Open:
    """One chat while its file is read. ``said``: messages by id, in their order."""

    session: str
    kind: str = ""
    parent: str = ""
    said: dict[str, _Said] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    header: str = ""
    number: int = 0


def read(files: Sequence[InputFile], tally: Tally) -> Iterator[Conversation]:
    """The chats of ``files``, one conversation each; those of sub-agents behind their parents'.

    Tables: ``records`` (type), ``dropped`` (reason, in records), ``kept``, ``blocks``, ``models``, ``drift``.
    """
    seen: set[str] = set()
    labels: dict[str, Labels] = {}
    # A sub-agent's chat stands in a folder that is named after its parent's session.
    for file in sorted(files, key=lambda f: len(f.path.parts)):
        s = _Open(file.name)
        rows = read_document if _is_document(file) else read_rows
        for row in rows(file, tally):
            _take(s, row, file, tally)
        folder = file.path.parent.name
        if folder != s.session and (s.kind == "subagent" or folder in labels):
            s.parent = folder
        _finish(s, file, seen, tally)
        if not s.entries:
            continue
        found = link_session(s.texts, None, None, labels.get(s.parent))
        labels.setdefault(s.session, found)
        links = [f"session:{s.session}"]
        if s.parent:
            links.append(f"session:{s.parent}")
        if found.bead:
            links.append(f"bead:{found.bead}")
        yield Conversation(
            source="gemini",
            file=file.name,
            links=tuple(links),
            entries=tuple(s.entries),
            labels=found,
            session=s.session,
            header=s.header,
        )


def _is_document(file: InputFile) -> bool:
    """Is it one object over many lines? Then the first line holds nothing but its bracket."""
    with open_input(file) as f:
        head = f.read(_SNIFFED).replace(b"\x00", b"").removeprefix(b"\xef\xbb\xbf").lstrip()
    first, newline, _ = head.partition(b"\n")
    return bool(newline) and first.strip() in (b"{", b"[")


def _take(s: _Open, row: Row, file: InputFile, tally: Tally) -> None:
    """A line of the log: a message, the header, or an order about what stands before it."""
    r = row.value
    line = row.line
    if "$rewindTo" in r:
        _count(tally, "$rewindTo", "order")
        _rewind(s, read_text(r["$rewindTo"]), tally)
    elif "$set" in r:
        _count(tally, "$set", "order")
        said = read_object(r["$set"]).get("messages")
        if isinstance(said, list):
            _set_anew(s, said, line, file, tally)
    elif isinstance(r.get("messages"), list) or isinstance(r.get("history"), list):
        _count(tally, "session", "session header")
        _take_header(s, r)
        model = read_text(read_object(r.get("meta")).get("model"))
        if model:
            tally.add("models", model)
        for message in r.get("messages") or r.get("history") or ():
            _add(s, message, line, file, tally)
    elif "sessionId" in r and "type" not in r and "role" not in r:
        _count(tally, "session", "session header")
        _take_header(s, r)
    else:
        _add(s, r, line, file, tally)


def _take_header(s: _Open, r: dict[str, Any]) -> None:
    s.session = read_text(r.get("sessionId")) or s.session
    s.kind = read_text(r.get("kind")) or s.kind


def _count(tally: Tally, record: str, reason: str) -> None:
    tally.add("records", record)
    tally.add("dropped", reason)


def _add(s: _Open, message: Any, line: int, file: InputFile, tally: Tally) -> None:
    s.number += 1
    if not isinstance(message, dict):
        tally.name("message is not an object", file.name, line)
        _count(tally, "no type", "wrong shape")
        return
    kind = read_text(message.get("type")) or read_text(message.get("role"))
    tally.add("records", kind or "no type")
    key = read_text(message.get("id")) or f"number {s.number}"
    before = s.said.get(key)
    if before is not None:
        tally.add("dropped", "replaced")
    # A log's line is its own; the messages of one document are counted.
    number = before.number if before else max(line, s.number)
    s.said[key] = _Said(kind, number, message)


def _rewind(s: _Open, target: str, tally: Tally) -> None:
    """Upstream forgets everything when it does not know the message."""
    ids = list(s.said)
    for key in ids[ids.index(target) if target in s.said else 0 :]:
        if not s.said.pop(key).boundary:
            tally.add("dropped", "rewound")


def _set_anew(s: _Open, said: list[Any], line: int, file: InputFile, tally: Tally) -> None:
    """A rollback when the list is a part of what stands; else a compression: a new context starts."""
    ids = [read_text(read_object(m).get("id")) for m in said]
    if ids and all(i in s.said for i in ids):
        for key in s.said.keys() - set(ids):
            if not s.said.pop(key).boundary:
                tally.add("dropped", "rewound")
        return
    if s.said:
        s.said[f"boundary {s.number}"] = _Said("", max(line, s.number), {}, boundary=True)
    for message, key in zip(said, ids, strict=True):
        if key not in s.said:
            _add(s, message, line, file, tally)


def _finish(s: _Open, file: InputFile, seen: set[str], tally: Tally) -> None:
    """What is left of the chat, as entries."""
    for key, said in s.said.items():
        if said.boundary:
            s.entries.append(Entry("boundary", said.number))
            continue
        mark = f"{s.session} {key}"
        if not key.startswith("number ") and mark in seen:
            tally.add("dropped", "repeated message")
            continue
        seen.add(mark)
        reason = _convert(s, key, said, file, tally)
        if reason:
            tally.add("dropped", reason)
        else:
            tally.add("kept", said.kind)


def _convert(s: _Open, key: str, said: _Said, file: InputFile, tally: Tally) -> str:
    m = said.value
    if said.kind in _ASIDE:
        return said.kind
    if said.kind != "user" and said.kind not in _ANSWERS:
        tally.add("drift", f"record {said.kind or 'without type'}")
        tally.name("unknown record type", file.name, said.number, said.kind)
        return "unknown type"
    content = m.get("content", m.get("parts"))
    if content is not None and not isinstance(content, str | list | dict):
        tally.name("content is neither text nor blocks", file.name, said.number)
        return "wrong shape"
    answers = said.kind in _ANSWERS
    texts: list[str] = []
    calls: list[Call] = []
    results: list[Entry] = []
    reason = "empty"
    summary = False
    for b in list_blocks(content):
        kind, text = _read_part(b)
        tally.add("blocks", f"{said.kind} {kind}")
        if kind == "text" and text.strip():
            if not answers and len(s.texts) < FIRST_TEXTS:
                s.texts.append(text)
            if not answers and text.lstrip().startswith(_HARNESS):
                reason = "harness"
            else:
                summary = summary or (not answers and text.lstrip().startswith(_SUMMARY))
                texts.append(text)
        elif kind in ("inlineData", "fileData"):
            texts.append(text)
        elif kind == "functionCall":
            calls.append(_read_call(read_object(b[kind]), f"{key} call {len(calls)}"))
        elif kind == "functionResponse":
            given = read_object(b[kind])
            call_id = read_text(given.get("id"))
            results.append(Entry("result", said.number, text=_respond(given), call_id=call_id))
        elif kind == "thought":
            reason = "thinking only"
        elif kind not in ("text", "executableCode", "codeExecutionResult"):
            tally.add("drift", f"{said.kind} block {kind}")
    for n, c in enumerate(list_blocks(m.get("toolCalls"))):
        call = _read_call(c, f"{key} tool {n}")
        calls.append(call)
        tally.add("blocks", f"{said.kind} tool {read_text(c.get('status')) or 'without status'}")
        output = _read_result(c)
        if output is not None:
            results.append(Entry("result", said.number, text=output, call_id=call.id))
    if m.get("thoughts"):
        reason = "thinking only" if reason == "empty" else reason
        tally.add("blocks", f"{said.kind} thoughts")
    entries: list[Entry] = []
    if answers:
        tally.add("models", read_text(m.get("model")) or "unknown")
        if texts or calls:
            text = "\n\n".join(t.strip() for t in texts)
            response = f"{s.session}:{key}"
            entries.append(
                Entry("assistant", said.number, text, response=response, calls=tuple(calls))
            )
    elif texts:
        text = "\n\n".join(texts)
        entries.append(Entry("summary" if summary else "user", said.number, text))
        s.header = s.header or ("" if summary else text)
    entries += results
    s.entries += entries
    return "" if entries else reason


def _read_part(b: dict[str, Any]) -> tuple[str, str]:
    """Kind and text of a part: a part is named by the key that it has."""
    if b.get("thought") is True:
        return "thought", ""
    if isinstance(b.get("text"), str):
        return "text", b["text"]
    for kind in ("inlineData", "fileData"):
        if isinstance(b.get(kind), dict):
            media = read_text(b[kind].get("mimeType"))
            return kind, write_placeholder(media.partition("/")[0] or "file", media)
    known = ("functionCall", "functionResponse", "executableCode", "codeExecutionResult")
    return next((k for k in known if k in b), "unknown part"), ""


def _read_call(c: dict[str, Any], fallback: str) -> Call:
    name = read_text(c.get("name")) or "unknown"
    return Call(read_text(c.get("id")) or fallback, name, read_object(c.get("args")))


def _read_result(c: dict[str, Any]) -> str | None:
    """What the model was given; None while the call was open."""
    result = c.get("result")
    if isinstance(result, str):
        return result
    if result is None:
        return None
    parts = []
    for b in list_blocks(result):
        kind, text = _read_part(b)
        parts.append(_respond(read_object(b[kind])) if kind == "functionResponse" else text)
    return "\n".join(p for p in parts if p)


def _respond(response: dict[str, Any]) -> str:
    given = read_object(response.get("response"))
    value = given.get("output", given.get("error", given.get("content")))
    if isinstance(value, str):
        return value
    return "\n".join(read_text(b.get("text")) for b in list_blocks(value))
