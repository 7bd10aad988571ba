"""Sessions of pi and omp: ``~/.pi/agent/sessions/--<folder>--/<ts>_<id>.jsonl``, ``~/.omp/agent/…``.

Since version 2 a file is a tree by ``id`` and ``parentId``. The path to its last entry is the session;
each other leaf is a branch of its own, from where it left. Version 1 is a line. A forked session starts
with copies of the entries of its original: they are kept once. What each field means: docs/corpus.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec.structs import replace as set_mark

from gtft.corpus.claims import Claims
from gtft.corpus.example import Call, Conversation, Entry
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import Row, read_rows
from gtft.corpus.sources.block import (
    digest_value,
    list_blocks,
    name_kind,
    note_drift,
    read_arguments,
    read_text,
    write_placeholder,
)
from gtft.corpus.sources.clues import FIRST_TEXTS, Clues, Held, judge_author
from gtft.corpus.tally import Tally

_ASIDE_NAMES = (
    "model_change thinking_level_change context_transform ephemeral custom label session_info title "
    "title_change ttsr_injection mode_change leaf session_init mcp_tool_selection service_tier_change "
    "credential_pin"
)
_ASIDE = frozenset(_ASIDE_NAMES.split())
# How far back the answer before an interruption is looked for.
_SHORT_TURN = 64
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

    clues: Clues
    held: Held
    tree: dict[str, _Node] = field(default_factory=dict)
    last: str | None = None


def read(files: Sequence[InputFile], tally: Tally, claims: Claims) -> Iterator[Conversation]:
    """The sessions of ``files`` and their branches, in the order of the files. A branch that the session did
    not go on from is marked ``rewound``.

    Tables: ``records`` (type), ``dropped`` (reason, in records), ``kept``, ``blocks``, ``models``,
    ``tree``, ``drift``.
    """
    for file in files:
        s = _Open(Clues(file.name), Held(claims))
        for row in read_rows(file, tally):
            kind = name_kind(row.value.get("type"))
            tally.add("records", kind)
            s.clues.note_time(row.value.get("timestamp"))
            found = _take(s, row, file, tally)
            entries = () if isinstance(found, str) else found
            node = _Node(None, entries, *_read_prompt(row, entries))
            if entries and not s.held.take(_name(row, file)):
                found, node = "copied history", replace(node, entries=())
            if isinstance(found, str):
                tally.add("dropped", found)
            else:
                tally.add("kept", kind)
            if found == "answer aborted":
                _interrupt(s)
            if kind != "session":
                _plant(s, row, node, file, tally)
        s.held.note(f"session:{s.clues.session}", s.clues.started)
        yield from _walk(s, file, tally)


def _take(s: _Open, row: Row, file: InputFile, tally: Tally) -> tuple[Entry, ...] | str:
    """What a record says, or the reason why it says nothing."""
    r = row.value
    kind = read_text(r.get("type"))
    if kind == "session":
        s.clues.session = read_text(r.get("id")) or s.clues.session
        s.clues.cwd = s.clues.cwd or read_text(r.get("cwd")) or None
        origin = read_text(r.get("parentSession")) or read_text(r.get("branchedFrom"))
        named = _SESSION_FILE.search(origin)
        s.clues.parent = named[1] if named else origin.rpartition("/")[2]
        return "session header"
    if kind in _ASIDE:
        return kind
    if kind == "reset_boundary":
        return (Entry("boundary", row.line),)
    if kind not in ("message", "compaction", "branch_summary", "custom_message"):
        note_drift(f"record {name_kind(kind)}", r, file, row.line, tally)
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


def _name(row: Row, file: InputFile) -> str:
    """Equal for copies of an entry: a copy keeps its time, but may have another id."""
    if not read_text(row.value.get("timestamp")):
        return f"pi {file.name} {row.order}"
    same = {k: v for k, v in row.value.items() if k not in ("id", "parentId")}
    return f"pi {digest_value(same).hex()}"


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
        note_drift(f"role {name_kind(role)}", m, file, row.line, tally)
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
        tally.add("blocks", f"{role} {name_kind(kind)}")
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
            note_drift(f"{role} block {name_kind(kind)}", b, file, row.line, tally)
    if role == "toolResult":
        call_id = read_text(m.get("toolCallId"))
        return (Entry("result", row.line, text="\n".join(texts), call_id=call_id),)
    if role == "user":
        text = "\n\n".join(texts)
        return (Entry("user", row.line, text=text, by=judge_author(text, "")),) if text else reason
    model = read_text(m.get("model"))
    tally.add("models", name_kind(model, "unknown"))
    stop = read_text(m.get("stopReason"))
    if stop in _CUT_SHORT:
        return f"answer {stop}"
    if not texts and not calls:
        return reason
    text = "\n\n".join(t.strip() for t in texts)
    response = f"{s.clues.session}:{row.order}"
    return (
        Entry("assistant", row.line, text=text, response=response, calls=tuple(calls), model=model),
    )


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
    if parent == s.clues.session:
        parent = None
    if parent is not None and parent not in s.tree:
        # Torn away, or written later: the tree goes on from the last entry.
        tally.add("tree", "missing parents")
        parent = s.last
    s.tree[key] = replace(node, parent=parent)
    s.last = key


def _interrupt(s: _Open) -> None:
    """The human stopped the turn: what the model did last in it was cut off."""
    at = s.last
    for _ in range(_SHORT_TURN):
        node = s.tree.get(at or "")
        if node is None or any(e.kind not in ("assistant", "result") for e in node.entries):
            return
        if any(e.kind == "assistant" for e in node.entries):
            marked = tuple(set_mark(e, mark="interrupted") for e in node.entries)
            s.tree[at or ""] = replace(node, entries=marked)
            return
        at = node.parent


def _walk(s: _Open, file: InputFile, tally: Tally) -> Iterator[Conversation]:
    """The trunk, then each branch that says anything after it left."""
    inner = {n.parent for n in s.tree.values()}
    leaves = [k for k in s.tree if k not in inner and k != s.last]
    used: set[str] = set()
    told = [n for n in s.tree.values() if n.text][:FIRST_TEXTS]
    s.clues.texts = [n.text for n in told]
    header = next((n.text for n in told if n.prompt), "")
    for leaf in ([s.last] if s.last else []) + leaves:
        path: list[str] = []
        at: str | None = leaf
        while at is not None and at not in used:
            used.add(at)
            path.append(at)
            at = s.tree[at].parent
        path.reverse()
        entries = [e for k in path for e in s.tree[k].entries]
        if not entries:
            continue
        trunk = leaf == s.last
        tally.add("tree", "trunks" if trunk else "branches")
        evidence = s.clues.write_evidence("" if trunk else leaf)
        yield Conversation(
            source="pi",
            file=file.name,
            links=s.clues.list_links(evidence),
            entries=tuple(entries if trunk else (set_mark(e, mark="rewound") for e in entries)),
            evidence=evidence,
            header=header,
        )
