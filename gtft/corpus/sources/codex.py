"""Codex rollouts: ``~/.codex/{sessions,archived_sessions}/YYYY/MM/DD/rollout-<ts>-<id>.jsonl``.

Events repeat the response items and stay out. A fork, or a second copy of a session, starts with what
its original holds: that part is dropped, so that each turn stands once. What each field means:
docs/corpus.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from gtft.corpus.example import Call, Conversation, Entry, Labels
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import Row, read_rows
from gtft.corpus.link import link_session
from gtft.corpus.sources.block import (
    FIRST_TEXTS,
    digest_entry,
    list_blocks,
    read_arguments,
    read_object,
    read_text,
    write_placeholder,
)
from gtft.corpus.tally import Tally

_HARNESS = (
    "# AGENTS.md instructions",
    "<INSTRUCTIONS",
    "<apps_instructions",
    "<collaboration_mode",
    "<environment_context",
    "<goal_context",
    "<hook_prompt",
    "<model_switch",
    "<permissions",
    "<personality_spec",
    "<plugins_instructions",
    "<skill",
    "<subagent_notification",
    "<turn_aborted",
    "<user_instructions",
)
_SUMMARY = "Another language model started to solve this problem"
_CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call", "tool_call"})
_RESULTS = frozenset(
    {
        "function_call_output",
        "custom_tool_call_output",
        "local_shell_call_output",
        "tool_result",
        "function_result",
    }
)
_ITEM_NAMES = (
    "reasoning agent_message tool_search_call tool_search_output web_search_call "
    "image_generation_call ghost_snapshot compaction compaction_summary context_compaction other"
)
_ITEMS = frozenset(_ITEM_NAMES.split())
_EVENT_NAMES = (
    "user_message agent_message agent_message_delta agent_reasoning agent_reasoning_delta "
    "agent_reasoning_raw_content agent_reasoning_section_break token_count task_started task_complete "
    "turn_started turn_complete turn.started turn.completed turn_aborted turn_diff context_compacted "
    "patch_apply_begin patch_apply_end exec_command_begin exec_command_end mcp_tool_call_begin "
    "mcp_tool_call_end web_search_begin web_search_end image_generation_end view_image_tool_call "
    "dynamic_tool_call_request dynamic_tool_call_response collab_agent_spawn_end "
    "collab_agent_interaction_end collab_waiting_end collab_close_end collab_resume_end "
    "sub_agent_activity entered_review_mode exited_review_mode item_completed thread_name_updated "
    "thread_goal_updated thread_settings_applied guardian_assessment plan_update undo_completed error "
    "warning stream_error background_event model_reroute account/rateLimits/updated codex/event/raw_item"
)
_EVENTS = frozenset(_EVENT_NAMES.split())
_ASIDE = frozenset(
    {"turn_context", "world_state", "inter_agent_communication_metadata", "ghost_snapshot", "state"}
)


@dataclass(frozen=True)
class _Head:
    """What the head of a file says: session, the one it came from, and when it started."""

    session: str
    parent: str = ""
    forked: bool = False
    started: str = ""


@dataclass
class _Open:
    """One rollout while it is read. ``base``: digests of the entries that its original holds."""

    head: _Head
    base: list[bytes]
    copied: int | None = 0
    kept: list[tuple[str, tuple[Entry, ...]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    header: str = ""
    cwd: str | None = None
    agent_name: str | None = None
    answer: int = 0
    answering: bool = False
    waiting: list[str] = field(default_factory=list)


def read(files: Sequence[InputFile], tally: Tally) -> Iterator[Conversation]:
    """The sessions of ``files``, one conversation each, in the order of the files.

    Tables: ``records`` (type), ``dropped`` (reason, in records), ``kept``, ``blocks``, ``models``, ``drift``.
    """
    heads = [_read_head(file) for file in files]
    leaders = _choose_leaders(files, heads)
    labels: dict[str, Labels] = {}
    for number, (file, head) in enumerate(zip(files, heads, strict=True)):
        original = _find_original(number, heads, leaders)
        base = [] if original is None else _digest(files[original], heads[original])
        s = _read_session(file, head, base, tally)
        entries = tuple(e for _, part in s.kept for e in part)
        if not entries:
            continue
        found = link_session(s.texts, s.cwd, s.agent_name, labels.get(head.parent))
        labels.setdefault(head.session, found)
        links = [f"session:{head.session}"]
        if head.parent:
            links.append(f"session:{head.parent}")
        if found.bead:
            links.append(f"bead:{found.bead}")
        yield Conversation(
            source="codex",
            file=file.name,
            links=tuple(links),
            entries=entries,
            labels=found,
            session=head.session,
            header=s.header,
        )


def _read_head(file: InputFile) -> _Head:
    """From the first session_meta; a fork repeats its parent's behind its own."""
    for row in islice(read_rows(file, Tally()), 20):
        kind, p = _unwrap(row.value)
        if kind == "session_meta":
            forked = read_text(p.get("forked_from_id"))
            spawn = read_object(
                read_object(read_object(p.get("source")).get("subagent")).get("thread_spawn")
            )
            session = read_text(p.get("id")) or read_text(p.get("session_id")) or file.name
            parents = (
                forked,
                read_text(p.get("parent_thread_id")),
                read_text(spawn.get("parent_thread_id")),
                read_text(p.get("session_id")),
            )
            parent = next((x for x in parents if x and x != session), "")
            started = read_text(p.get("timestamp")) or read_text(row.value.get("timestamp"))
            return _Head(session, parent, bool(forked), started)
    return _Head(file.name)


