"""Claude Code transcripts: ``~/.claude/projects/<slug>/<session>.jsonl`` and its sub-agents.

Records that resume and checkpoint files repeat are kept once, by uuid: the copy of the lowest version,
then of the first file, then of the first line (later copies name another folder and branch). The pieces of
one response share ``message.id``. What each field means: docs/corpus.md.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gtft.corpus.example import Call, Conversation, Entry, Labels
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import Row, read_rows
from gtft.corpus.link import link_session
from gtft.corpus.tally import Tally

_HARNESS = (
    "<command-",
    "<local-command",
    "<bash-",
    "<task-notification",
    "<agent-notification",
    "<system-reminder",
    "Caveat",
    "[Request interrupted",
)
_SUMMARY = "This session is being continued"
_SLASH = re.compile(r"^/[a-z][\w:-]*(\s|$)")
_ASIDE_TYPES = (
    "progress file-history-snapshot summary custom-title ai-title agent-name pr-link attachment mode "
    "permission-mode last-prompt worktree-state relocated started result frame-link bridge-session"
)
_KNOWN_ASIDE = frozenset(_ASIDE_TYPES.split())
_FIRST_TEXTS = 6

Rank = tuple[tuple[int, ...], int, int]
Key = tuple[str, str]


@dataclass
class _Index:
    """Which copy of each uuid is kept, and which sessions share records."""

    kept: dict[str, Rank] = field(default_factory=dict)
    session_of: dict[str, str] = field(default_factory=dict)
    shared: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    parents: set[str] = field(default_factory=set)


@dataclass
class _Open:
    """One session (or sub-agent) of one file, while the file is read."""

    session: str
    agent: str
    entries: list[Entry] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    queue: deque[str] = field(default_factory=deque)
    cwd: str | None = None
    agent_name: str | None = None
    header: str = ""


def read(files: Sequence[InputFile], tally: Tally) -> Iterator[Conversation]:
    """The sessions of ``files``, sub-agents apart, in the order of the files.

    Tables: ``records`` (type), ``dropped`` (reason, in records), ``kept``, ``blocks``, ``drift``.
    """
    # The first pass reports nothing: the second one meets the same lines.
    index = _index(files)
    tally.add("links", "phantom parents", len(index.parents - index.kept.keys()))
    owners: dict[str, str] = {}
    queued: set[tuple[str, str, str, str]] = set()
    labels: dict[str, Labels] = {}
    for number, file in enumerate(files):
        sessions: dict[Key, _Open] = {}
        for row in read_rows(file, tally):
            kind = _text(row.value.get("type")) or "no type"
            tally.add("records", kind)
            reason = _take(row, number, file, index, sessions, owners, queued, tally)
            if reason:
                tally.add("dropped", reason)
            else:
                tally.add("kept", kind)
        for (session, agent), s in sessions.items():
            if not s.entries:
                continue
            found = link_session(s.texts, s.cwd, s.agent_name, labels.get(session))
            labels.setdefault(session, found)
            links = [f"session:{session}"]
            links += [f"session:{other}" for other in sorted(index.shared.get(session, ()))]
            if found.bead:
                links.append(f"bead:{found.bead}")
            yield Conversation(
                source="claude-code",
                file=file.name,
                links=tuple(links),
                entries=tuple(s.entries),
                labels=found,
                session=f"{session}#{agent}" if agent else session,
                header=s.header,
            )


def _index(files: Sequence[InputFile]) -> _Index:
    index = _Index()
    for number, file in enumerate(files):
        for row in read_rows(file, Tally()):
            uuid = row.value.get("uuid")
            if not isinstance(uuid, str):
                continue
            parent = row.value.get("parentUuid")
            if isinstance(parent, str):
                index.parents.add(parent)
            rank = (_version(row.value), number, row.order)
            index.kept[uuid] = min(rank, index.kept.get(uuid, rank))
            session = _session(row.value, file)
            first = index.session_of.setdefault(uuid, session)
            if first != session:
                index.shared[first].add(session)
                index.shared[session].add(first)
    return index


def _take(
    row: Row,
    number: int,
    file: InputFile,
    index: _Index,
    sessions: dict[Key, _Open],
    owners: dict[str, str],
    queued: set[tuple[str, str, str, str]],
    tally: Tally,
) -> str:
    """Put a record where it belongs; the reason when it is dropped."""
    r = row.value
    kind = _text(r.get("type"))
    session = _session(r, file)
    agent = _text(r.get("agentId")) if r.get("isSidechain") is True else ""
    s = sessions.setdefault((session, agent), _Open(session, agent))
    message = r.get("message")
    if kind == "user" and isinstance(message, dict):
        _note_text(s, r, message)
    uuid = r.get("uuid")
    if isinstance(uuid, str):
        if index.kept[uuid] != (_version(r), number, row.order):
            return "repeated uuid"
        tally.add("unique", kind)
    s.cwd = s.cwd or _text(r.get("cwd")) or None
    if kind in ("user", "assistant"):
        if not isinstance(message, dict):
            tally.name("message is not an object", file.name, row.line)
            return "wrong shape"
        if kind == "user":
            return _take_user(s, row, message, file, tally)
        return _take_assistant(s, row, message, file, owners, tally)
    if kind == "system":
        subtype = _text(r.get("subtype")) or "no subtype"
        tally.add("system", subtype)
        if subtype != "compact_boundary":
            return "system"
        s.entries.append(Entry("boundary", row.line))
        return ""
    if kind == "queue-operation":
        return _take_queue(s, row, queued, tally)
    if kind in ("tool_use", "tool_result"):
        return _take_old(s, row, tally)
    if kind == "agent-name":
        s.agent_name = _text(r.get("agentName")) or s.agent_name
    if kind in _KNOWN_ASIDE:
        return kind
    tally.add("drift", f"record {kind or 'without type'}")
    tally.name("unknown record type", file.name, row.line, kind)
    return "unknown type"


def _note_text(s: _Open, r: dict[str, Any], message: dict[str, Any]) -> None:
    """Remember the first texts for linking and the first prompt as header, repeated records too."""
    if len(s.texts) >= _FIRST_TEXTS:
        return
    text = _text(message.get("content")) or "\n\n".join(
        _text(b.get("text")) for b in _blocks(message.get("content")) if b.get("type") == "text"
    )
    if text:
        s.texts.append(text)
        if not s.header and r.get("isMeta") is not True and not _harness(text):
            s.header = text


def _take_user(s: _Open, row: Row, message: dict[str, Any], file: InputFile, tally: Tally) -> str:
    r = row.value
    content = message.get("content")
    meta = r.get("isMeta") is True
    entries: list[Entry] = []
    reason = "empty"
    if not isinstance(content, str | list):
        tally.name("content is neither text nor blocks", file.name, row.line)
        return "wrong shape"
    texts: list[str] = []
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else _blocks(content)
    for b in blocks:
        kind = _text(b.get("type"))
        tally.add("blocks", f"user {kind}")
        if kind == "tool_result":
            entries.append(
                Entry(
                    "result",
                    row.line,
                    text=_flatten(b.get("content")),
                    call_id=_text(b.get("tool_use_id")),
                )
            )
        elif kind == "text":
            text = _text(b.get("text"))
            if r.get("isCompactSummary") is True or text.startswith(_SUMMARY):
                entries.append(Entry("summary", row.line, text=text))
            elif meta or _harness(text):
                reason = "meta" if meta else "harness"
            elif text.strip():
                texts.append(text)
        elif kind in ("image", "document"):
            if not meta:
                texts.append(_placeholder(b))
        else:
            tally.add("drift", f"user block {kind or 'without type'}")
    if texts:
        entries.append(Entry("user", row.line, text="\n\n".join(texts)))
    s.entries.extend(entries)
    return "" if entries else reason


def _take_assistant(
    s: _Open,
    row: Row,
    message: dict[str, Any],
    file: InputFile,
    owners: dict[str, str],
    tally: Tally,
) -> str:
    r = row.value
    if message.get("model") == "<synthetic>":
        return "synthetic"
    if r.get("isApiErrorMessage") is True:
        return "API error"
    response = _text(message.get("id")) or _text(r.get("uuid")) or f"{file.name}:{row.order}"
    here = f"{file.name} {s.session} {s.agent}"
    if response not in owners:
        tally.add("responses", "unique")
    if owners.setdefault(response, here) != here:
        return "replayed response"
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        tally.name("content is neither text nor blocks", file.name, row.line)
        return "wrong shape"
    texts: list[str] = []
    calls: list[Call] = []
    reason = "empty"
    for b in _blocks(content):
        kind = _text(b.get("type"))
        tally.add("blocks", f"assistant {kind}")
        if kind == "text":
            if text := _text(b.get("text")).strip():
                texts.append(text)
        elif kind == "tool_use":
            calls.append(_call(b))
        elif kind in ("thinking", "redacted_thinking"):
            reason = "thinking only"
        else:
            tally.add("drift", f"assistant block {kind or 'without type'}")
    if not texts and not calls:
        return reason
    s.entries.append(
        Entry(
            "assistant",
            row.line,
            text="\n\n".join(texts),
            response=response,
            calls=tuple(calls),
        )
    )
    return ""


def _take_queue(s: _Open, row: Row, queued: set[tuple[str, str, str, str]], tally: Tally) -> str:
    """``remove`` means that a text typed in mid-turn went to the model without a record of its own."""
    r = row.value
    operation, content = _text(r.get("operation")), _text(r.get("content"))
    mark = (s.session, _text(r.get("timestamp")), operation, content)
    if mark[1] and mark in queued:
        return "repeated queue operation"
    queued.add(mark)
    tally.add("queue", operation or "no operation")
    if operation == "enqueue":
        s.queue.append(content)
        return "queue operation"
    text = content
    if operation in ("remove", "dequeue") and s.queue:
        first = s.queue.popleft()
        text = text or first
    if operation != "remove" or not text.strip() or _harness(text) or _SLASH.match(text):
        return "queue operation"
    s.entries.append(Entry("user", row.line, text=text))
    return ""


def _take_old(s: _Open, row: Row, tally: Tally) -> str:
    """Version 1: calls and results as records of their own."""
    r = row.value
    tally.add("drift", f"version 1 {r['type']}")
    if r["type"] == "tool_use":
        call = _call(r)
        s.entries.append(Entry("assistant", row.line, response=f"old:{row.order}", calls=(call,)))
    else:
        s.entries.append(
            Entry(
                "result",
                row.line,
                text=_flatten(r.get("content")),
                call_id=_text(r.get("tool_use_id")),
            )
        )
    return ""


def _call(block: dict[str, Any]) -> Call:
    arguments = block.get("input")
    return Call(
        _text(block.get("id")),
        _text(block.get("name")) or "unknown",
        arguments if isinstance(arguments, dict) else {},
    )


def _flatten(content: Any) -> str:
    """The text of a tool result: a string, or blocks of text and images."""
    if isinstance(content, str):
        return content
    parts = []
    for b in _blocks(content):
        parts.append(_text(b.get("text")) if b.get("type") == "text" else _placeholder(b))
    return "\n".join(parts)


def _placeholder(block: dict[str, Any]) -> str:
    kind = _text(block.get("type")) or "block"
    source = block.get("source")
    media = _text(source.get("media_type")) if isinstance(source, dict) else ""
    return f"[{kind}: {media}]" if media else f"[{kind}]"


def _harness(text: str) -> bool:
    return text.lstrip().startswith(_HARNESS)


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _session(r: dict[str, Any], file: InputFile) -> str:
    return _text(r.get("sessionId")) or _text(r.get("session_id")) or file.name


def _version(r: dict[str, Any]) -> tuple[int, ...]:
    """``2.1.17`` as numbers; a record without a version ranks last."""
    found = re.findall(r"\d{1,9}", _text(r.get("version")))
    return tuple(int(n) for n in found) if found else (1 << 30,)
