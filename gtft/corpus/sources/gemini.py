"""Gemini CLI chats: ``~/.gemini/tmp/<project>/chats/session-*.{json,jsonl}``, and saved checkpoints.

The newer file is a log: a message with the same id replaces the earlier one, ``$rewindTo`` takes back
that message and all behind it, ``$set.messages`` sets the context anew. The older one is a single
object. A chat names no folder. What each field means: docs/corpus.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from gtft.corpus.claims import Claims
from gtft.corpus.example import Call, Conversation, Entry, Mark
from gtft.corpus.files import InputFile, open_input
from gtft.corpus.jsonl import Row, read_document, read_rows
from gtft.corpus.sources.block import (
    digest_value,
    list_blocks,
    name_kind,
    note_drift,
    read_object,
    read_text,
    write_placeholder,
)
from gtft.corpus.sources.clues import Clues, Held, judge_author
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
    """One chat while its file is read. ``said``: messages by id, in their order; ``rewound``: what was
    taken back, together."""

    clues: Clues
    held: Held
    kind: str = ""
    said: dict[str, _Said] = field(default_factory=dict)
    rewound: list[dict[str, _Said]] = field(default_factory=list)
    header: str = ""
    number: int = 0


def read(files: Sequence[InputFile], tally: Tally, claims: Claims) -> Iterator[Conversation]:
    """The chats of ``files``, one conversation each; messages that were taken back are conversations of
    their own, marked ``rewound``.

    Tables: ``records`` (type), ``dropped`` (reason, in records), ``kept``, ``blocks``, ``models``, ``drift``.
    """
    for file in files:
        s = _Open(Clues(file.name), Held(claims))
        rows = read_document if _is_document(file) else read_rows
        for row in rows(file, tally):
            _take(s, row, file, tally)
        folder = file.path.parent
        # A sub-agent's chat stands in a folder that is named after its parent's session.
        nested = s.kind == "subagent" or folder.parent.name == "chats"
        if nested and folder.name != s.clues.session:
            s.clues.parent = folder.name
        parts = [("", _finish(s, "", s.said, file, tally))]
        for n, said in enumerate(s.rewound, start=1):
            name = f"rewound-{n}"
            entries = _finish(s, name, said, file, tally)
            parts.append((name, [replace(e, mark="rewound") for e in entries]))
        s.held.note(f"session:{s.clues.session}")
        for name, entries in parts:
            if entries:
                evidence = s.clues.write_evidence(name)
                yield Conversation(
                    source="gemini",
                    file=file.name,
                    links=s.clues.list_links(evidence),
                    entries=tuple(entries),
                    evidence=evidence,
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
        _rewind(s, read_text(r["$rewindTo"]))
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
            tally.add("models", name_kind(model))
        for message in r.get("messages") or r.get("history") or ():
            _add(s, message, line, file, tally)
    elif "sessionId" in r and "type" not in r and "role" not in r:
        _count(tally, "session", "session header")
        _take_header(s, r)
    else:
        _add(s, r, line, file, tally)


def _take_header(s: _Open, r: dict[str, Any]) -> None:
    s.clues.session = read_text(r.get("sessionId")) or s.clues.session
    s.kind = read_text(r.get("kind")) or s.kind
    s.clues.note_time(r.get("startTime"))


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
    tally.add("records", name_kind(kind))
    s.clues.note_time(message.get("timestamp"))
    key = read_text(message.get("id")) or f"number {s.number}"
    before = s.said.get(key)
    if before is not None:
        tally.add("dropped", "replaced")
    # A log's line is its own; the messages of one document are counted.
    number = before.number if before else max(line, s.number)
    s.said[key] = _Said(kind, number, message)


def _rewind(s: _Open, target: str) -> None:
    """Upstream forgets everything when it does not know the message."""
    taken: list[str] = []
    for key in reversed(s.said):
        taken.append(key)
        if key == target:
            break
    _take_back(s, reversed(taken))


def _take_back(s: _Open, keys: Iterable[str]) -> None:
    taken = {key: s.said.pop(key) for key in keys}
    s.rewound.append({key: said for key, said in taken.items() if not said.boundary})


def _set_anew(s: _Open, said: list[Any], line: int, file: InputFile, tally: Tally) -> None:
    """A rollback when the list is a part of what stands; else a compression: a new context starts."""
    ids = [read_text(read_object(m).get("id")) for m in said]
    if ids and all(i in s.said for i in ids):
        kept = set(ids)
        _take_back(s, [key for key in s.said if key not in kept])
        return
    if s.said:
        s.said[f"boundary {s.number}"] = _Said("", max(line, s.number), {}, boundary=True)
    for message, key in zip(said, ids, strict=True):
        if key not in s.said:
            _add(s, message, line, file, tally)


def _finish(
    s: _Open, part: str, said: dict[str, _Said], file: InputFile, tally: Tally
) -> list[Entry]:
    """What the messages of a part say, as entries."""
    entries: list[Entry] = []
    for key, message in said.items():
        if message.boundary:
            entries.append(Entry("boundary", message.number))
        elif not s.held.take(_name(s, part, key, message)):
            tally.add("dropped", "repeated message")
        else:
            found = _convert(s, key, message, file, tally)
            if isinstance(found, str):
                tally.add("dropped", found)
            else:
                tally.add("kept", message.kind)
                entries += found
    return entries


def _name(s: _Open, part: str, key: str, said: _Said) -> str:
    """Equal for copies of a message. One without an id is known by what it says."""
    content = digest_value(said.value).hex() if key.startswith("number ") else ""
    return f"gemini {s.clues.session} {part} {key} {content}"


def _convert(s: _Open, key: str, said: _Said, file: InputFile, tally: Tally) -> list[Entry] | str:
    m = said.value
    if said.kind in _ASIDE:
        return said.kind
    if said.kind != "user" and said.kind not in _ANSWERS:
        note_drift(f"record {name_kind(said.kind)}", m, file, said.number, tally)
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
            if not answers:
                s.clues.note_text(text)
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
            note_drift(f"{said.kind} block", b, file, said.number, tally)
    for n, c in enumerate(list_blocks(m.get("toolCalls"))):
        call = _read_call(c, f"{key} tool {n}")
        calls.append(call)
        status = read_text(c.get("status"))
        tally.add("blocks", f"{said.kind} tool {name_kind(status, 'without status')}")
        output = _read_result(c)
        if output is not None:
            mark = _judge_result(status, output)
            results.append(Entry("result", said.number, output, call_id=call.id, mark=mark))
    if m.get("thoughts"):
        reason = "thinking only" if reason == "empty" else reason
        tally.add("blocks", f"{said.kind} thoughts")
    entries: list[Entry] = []
    if answers:
        model = read_text(m.get("model"))
        tally.add("models", name_kind(model, "unknown"))
        if texts or calls:
            entries.append(
                Entry(
                    "assistant",
                    said.number,
                    "\n\n".join(t.strip() for t in texts),
                    response=f"{s.clues.session}:{key}",
                    calls=tuple(calls),
                    model=model,
                )
            )
    elif texts:
        text = "\n\n".join(texts)
        by = judge_author(text, s.clues.parent)
        entries.append(
            Entry("summary", said.number, text)
            if summary
            else Entry("user", said.number, text, by=by)
        )
        s.header = s.header or ("" if summary else text)
    return [*entries, *results] or reason


def _judge_result(status: str, output: str) -> Mark:
    """A call that was not run: the human refused it, or stopped the turn."""
    if status != "cancelled":
        return ""
    return "denied" if "did not allow" in output else "interrupted"


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
