"""Which format a file is, by what it holds; its name says nothing.

The first records that can be decoded decide, torn ones by the keys that are left of them. What an agent
writes that gtft does not read (Copilot, Cursor, Droid, Qwen …) is no format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from gtft.corpus.files import InputFile, read_head
from gtft.corpus.sources.database import DATABASE, list_tables
from gtft.corpus.sources.formulas import parse_toml

_SHORT = 4096
_LONG = 64 * 1024
_RECORDS = 25
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[\s,]*")

Record = dict[str, Any]


def sniff(file: InputFile) -> str | None:
    """The format's name in `gtft.corpus.sources.FORMATS`; None when it is none that gtft reads.

    Reads 4 KiB, and 64 KiB when those do not tell. Raises InputError when the system refuses to read.
    """
    head = read_head(file, _SHORT)
    if head.startswith(DATABASE):
        return _judge_tables(list_tables(file))
    found = _judge(head, whole=len(head) < _SHORT)
    if found is None and len(head) == _SHORT:
        head = read_head(file, _LONG)
        found = _judge(head, whole=len(head) < _LONG)
    return found or None


def holds_lines(file: InputFile) -> bool:
    """Is it JSON lines, of whatever kind but those of an agent that gtft does not read?"""
    text = _clean(read_head(file, _SHORT))
    first = text.partition("\n")[0].strip()
    return text.startswith("{") and len(first) > 1 and _judge(text.encode(), whole=False) != ""


def holds_records(file: InputFile) -> bool:
    """The same, or one JSON document, or a database."""
    head = read_head(file, _SHORT)
    if head.startswith(DATABASE):
        return True
    return _clean(head)[:1] in ("{", "[") and _judge(head, whole=False) != ""


def holds_toml(file: InputFile) -> bool:
    """Is it TOML, or JSON: what a formula may be?"""
    text = _clean(read_head(file, _LONG))
    return text.startswith("{") or bool(_TOML.match(text))


def holds_prose(file: InputFile) -> bool:
    """Is it text of sentences, though without Markdown's marks?"""
    text = _clean(read_head(file, _LONG))
    if not text or text[0] in "{[" or "\ufffd" in text[:-4] or _is_code(text):
        return False
    plain = sum(c.isalpha() or c.isspace() or c in ".,;:'\"!?()-–—" for c in text)
    return plain >= 0.95 * len(text) and text.count(" ") >= 5


def _judge(head: bytes, *, whole: bool) -> str | None:
    """A format, "" for something known that is none, None when this does not tell."""
    text = _clean(head)
    if text[:1] in ("{", "["):
        for record in _list_records(text):
            found = _judge_record(record)
            if found is not None:
                return found
        return None
    if b"\x00" in head.lstrip(b"\x00\xef\xbb\xbf"):
        return None
    if _TOML.match(text):
        found = _judge_toml(text, whole=whole)
        if found is not None or not whole:
            return found
    return "docs" if _is_markdown(text) else None


def _clean(head: bytes) -> str:
    return head.replace(b"\x00", b"").decode("utf-8", "replace").lstrip("\ufeff \t\r\n")


def _list_records(text: str) -> Iterator[Record]:
    """The first records of a text, each of its objects wherever it starts; a torn one by its keys."""
    at = 0
    for _ in range(_RECORDS):
        at = _skip(text, at)
        if text.startswith("[", at):
            at = _skip(text, at + 1)
        if not text.startswith("{", at):
            # The rest of something torn: the next line may start a record.
            at = text.find("\n{", at) + 1
            if not at:
                return
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, at = _read_torn(text, at), text.find("\n{", at) + 1
            yield value
            if not at:
                return
        else:
            yield value


def _read_torn(text: str, at: int) -> Record:
    """The top keys of an object that has no end here, with those values that are whole."""
    found: Record = {}
    at += 1
    while True:
        at = _skip(text, at)
        try:
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, at)
            if not isinstance(key, str) or not text.startswith(":", at):
                return found
            at = _skip(text, at + 1)
            found[key] = {"{": {}, "[": [], '"': ""}.get(text[at : at + 1])
            found[key], at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _judge_record(r: Record) -> str | None:
    """The first rule that fits. "" is an agent that gtft does not read."""
    for name, fits in _RULES:
        if fits(r):
            return name
    return None


