"""Codex rollouts: ``~/.codex/{sessions,archived_sessions}/YYYY/MM/DD/rollout-<ts>-<id>.jsonl``.

Events repeat the response items and stay out. A fork, or a second copy of a session, starts with what
its original holds: one of them keeps that part, so that each turn stands once. What each field means:
docs/corpus.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash
from msgspec.structs import replace

from gtft.corpus.claims import Claims
from gtft.corpus.example import Call, Conversation, Entry, Mark
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import Row, read_rows
from gtft.corpus.sources.block import (
    digest_entry,
    list_blocks,
    name_kind,
    note_drift,
    read_arguments,
    read_object,
    read_text,
    write_placeholder,
)
from gtft.corpus.sources.clues import Clues, Held, judge_author
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
# What a refused call gives back in place of a result.
_DENIED = (
    "exec command rejected by user",
    "patch rejected by user",
    "rejected by user",
    "user rejected",
)
# How far back the answer before an interruption is looked for.
_LONG_TURN = 256
_LARGEST = 999_999_999
_WITH_PAYLOAD = ("response_item", "event_msg")
_ASIDE = frozenset(
    {"turn_context", "world_state", "inter_agent_communication_metadata", "ghost_snapshot", "state"}
)


@dataclass
class _Open:
    """One rollout while it is read. ``chain``: a digest of all that was said so far, from the oldest session
    that it goes back to; equal for a copy, so a fork loses what its original keeps."""

    clues: Clues
    held: Held
    spawned: bool = False
    named: bool = False
    made: str = ""
    chain: str = ""
    said: bool = False
    kept: list[tuple[str, tuple[Entry, ...]]] = field(default_factory=list)
    rewound: list[tuple[Entry, ...]] = field(default_factory=list)
    header: str = ""
    model: str = ""
    answer: int = 0
    answering: bool = False
    waiting: list[str] = field(default_factory=list)


def read(files: Sequence[InputFile], tally: Tally, claims: Claims) -> Iterator[Conversation]:
    """The sessions of ``files``, one conversation each, in the order of the files; turns that were taken
    back are conversations of their own, marked ``rewound``.

    Tables: ``records`` (type), ``dropped`` (reason, in records), ``kept``, ``blocks``, ``models``, ``drift``.
    """
    for file in files:
        s = _read_session(file, tally, claims)
        s.held.note(f"session:{s.clues.session}", _rank(s, file))
        evidence = s.clues.write_evidence()
        links = s.clues.list_links(evidence)
        parts = [("", tuple(e for _, part in s.kept for e in part))]
        parts += [(f"rewound-{n}", part) for n, part in enumerate(s.rewound, start=1)]
        for name, entries in parts:
            if entries:
                yield Conversation(
                    source="codex",
                    file=file.name,
                    links=links,
                    entries=entries,
                    evidence=s.clues.write_evidence(name) if name else evidence,
                    header=s.header,
                )


def _read_session(file: InputFile, tally: Tally, claims: Claims) -> _Open:
    s = _Open(Clues(file.name), Held(claims), chain=file.name)
    for row in read_rows(file, tally):
        kind, p = _unwrap(row.value)
        inner = read_text(p.get("type")) or ("message" if "role" in p else "")
        name = name_kind(f"{kind} {inner}".strip() if kind in _WITH_PAYLOAD else kind)
        tally.add("records", name)
        s.clues.note_time(row.value.get("timestamp", row.value.get("created_at")))
        found = _take(s, kind, inner, p, row, file, tally)
        if isinstance(found, str):
            tally.add("dropped", found)
        elif not _claim(s, found):
            tally.add("dropped", "copied history")
        else:
            s.kept.append((name, found))
    for name, _ in s.kept:
        tally.add("kept", name)
    return s


def _rank(s: _Open, file: InputFile) -> str:
    """An original is older than its forks; of two copies the active one counts, then the longest."""
    archived = int("archived_sessions" in file.path.parts)
    size = min(file.path.stat().st_size, _LARGEST) if file.path.exists() else 0
    return f"{s.made or s.clues.started} {archived} {_LARGEST - size}"


def _claim(s: _Open, entries: tuple[Entry, ...]) -> bool:
    s.said = True
    for e in entries:
        s.chain = xxhash.xxh3_128_hexdigest(s.chain.encode("utf-8", "replace") + digest_entry(e))
    return s.held.take(f"codex {s.chain}")


def _take_head(s: _Open, p: dict[str, Any], file: InputFile) -> None:
    """The first header is the session's own; a fork repeats those of its ancestors behind it."""
    s.clues.cwd = s.clues.cwd or read_text(p.get("cwd")) or None
    s.clues.agent_name = s.clues.agent_name or read_text(p.get("agent_nickname")) or None
    s.clues.branch = s.clues.branch or read_text(read_object(p.get("git")).get("branch"))
    session = read_text(p.get("id")) or read_text(p.get("session_id")) or file.name
    if s.named:
        s.chain = s.chain if s.said else session
        return
    s.named = True
    spawn = read_object(
        read_object(read_object(p.get("source")).get("subagent")).get("thread_spawn")
    )
    forked = read_text(p.get("forked_from_id"))
    spawned = (
        read_text(p.get("parent_thread_id")),
        read_text(spawn.get("parent_thread_id")),
        read_text(p.get("session_id")),
    )
    s.made = read_text(p.get("timestamp"))[:40]
    s.clues.session = session
    s.clues.parent = next((x for x in (forked, *spawned) if x and x != session), "")
    s.spawned = bool(s.clues.parent and not forked)
    s.chain = forked or session


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
        _take_head(s, p, file)
        return "session header"
    if kind == "turn_context":
        s.clues.cwd = s.clues.cwd or read_text(p.get("cwd")) or None
        s.model = read_text(p.get("model"))
        tally.add("models", name_kind(s.model, "unknown"))
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
        if inner == "turn_aborted":
            if p.get("reason", "interrupted") == "interrupted":
                _interrupt(s)
            return "interruption"
        if inner in _EVENTS:
            return "event"
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
    name = name_kind(f"{kind} {inner}".strip())
    note_drift(f"record {name}", p or row.value, file, row.line, tally)
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
        tally.add("blocks", f"{name_kind(role, 'no role')} {name_kind(kind)}")
        if kind in ("input_text", "output_text", "text"):
            text = read_text(b.get("text"))
            if role != "assistant":
                s.clues.note_text(text)
            if role == "user" and text.lstrip().startswith(_HARNESS):
                reason = "harness"
            elif text.strip():
                summary = summary or text.startswith(_SUMMARY)
                texts.append(text)
        elif kind in ("input_image", "input_audio", "input_file"):
            texts.append(write_placeholder(kind.removeprefix("input_")))
        else:
            note_drift(f"{name_kind(role)} block {name_kind(kind)}", b, file, row.line, tally)
    if role not in ("user", "assistant"):
        return role if role in ("developer", "system") else "unknown role"
    if not texts:
        return reason
    said = "\n\n".join(texts)
    if role == "assistant":
        answer = _answer(s)
        return (Entry("assistant", row.line, text=said.strip(), response=answer, model=s.model),)
    s.answering = False
    if summary:
        return (Entry("summary", row.line, text=said),)
    s.header = s.header or said
    by = judge_author(said, s.clues.parent if s.spawned else "")
    return (Entry("user", row.line, text=said, by=by),)


