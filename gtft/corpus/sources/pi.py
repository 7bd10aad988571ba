"""Sessions of pi and omp: ``~/.pi/agent/sessions/--<folder>--/<ts>_<id>.jsonl``, ``~/.omp/agent/…``.

Since version 2 a file is a tree by ``id`` and ``parentId``. The path to its last entry is the session;
each other leaf is a branch of its own, from where it left. Version 1 is a line. A forked session starts
with copies of the entries of its original: they are kept once. What each field means: docs/corpus.md.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gtft.artifact import canonical_json
from gtft.corpus.example import Call, Conversation, Entry, Labels
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import Row, read_rows
from gtft.corpus.link import link_session
from gtft.corpus.sources.block import (
    FIRST_TEXTS,
    list_blocks,
    read_arguments,
    read_text,
    write_placeholder,
)
from gtft.corpus.tally import Tally

_ASIDE_NAMES = (
    "model_change thinking_level_change context_transform ephemeral custom label session_info title "
    "title_change ttsr_injection mode_change leaf session_init mcp_tool_selection service_tier_change "
    "credential_pin"
)
_ASIDE = frozenset(_ASIDE_NAMES.split())
_CUT_SHORT = frozenset({"aborted", "error"})
_SESSION_FILE = re.compile(r"_([0-9a-fA-F-]{8,64})\.jsonl$")


@dataclass(frozen=True)
class _Node:
    """One entry of the tree. ``entries`` is what it says; empty when it says nothing new.

    ``text`` is what the model was told, by a human when ``prompt``, copies too.
    """

    parent: str | None
    entries: tuple[Entry, ...]
    text: str = ""
    prompt: bool = False


@dataclass
class _Open:
    """One session while its file is read."""

    session: str
    parent: str = ""
    cwd: str | None = None
    tree: dict[str, _Node] = field(default_factory=dict)
    last: str | None = None
    shared: set[str] = field(default_factory=set)


def read(files: Sequence[InputFile], tally: Tally) -> Iterator[Conversation]:
    """The sessions of ``files`` and their branches, in the order of the files.

    Tables: ``records`` (type), ``dropped`` (reason, in records), ``kept``, ``blocks``, ``models``,
    ``tree``, ``drift``.
    """
    owners: dict[bytes, tuple[str, str, int]] = {}
    labels: dict[str, Labels] = {}
    for file in files:
        s = _Open(file.name)
        for row in read_rows(file, tally):
            kind = read_text(row.value.get("type")) or "no type"
            tally.add("records", kind)
            found = _take(s, row, file, tally)
            entries = () if isinstance(found, str) else found
            node = _Node(None, entries, *_read_prompt(row, entries))
            if entries and _is_copy(s, row, file, owners):
                found, node = "copied history", replace(node, entries=())
            if isinstance(found, str):
                tally.add("dropped", found)
            else:
                tally.add("kept", kind)
            if kind != "session":
                _plant(s, row, node, file, tally)
        yield from _walk(s, file, labels, tally)


def _take(s: _Open, row: Row, file: InputFile, tally: Tally) -> tuple[Entry, ...] | str:
    """What a record says, or the reason why it says nothing."""
    r = row.value
    kind = read_text(r.get("type"))
    if kind == "session":
        s.session = read_text(r.get("id")) or s.session
        s.cwd = s.cwd or read_text(r.get("cwd")) or None
        origin = read_text(r.get("parentSession")) or read_text(r.get("branchedFrom"))
        named = _SESSION_FILE.search(origin)
        s.parent = named[1] if named else origin.rpartition("/")[2]
        return "session header"
    if kind in _ASIDE:
        return kind
    if kind == "reset_boundary":
        return (Entry("boundary", row.line),)
    if kind not in ("message", "compaction", "branch_summary", "custom_message"):
        tally.add("drift", f"record {kind or 'without type'}")
        tally.name("unknown record type", file.name, row.line, kind)
        return "unknown type"
    if kind == "compaction":
        text = read_text(r.get("summary"))
        summary = (Entry("summary", row.line, text=text),) if text.strip() else ()
        return (Entry("boundary", row.line), *summary)
    if kind == "branch_summary":
        text = read_text(r.get("summary"))
        return (Entry("summary", row.line, text=text),) if text.strip() else "empty"
    if kind == "custom_message":
        return "harness"
    message = r.get("message")
    if not isinstance(message, dict):
        tally.name("message is not an object", file.name, row.line)
        return "wrong shape"
    return _take_message(s, message, row, file, tally)


def _is_copy(
    s: _Open, row: Row, file: InputFile, owners: dict[bytes, tuple[str, str, int]]
) -> bool:
    """Has an entry been met before? A copy keeps its time, but may have another id."""
    if not read_text(row.value.get("timestamp")):
        return False
    same = {k: v for k, v in row.value.items() if k not in ("id", "parentId")}
    text = canonical_json(same).encode("utf-8", "replace")
    here = (s.session, file.name, row.order)
    owner = owners.setdefault(hashlib.blake2b(text, digest_size=8).digest(), here)
    if owner != here and owner[0] != s.session:
        s.shared.add(owner[0])
    return owner != here


def _read_prompt(row: Row, entries: tuple[Entry, ...]) -> tuple[str, bool]:
    """What an entry tells the model, and whether a human says it."""
    said = next((e.text for e in entries if e.kind == "user"), "")
    if said or row.value.get("type") != "custom_message":
        return said, bool(said)
    blocks = list_blocks(row.value.get("content"))
    return "\n\n".join(read_text(b.get("text")) for b in blocks), False


def _take_message(
    s: _Open, m: dict[str, Any], row: Row, file: InputFile, tally: Tally
) -> tuple[Entry, ...] | str:
    role = read_text(m.get("role"))
    if role in ("bashExecution", "pythonExecution"):
        return _take_command(m, row)
    if role in ("branchSummary", "compactionSummary"):
        text = read_text(m.get("summary"))
        return (Entry("summary", row.line, text=text),) if text.strip() else "empty"
    if role in ("custom", "hookMessage", "developer", "fileMention"):
        return "harness"
    if role not in ("user", "assistant", "toolResult"):
        tally.add("drift", f"role {role or 'missing'}")
        return "unknown role"
    content = m.get("content")
    if not isinstance(content, str | list | dict):
        tally.name("content is neither text nor blocks", file.name, row.line)
        return "wrong shape"
    texts: list[str] = []
    calls: list[Call] = []
    reason = "empty"
    for b in list_blocks(content):
        kind = read_text(b.get("type"))
        tally.add("blocks", f"{role} {kind}")
        if kind == "text":
            if (text := read_text(b.get("text"))).strip() or role == "toolResult":
                texts.append(text)
        elif kind == "image":
            texts.append(write_placeholder(kind, read_text(b.get("mimeType"))))
        elif kind == "toolCall":
            name = read_text(b.get("name")) or "unknown"
            arguments = read_arguments(b.get("arguments"))
            call_id = read_text(b.get("id")) or f"order {row.order}.{len(calls)}"
            calls.append(Call(call_id, name, arguments))
        elif kind in ("thinking", "redactedThinking"):
            reason = "thinking only"
        else:
            tally.add("drift", f"{role} block {kind or 'without type'}")
    if role == "toolResult":
        call_id = read_text(m.get("toolCallId"))
        return (Entry("result", row.line, text="\n".join(texts), call_id=call_id),)
    if role == "user":
        return (Entry("user", row.line, text="\n\n".join(texts)),) if texts else reason
    tally.add("models", read_text(m.get("model")) or "unknown")
    stop = read_text(m.get("stopReason"))
    if stop in _CUT_SHORT:
        return f"answer {stop}"
    if not texts and not calls:
        return reason
    text = "\n\n".join(t.strip() for t in texts)
    response = f"{s.session}:{row.order}"
    return (Entry("assistant", row.line, text=text, response=response, calls=tuple(calls)),)


def _take_command(m: dict[str, Any], row: Row) -> tuple[Entry, ...] | str:
    """What the human ran with ``!`` (``$`` for Python); doubled, the model never saw it."""
    if m.get("excludeFromContext") is True:
        return "not in context"
    text = f"Ran `{read_text(m.get('command')) or read_text(m.get('code'))}`"
    output = read_text(m.get("output")).rstrip()
    text += f"\n```\n{output}\n```" if output else ""
    code = m.get("exitCode")
    if m.get("cancelled") is True:
        text += "\n(cancelled)"
    elif isinstance(code, int) and code != 0:
        text += f"\nCommand exited with code {code}"
    return (Entry("user", row.line, text=text),)


def _plant(s: _Open, row: Row, node: _Node, file: InputFile, tally: Tally) -> None:
    """Put an entry into the tree. One without an id follows what stands before it."""
    r = row.value
    key = read_text(r.get("id"))
    parent = read_text(r.get("parentId")) or None if key else s.last
    if key in s.tree:
        tally.name("repeated entry id", file.name, row.line)
        key, parent = "", s.last
    key = key or f"order {row.order}"
    if parent == s.session:
        parent = None
    if parent is not None and parent not in s.tree:
        # Torn away, or written later: the tree goes on from the last entry.
        tally.add("tree", "missing parents")
        parent = s.last
    s.tree[key] = replace(node, parent=parent)
    s.last = key


def _walk(
    s: _Open, file: InputFile, labels: dict[str, Labels], tally: Tally
) -> Iterator[Conversation]:
    """The trunk, then each branch that says anything after it left."""
    inner = Counter(n.parent for n in s.tree.values())
    leaves = [k for k in s.tree if not inner[k] and k != s.last]
    used: set[str] = set()
    told = [n for n in s.tree.values() if n.text][:FIRST_TEXTS]
    texts = [n.text for n in told]
    header = next((n.text for n in told if n.prompt), "")
    for leaf in ([s.last] if s.last else []) + leaves:
        path: list[str] = []
        at: str | None = leaf
        while at is not None and at not in used:
            used.add(at)
            path.append(at)
            at = s.tree[at].parent
        path.reverse()
        entries = tuple(e for k in path for e in s.tree[k].entries)
        if not entries:
            continue
        tally.add("tree", "trunks" if leaf == s.last else "branches")
        found = link_session(texts, s.cwd, None, labels.get(s.parent))
        labels.setdefault(s.session, found)
        links = [f"session:{s.session}"]
        links += [f"session:{x}" for x in sorted({s.parent, *s.shared} - {"", s.session})]
        if found.bead:
            links.append(f"bead:{found.bead}")
        yield Conversation(
            source="pi",
            file=file.name,
            links=tuple(links),
            entries=entries,
            labels=found,
            session=s.session if leaf == s.last else f"{s.session}#{leaf}",
            header=header,
        )
