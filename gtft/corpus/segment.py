"""Conversation → examples: answers put together, calls paired with results, long sessions cut.

Sizes are estimated at four characters a token. Cuts fall at compactions, then at user turns, then
between turns; never between a call and its result. Each assistant turn stands in one example only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gtft.corpus.example import (
    Call,
    Conversation,
    Entry,
    Example,
    Message,
    Origin,
    count_characters,
)
from gtft.corpus.redact import Redactor
from gtft.corpus.secret_rules import PLACEHOLDER
from gtft.corpus.tally import Tally

CHARACTERS_PER_TOKEN = 4
_PER_MESSAGE = 16
_LONGEST_HEADER = 1200
# A cut inside a text moves to white space that is near enough.
_SNAP = 200
_MARKER = 40


@dataclass(frozen=True)
class Limits:
    """``window`` and ``result`` in characters: of a whole example, of one tool result."""

    window: int
    result: int


@dataclass(frozen=True)
class Unit:
    """What is never split: one user turn, or one answer with the results of its calls."""

    kind: str
    messages: tuple[Message, ...]
    lines: tuple[int, int]

    @property
    def size(self) -> int:
        return sum(count_characters(m) + _PER_MESSAGE for m in self.messages)


def cut(talk: Conversation, limits: Limits, redactor: Redactor, tally: Tally) -> Iterator[Example]:
    """The examples of a conversation, redacted by rule; ids and clusters are not final yet.

    Tables: ``turns`` (kept, dropped by reason), ``segments`` (cut, and dropped by reason).
    """
    units = list(_assemble(talk.entries, limits, redactor, tally))
    said = {e.text for e in talk.entries if e.kind == "user"}
    carry = Carry(
        redactor.redact(talk.header),
        min(_LONGEST_HEADER, limits.window // 8),
        not talk.header or talk.header in said,
    )
    number = 0
    for window in _windows(units, carry, limits, talk.source, tally):
        tally.add("segments", "cut")
        if not any(u.kind == "assistant" for u in window.units):
            tally.add("segments dropped", "no assistant turn")
            continue
        yield _build(talk, window, number, redactor)
        number += 1


def clip(text: str, limit: int) -> str:
    """Head and tail of a long text, with a marker that says how much went between them.

    Cuts fall at white space when some is near, and never inside a placeholder.
    """
    if len(text) <= limit:
        return text
    room = limit - _MARKER
    # Too little room for both ends: the head alone.
    head = _snap_back(text, room * 2 // 3 if room >= _MARKER else limit)
    tail = _snap_forward(text, len(text) - room + head) if room >= _MARKER else len(text)
    for m in PLACEHOLDER.finditer(text):
        if m.start() < head < m.end():
            head = m.start()
        if m.start() < tail < m.end():
            tail = m.end()
    marker = f"[… {tail - head} characters left out …]"
    return f"{text[:head].rstrip()}\n{marker}\n{text[tail:].lstrip()}".strip()


def _snap_back(text: str, at: int) -> int:
    for i in range(at, max(at - _SNAP, 0), -1):
        if text[i].isspace():
            return i
    return at


def _snap_forward(text: str, at: int) -> int:
    for i in range(at, min(at + _SNAP, len(text))):
        if text[i].isspace():
            return i
    return at


def _assemble(
    entries: tuple[Entry, ...], limits: Limits, redactor: Redactor, tally: Tally
) -> Iterator[Unit]:
    """Units in the order of their first piece."""
    results: dict[str, Entry] = {}
    for e in entries:
        if e.kind == "result":
            if e.call_id in results:
                tally.add("turns dropped", "second result of a call")
            else:
                results[e.call_id] = e
    pieces: dict[str, list[Entry]] = {}
    for e in entries:
        if e.kind == "assistant":
            pieces.setdefault(e.response, []).append(e)
    called = {c.id for parts in pieces.values() for e in parts for c in e.calls}
    for call_id in results:
        if call_id not in called:
            tally.add("turns dropped", "result without a call")
    done: set[str] = set()
    for e in entries:
        if e.kind == "boundary":
            yield Unit("boundary", (), (e.line, e.line))
        elif e.kind in ("user", "summary"):
            room = limits.window // (2 if e.kind == "user" else 4)
            text = redactor.redact(e.text)
            if len(text) > room:
                tally.add("turns", f"long {e.kind} text clipped")
            tally.add("turns", e.kind)
            yield Unit(e.kind, ({"role": "user", "content": clip(text, room)},), (e.line, e.line))
        elif e.kind == "assistant" and e.response not in done:
            done.add(e.response)
            unit = _answer(pieces[e.response], results, limits, redactor, tally)
            if unit:
                yield unit


def _answer(
    parts: list[Entry],
    results: dict[str, Entry],
    limits: Limits,
    redactor: Redactor,
    tally: Tally,
) -> Unit | None:
    calls: dict[str, Call] = {}
    for e in parts:
        for c in e.calls:
            if c.id not in results:
                tally.add("turns dropped", "call without a result")
            else:
                calls.setdefault(c.id, c)
    text = "\n\n".join(e.text for e in parts if e.text)
    if not text and not calls:
        return None
    answer: Message = {"role": "assistant", "content": redactor.redact(text)}
    lines = [e.line for e in parts]
    messages = [answer]
    if calls:
        answer["tool_calls"] = [
            {
                "id": c.id,
                "type": "function",
                "function": {"name": c.name, "arguments": redactor.redact_tree(c.arguments)},
            }
            for c in calls.values()
        ]
    for c in calls.values():
        found = results[c.id]
        lines.append(found.line)
        redacted = redactor.redact(found.text)
        if len(redacted) > limits.result:
            tally.add("turns", "tool result clipped")
            tally.add("turns", "tool result characters left out", len(redacted) - limits.result)
        messages.append(
            {
                "role": "tool",
                "name": c.name,
                "content": clip(redacted, limits.result),
                "tool_call_id": c.id,
            }
        )
    tally.add("turns", "assistant")
    return Unit("assistant", tuple(messages), (min(lines), max(lines)))


@dataclass(frozen=True)
class Window:
    units: tuple[Unit, ...]
    header: str


@dataclass(frozen=True)
class Carry:
    """What later windows start with. ``starts_here``: the first prompt is part of this conversation."""

    first_prompt: str
    room: int
    starts_here: bool

    def before(self, unit: Unit, prompt: str) -> str:
        """The context of a window that starts with ``unit``, inside the episode of ``prompt``."""
        if unit.kind == "summary":
            return ""
        head = clip(self.first_prompt, self.room // 2)
        if unit.kind == "user" or not prompt or prompt.startswith(head):
            return clip(prompt, self.room) if unit.kind == "assistant" and prompt else head
        return f"{head}\n\n{clip(prompt, self.room // 2)}"


def _windows(
    units: list[Unit], carry: Carry, limits: Limits, source: str, tally: Tally
) -> Iterator[Window]:
    """Episodes packed into windows; what does not start the session gets the carried context."""
    first = carry.starts_here
    for part in _split_parts(units):
        if _size(part) <= limits.window and (first or part[0].kind == "summary"):
            yield Window(tuple(part), "")
            first = False
            continue
        for chunk, prompt in _pack(part, limits.window - carry.room, source, tally):
            yield Window(tuple(chunk), "" if first else carry.before(chunk[0], prompt))
            first = False


def _pack(
    part: list[Unit], room: int, source: str, tally: Tally
) -> Iterator[tuple[list[Unit], str]]:
    """Chunks of at most ``room`` characters, and the prompt of the episode that a chunk is cut from."""
    chunk: list[Unit] = []
    for episode in _split_episodes(part):
        if chunk and _size(chunk) + _size(episode) > room:
            yield chunk, ""
            chunk = []
        if _size(episode) <= room:
            chunk += episode
            continue
        prompt = "" if episode[0].kind == "assistant" else episode[0].messages[0]["content"]
        for piece in _split_turns(episode, room, source, tally):
            yield piece, prompt
    if chunk:
        yield chunk, ""


def _split_parts(units: list[Unit]) -> Iterator[list[Unit]]:
    part: list[Unit] = []
    for u in units:
        if u.kind == "boundary":
            if part:
                yield part
            part = []
        else:
            part.append(u)
    if part:
        yield part


def _split_episodes(part: list[Unit]) -> Iterator[list[Unit]]:
    """A new episode starts at a user turn that follows an answer."""
    episode: list[Unit] = []
    for u in part:
        if u.kind != "assistant" and episode and episode[-1].kind == "assistant":
            yield episode
            episode = []
        episode.append(u)
    if episode:
        yield episode


def _split_turns(episode: list[Unit], room: int, source: str, tally: Tally) -> Iterator[list[Unit]]:
    chunk: list[Unit] = []
    for u in episode:
        if u.size > room:
            tally.add("turns dropped", f"longer than the window ({source})")
            if any(x.kind == "assistant" for x in chunk):
                yield chunk
                chunk = []
            continue
        if chunk and _size(chunk) + u.size > room:
            yield chunk
            chunk = []
        chunk.append(u)
    if chunk:
        yield chunk


def _size(units: list[Unit]) -> int:
    return sum(u.size for u in units)


def _build(talk: Conversation, window: Window, number: int, redactor: Redactor) -> Example:
    messages: list[Message] = []
    if window.header:
        messages.append({"role": "user", "content": window.header})
    last_answer = max(i for i, u in enumerate(window.units) if u.kind == "assistant")
    kept = window.units[: last_answer + 1]
    for unit in kept:
        for m in unit.messages:
            if messages and m["role"] == "user" and messages[-1]["role"] == "user":
                before = messages[-1]["content"]
                if not m["content"].startswith(before):
                    m = {**m, "content": f"{before}\n\n{m['content']}"}
                messages[-1] = m
            else:
                messages.append(m)
    messages = _number_calls(messages)
    names = sorted({c["function"]["name"] for m in messages for c in m.get("tool_calls", ())})
    tools = tuple({"type": "function", "function": {"name": n, "parameters": {}}} for n in names)
    labels = talk.labels
    return Example(
        id="",
        source=talk.source,
        cluster=talk.links[0],
        messages=tuple(messages),
        tools=tools,
        role=labels.role,
        rig=labels.rig,
        bead=labels.bead,
        weight=1.0,
        provenance=talk.provenance,
        origin=Origin(
            redactor.redact(talk.file),
            (kept[0].lines[0], max(u.lines[1] for u in kept)),
            talk.session,
            number,
        ),
    ).identified()


def _number_calls(messages: list[Message]) -> list[Message]:
    """Call ids by order: a vendor's random id teaches nothing and makes equal examples differ."""
    names: dict[str, str] = {}
    out: list[Message] = []
    for m in messages:
        if m.get("tool_calls"):
            for c in m["tool_calls"]:
                names.setdefault(c["id"], f"call-{len(names) + 1}")
            m = {**m, "tool_calls": [{**c, "id": names[c["id"]]} for c in m["tool_calls"]]}
        elif m["role"] == "tool":
            m = {**m, "tool_call_id": names[m["tool_call_id"]]}
        out.append(m)
    return out