def _choose_leaders(files: Sequence[InputFile], heads: Sequence[_Head]) -> dict[str, int]:
    """The file of each session that counts: the active one, then the longest, then the first."""
    leaders: dict[str, tuple[bool, int, int]] = {}
    for number, (file, head) in enumerate(zip(files, heads, strict=True)):
        size = file.path.stat().st_size if file.path.exists() else 0
        rank = ("archived_sessions" in file.path.parts, -size, number)
        leaders[head.session] = min(rank, leaders.get(head.session, rank))
    return {session: rank[2] for session, rank in leaders.items()}


def _find_original(number: int, heads: Sequence[_Head], leaders: dict[str, int]) -> int | None:
    """The file whose entries this one repeats at its start."""
    head = heads[number]
    if leaders[head.session] != number:
        return leaders[head.session]
    parent = leaders.get(head.parent) if head.forked else None
    # An original is older: two files can never take each other for it.
    return parent if parent is not None and heads[parent].started < head.started else None


def _digest(file: InputFile, head: _Head) -> list[bytes]:
    s = _read_session(file, head, [], Tally())
    return [digest_entry(e) for _, part in s.kept for e in part]


def _read_session(file: InputFile, head: _Head, base: list[bytes], tally: Tally) -> _Open:
    s = _Open(head, base)
    for row in read_rows(file, tally):
        kind, p = _unwrap(row.value)
        inner = read_text(p.get("type")) or ("message" if "role" in p else "")
        name = f"{kind} {inner}".strip() if kind in ("response_item", "event_msg") else kind
        tally.add("records", name or "no type")
        found = _take(s, kind, inner, p, row, file, tally)
        if isinstance(found, str):
            tally.add("dropped", found)
        elif _is_copy(s, found):
            tally.add("dropped", "copied history")
        else:
            s.kept.append((name, found))
    for name, _ in s.kept:
        tally.add("kept", name)
    return s