def _answer(s: _Open) -> str:
    """One answer is all that the model says between two inputs: a rollout names no response."""
    if not s.answering:
        s.answer += 1
        s.answering = True
    return f"{s.clues.session}:{s.answer}"


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
    answer = _answer(s)
    return (Entry("assistant", row.line, response=answer, calls=(call,), model=s.model),)


def _take_result(s: _Open, p: dict[str, Any], row: Row) -> tuple[Entry, ...] | str:
    call_id = read_text(p.get("call_id"))
    if not call_id:
        # Without ids only one open call leaves no doubt.
        if len(s.waiting) != 1:
            return "result without a call id"
        call_id = s.waiting.pop()
    s.answering = False
    text = _flatten(p.get("output", p.get("result")))
    mark: Mark = "denied" if text.startswith(_DENIED) else ""
    if text.startswith("aborted by user"):
        mark = "interrupted"
    return (Entry("result", row.line, text=text, call_id=call_id, mark=mark),)


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


def _interrupt(s: _Open) -> None:
    """The human stopped the turn: what the model said or called last in it was cut off."""
    response = ""
    for i in range(len(s.kept) - 1, max(len(s.kept) - _LONG_TURN, 0) - 1, -1):
        name, entries = s.kept[i]
        last = entries[-1]
        if last.kind == "assistant" and not last.mark and response in ("", last.response):
            response = last.response
            s.kept[i] = (name, tuple(replace(e, mark="interrupted") for e in entries))
        elif last.kind != "result" or last.mark or response:
            return


def _roll_back(s: _Open, turns: Any, tally: Tally) -> None:
    """The human took back the last turns: what they hold was rejected."""
    left = turns if isinstance(turns, int) and not isinstance(turns, bool) else 0
    taken: list[tuple[Entry, ...]] = []
    while left > 0 and s.kept:
        name, entries = s.kept.pop()
        tally.add("kept", name)
        taken.append(tuple(replace(e, mark="rewound") for e in entries))
        left -= any(e.kind == "user" for e in entries)
    s.rewound.append(tuple(e for part in reversed(taken) for e in part))
    s.answering = False