def _is_other(r: Record) -> bool:
    """Agents whose records look like others' further down: Droid, Copilot, Qwen, Kimi, Cursor, Grok, Hermes."""
    kind = r.get("type")
    if kind in ("session_start", "session.start", "turn.prompt", "metadata"):
        return True
    message = r.get("message")
    if isinstance(message, dict) and ("parts" in message or ("role" in r and "type" not in r)):
        return True
    return "step_index" in r or "systemPayload" in r or ("session_id" in r and "platform" in r)


def _is_claude(r: Record) -> bool:
    kind = r.get("type")
    if kind in ("user", "assistant"):
        return _has(r, "uuid") or _has(r, "sessionId") or isinstance(r.get("message"), dict)
    if kind in ("system", "progress", "attachment"):
        return _has(r, "uuid")
    alone = {
        "summary": "leafUuid",
        "file-history-snapshot": "messageId",
        "custom-title": "customTitle",
        "queue-operation": "operation",
        "tool_use": "input",
        "tool_result": "tool_use_id",
        "pr-link": "prUrl",
    }
    if isinstance(kind, str):
        return alone.get(kind, "") in r or (_has(r, "sessionId") and kind in _CLAUDE_ASIDE)
    # A session as the web exports it is one object.
    if isinstance(r.get("loglines"), list):
        return True
    return _has(r, "sessionId") and isinstance(r.get("message"), dict)


_CLAUDE_ASIDE_NAMES = (
    "mode permission-mode ai-title agent-name last-prompt worktree-state relocated started frame-link "
    "bridge-session"
)
_CLAUDE_ASIDE = frozenset(_CLAUDE_ASIDE_NAMES.split())


def _is_codex(r: Record) -> bool:
    kind = r.get("type")
    if isinstance(r.get("payload"), dict) and isinstance(kind, str):
        return "source" not in r
    if "record_type" in r:
        return True
    dated = "timestamp" in r or "created_at" in r
    if isinstance(r.get("role"), str) and not isinstance(r.get("message"), dict):
        typed = any(
            isinstance(b, dict) and b.get("type") in ("input_text", "output_text")
            for b in (r["content"] if isinstance(r.get("content"), list) else ())
        )
        return typed or (dated and ("content" in r or "message" in r) and "id" not in r)
    if kind in ("function_call", "function_call_output", "local_shell_call"):
        return True
    return "instructions" in r and {"id", "timestamp"} <= r.keys()


def _is_gemini(r: Record) -> bool:
    if "$set" in r or "$rewindTo" in r:
        return True
    if "projectHash" in r or (_has(r, "sessionId") and isinstance(r.get("messages"), list)):
        return True
    if r.get("type") == "gemini" and "content" in r:
        return True
    # A document may open with its list of messages, and a checkpoint is nothing but a history.
    said = r.get("messages", r.get("history"))
    first = said[0] if isinstance(said, list) and said else None
    return isinstance(first, dict) and (
        "parts" in first or first.get("type") in ("user", "gemini", "info")
    )


def _is_pi(r: Record) -> bool:
    kind = r.get("type")
    if kind == "session":
        return "cwd" in r and ("timestamp" in r or "version" in r)
    if kind == "message" and isinstance(r.get("message"), dict):
        return "parentId" in r or "timestamp" in r
    return kind in ("model_change", "thinking_level_change") or (
        kind in ("compaction", "branch_summary") and "summary" in r
    )


_PARTS = frozenset(
    [
        "text",
        "reasoning",
        "tool",
        "file",
        "step-start",
        "step-finish",
        "patch",
        "snapshot",
        "compaction",
    ]
)


def _is_opencode(r: Record) -> bool:
    if not isinstance(r.get("id"), str):
        return False
    if _has(r, "type") and r["type"] in _PARTS:
        return "sessionID" in r or "messageID" in r or isinstance(r.get("time"), dict)
    if "role" in r:
        return "sessionID" in r or isinstance(r.get("time"), dict)
    return isinstance(r.get("time"), dict) and ("directory" in r or "projectID" in r)


_BEAD_KEYS = frozenset({"status", "issue_type", "priority", "description"})


def _is_bead(r: Record) -> bool:
    if r.get("_type") in ("issue", "memory"):
        return True
    if _has(r, "id") and _has(r, "title"):
        return bool(_BEAD_KEYS & r.keys())
    if "issue_id" in r and "kind" not in r:
        return bool({"event_type", "depends_on_id", "label", "text"} & r.keys())
    if r.keys() == {"key", "value"}:
        return isinstance(r["key"], str)
    if {"id", "deleted_at"} <= r.keys():
        return True
    data = r.get("data") if "schema_version" in r else r.get("issues")
    first = data[0] if isinstance(data, list) and data else data
    return (
        isinstance(first, dict)
        and bool(first)
        and "schema_version" not in first
        and _is_bead(first)
    )