def _unwrap(r: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Type and payload of a line. Lines before 0.5x are the payload itself."""
    kind = read_text(r.get("type"))
    payload = r.get("payload")
    if isinstance(payload, dict):
        return kind, payload
    if not kind and isinstance(r.get("id"), str) and "role" not in r:
        return "session_meta", r
    if "record_type" in r:
        return "state", r
    if "role" in r or kind == "message" or kind in _CALLS | _RESULTS | _ITEMS:
        return "response_item", r
    return kind, {}


def _is_copy(s: _Open, entries: tuple[Entry, ...]) -> bool:
    """Is this the next thing that the original says too?"""
    if s.copied is None:
        return False
    end = s.copied + len(entries)
    if s.base[s.copied : end] == [digest_entry(e) for e in entries]:
        s.copied = end
        return True
    s.copied = None
    return False


def _take(
    s: _Open,
    kind: str,
    inner: str,
    p: dict[str, Any],
    row: Row,
    file: InputFile,
    tally: Tally,
) -> tuple[Entry, ...] | str:
    """What a record says, or the reason why it says nothing."""
    if kind == "session_meta":
        s.cwd = s.cwd or read_text(p.get("cwd")) or None
        s.agent_name = s.agent_name or read_text(p.get("agent_nickname")) or None
        return "session header"
    if kind == "turn_context":
        s.cwd = s.cwd or read_text(p.get("cwd")) or None
        tally.add("models", read_text(p.get("model")) or "unknown")
        return kind
    if kind == "compacted":
        s.answering = False
        text = read_text(p.get("message"))
        summary = (Entry("summary", row.line, text=text),) if text.strip() else ()
        return (Entry("boundary", row.line), *summary)
    if kind == "event_msg":
        if inner == "thread_rolled_back":
            _roll_back(s, p.get("num_turns"), tally)
            return "event"
        if inner in _EVENTS:
            return "interruption" if inner == "turn_aborted" else "event"
    elif kind == "response_item":
        if inner == "message":
            return _take_message(s, p, row, file, tally)
        if inner in _CALLS:
            return _take_call(s, inner, p, row)
        if inner in _RESULTS:
            return _take_result(s, p, row)
        if inner in _ITEMS:
            return inner
    elif kind in _ASIDE:
        return kind
    name = f"{kind} {inner}".strip() or "without type"
    tally.add("drift", f"record {name}")
    tally.name("unknown record type", file.name, row.line, name)
    return "unknown type"


def _take_message(
    s: _Open, p: dict[str, Any], row: Row, file: InputFile, tally: Tally
) -> tuple[Entry, ...] | str:
    role = read_text(p.get("role"))
    content = p.get("content", p.get("message"))
    if not isinstance(content, str | list | dict):
        tally.name("content is neither text nor blocks", file.name, row.line)
        return "wrong shape"
    texts: list[str] = []
    summary = False
    reason = "empty"
    for b in list_blocks(content):
        kind = read_text(b.get("type"))
        tally.add("blocks", f"{role or 'no role'} {kind}")
        if kind in ("input_text", "output_text", "text"):
            text = read_text(b.get("text"))
            if role != "assistant" and text and len(s.texts) < FIRST_TEXTS:
                s.texts.append(text)
            if role == "user" and text.lstrip().startswith(_HARNESS):
                reason = "harness"
            elif text.strip():
                summary = summary or text.startswith(_SUMMARY)
                texts.append(text)
        elif kind in ("input_image", "input_audio", "input_file"):
            texts.append(write_placeholder(kind.removeprefix("input_")))
        else:
            tally.add("drift", f"{role} block {kind or 'without type'}")
    if role not in ("user", "assistant"):
        return role if role in ("developer", "system") else "unknown role"
    if not texts:
        return reason
    said = "\n\n".join(texts)
    if role == "assistant":
        return (Entry("assistant", row.line, text=said.strip(), response=_answer(s)),)
    s.answering = False
    if summary:
        return (Entry("summary", row.line, text=said),)
    s.header = s.header or said
    return (Entry("user", row.line, text=said),)


def _answer(s: _Open) -> str:
    """One answer is all that the model says between two inputs: a rollout names no response."""
    if not s.answering:
        s.answer += 1
        s.answering = True
    return f"{s.head.session}:{s.answer}"


def _take_call(s: _Open, inner: str, p: dict[str, Any], row: Row) -> tuple[Entry, ...] | str:
    function = read_object(p.get("function"))
    name = read_text(p.get("name")) or read_text(function.get("name"))
    given = p.get("input") if inner == "custom_tool_call" else p.get("arguments")
    arguments = read_arguments(given)
    if inner == "local_shell_call":
        name, arguments = "local_shell", read_object(p.get("action"))
    elif inner == "custom_tool_call" and isinstance(given, str):
        # A custom tool takes raw text, also when it looks like JSON.
        arguments = {"input": given}
    call_id = read_text(p.get("call_id"))
    if not call_id:
        call_id = f"line {row.line}.{row.order}"
        s.waiting.append(call_id)
    call = Call(call_id, name or "unknown", arguments)
    return (Entry("assistant", row.line, response=_answer(s), calls=(call,)),)


def _take_result(s: _Open, p: dict[str, Any], row: Row) -> tuple[Entry, ...] | str:
    call_id = read_text(p.get("call_id"))
    if not call_id:
        # Without ids only one open call leaves no doubt.
        if len(s.waiting) != 1:
            return "result without a call id"
        call_id = s.waiting.pop()
    s.answering = False
    text = _flatten(p.get("output", p.get("result")))
    return (Entry("result", row.line, text=text, call_id=call_id),)


def _flatten(output: Any) -> str:
    """The text of a result: a string, blocks, or an object that holds them."""
    if isinstance(output, str):
        return output
    if isinstance(output, dict) and "type" not in output:
        parts = [output.get(k) for k in ("content", "output", "stdout", "stderr")]
        return "\n".join(_flatten(v) for v in parts if v)
    texts = []
    for b in list_blocks(output):
        kind = read_text(b.get("type"))
        text = read_text(b.get("text"))
        texts.append(text or write_placeholder(kind.removeprefix("input_") or "block"))
    return "\n".join(texts)


def _roll_back(s: _Open, turns: Any, tally: Tally) -> None:
    """The human took back the last turns: what they hold was rejected."""
    left = turns if isinstance(turns, int) and not isinstance(turns, bool) else 0
    while left > 0 and s.kept:
        _, entries = s.kept.pop()
        tally.add("dropped", "rolled back")
        left -= any(e.kind == "user" for e in entries)
    s.answering = False