def _is_interaction(r: Record) -> bool:
    kinds = ("llm_call", "tool_call", "label", "field_change")
    return _has(r, "id") and r.get("kind") in kinds


def _is_formula(r: Record) -> bool:
    return _has(r, "formula") and bool(_FORMULA_KEYS & r.keys())


_FORMULA_KEYS = frozenset(
    ["description", "steps", "template", "aspects", "legs", "vars", "version", "extends", "type"]
)


def _has(r: Record, key: str) -> bool:
    return isinstance(r.get(key), str)


# In this order: what is told by one key comes before what is told by shape.
_RULES: tuple[tuple[str, Callable[[Record], bool]], ...] = (
    ("", _is_other),
    ("interactions", _is_interaction),
    ("beads", _is_bead),
    ("formulas", _is_formula),
    ("codex", _is_codex),
    ("gemini", _is_gemini),
    ("opencode", _is_opencode),
    ("pi", _is_pi),
    ("claude-code", _is_claude),
)


def _judge_tables(tables: frozenset[str]) -> str | None:
    if {"session", "message", "part"} <= tables:
        return "opencode"
    return "beads" if "issues" in tables else None


# The first line that is no comment assigns something, or opens a table.
_TOML = re.compile(
    r"(?:#[^\n]*\n|\s)*(?:[A-Za-z_][\w.-]{0,60}[ \t]*=[ \t]*\S"
    r"|\[\[?[A-Za-z_][\w.-]{0,80}\]\]?[ \t]*$)",
    re.MULTILINE,
)
_NAMED = re.compile(r"^formula[ \t]*=", re.MULTILINE)
_TABLES = re.compile(r"^\[\[?(?:steps|legs|template|aspects|vars|advice)\b", re.MULTILINE)


def _judge_toml(text: str, *, whole: bool) -> str | None:
    """A file that is too long to be here whole is told by its tables."""
    if not whole:
        return "formulas" if _NAMED.search(text) or _TABLES.search(text) else None
    try:
        doc = parse_toml(text)
    except ValueError:
        return "formulas" if _NAMED.search(text) and _TABLES.search(text) else None
    return "formulas" if _is_formula(doc) or ("steps" in doc and "description" in doc) else ""


_TOP = re.compile(r"#{1,3} \S[^\n]{0,200}\n[ \t]*(?:\n|[-*] |\Z)")
_SECTION = re.compile(r"^#{2,6} \S", re.MULTILINE)
_LIST = re.compile(r"^[ \t]{0,8}(?:[-*] |\d{1,3}\. )\S", re.MULTILINE)
_MARKS = re.compile(
    r"^```|^\|[^\n]{1,300}\|[ \t]*$|\[[^\]\n]{1,100}\]\([^)\s]{1,300}\)|\*\*\w[^*\n]{0,100}\*\*",
    re.MULTILINE,
)
_SPAN = re.compile(r"`[^`\n]{1,100}`")
# Lines of programs and of settings: their comments look like headings.
_CODE = re.compile(
    r"^\s*(?:import |from \S{1,80} import |package |#include|using |def |class |func |fn |const |let |var "
    r"|return |if |fi$|done$|export |set -|FROM |RUN |[a-z_][\w.-]{0,60}:(?: |$))|[;{}][ \t]*$",
    re.MULTILINE,
)
_LEAST_MARKDOWN = 2.5


def _is_markdown(text: str) -> bool:
    """Enough of Markdown's marks, and few lines of code outside of fences. Front matter says nothing."""
    if text.startswith("---\n"):
        text = text[4:].partition("\n---")[2].lstrip() or text
    prose = "\n".join(text.split("```")[::2])
    score = 2.0 if _TOP.match(text) else 0.0
    score += 1.0 if _SECTION.search(prose) else 0.0
    score += 1.0 if _MARKS.search(text) else 0.0
    score += 0.5 if _LIST.search(prose) else 0.0
    score += 0.5 if _SPAN.search(prose) else 0.0
    return score >= _LEAST_MARKDOWN and not _is_code(prose)


def _is_code(text: str) -> bool:
    lines = sum(1 for line in text.split("\n") if line.strip())
    return text.startswith("#!") or len(_CODE.findall(text)) > lines / 10
