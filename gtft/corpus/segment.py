"""Conversation → cuts: answers put together, calls paired with results, long sessions cut.

Sizes are estimated at four characters a token. Cuts fall at compactions, then at user turns, then
between turns; never between a call and its result. Each assistant turn stands in one cut only. A later
window starts with what it must know (the task, the last summary, the prompt of its episode), never trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from gtft.corpus.example import (
    Call,
    Conversation,
    Entry,
    Mark,
    Message,
)
from gtft.corpus.redaction.engine import PLACEHOLDER
from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.tally import Tally

CHARACTERS_PER_TOKEN = 4
_PER_MESSAGE = 16
_LONGEST_HEADER = 1200
# A cut inside a text moves to white space that is near enough.
_SNAP = 200
_MARKER = 40
_AUTHORS = {"user": "human", "summary": "harness"}


@dataclass(frozen=True)
class Limits:
    """``window`` and ``result`` in characters: of a whole example, of one tool result."""

    window: int
    result: int


class Unit(msgspec.Struct, frozen=True):
    """What is never split: one user turn, or one answer with the results of its calls."""

    kind: str
    messages: tuple[Message, ...]
    by: tuple[str, ...]
    lines: tuple[int, int]
    size: int
    marks: tuple[Mark, ...] = ()


class Cut(msgspec.Struct, frozen=True):
    """An example before it has labels. ``by``: who wrote each message; ``number``: its place in the session."""

    messages: tuple[Message, ...]
    tools: tuple[Message, ...]
    by: tuple[str, ...]
    lines: tuple[int, int]
    number: int
    marks: tuple[Mark, ...] = ()


def cut(
    talk: Conversation, units: Sequence[Unit], limits: Limits, redactor: Redactor, tally: Tally
) -> Iterator[Cut]:
    """The examples of a conversation, of what `assemble` made of its entries.

    Tables: ``turns dropped`` and ``characters`` (left out by reason), ``segments`` (cut), ``segments
    dropped`` (reason).
    """
    carry = Carry(
        redactor.redact(talk.header),
        min(_LONGEST_HEADER, limits.window // 8),
        not talk.header or any(e.kind == "user" and e.text == talk.header for e in talk.entries),
    )
    number = 0
    for window in _windows(units, carry, limits, talk.source, tally):
        tally.add("segments", "cut")
        if not any(u.kind == "assistant" for u in window.units):
            tally.add("segments dropped", "no assistant turn")
            continue
        yield _build(window, number)
        number += 1


def shorten(line: str, limit: int) -> str:
    """A line of at most ``limit`` characters. The cut falls between words: half a pseudonym looks like a name."""
    if len(line) <= limit:
        return line
    head, _, _ = line[:limit].rpartition(" ")
    return f"{head}…" if head else "…"


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
    if "<SECRET:" in text:
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


def assemble(
    entries: Sequence[Entry], limits: Limits, redactor: Redactor, tally: Tally
) -> Iterator[Unit]:
    """What is never split, redacted by rule, in the order of its first piece.

    Tables: ``turns`` (kept by kind), ``turns dropped`` (reason), ``characters`` (said, left out by reason).
    """
    results: dict[str, Entry] = {}
    pieces: dict[str, list[Entry]] = {}
    called: set[str] = set()
    for e in entries:
        if e.kind == "result":
            if e.call_id in results:
                tally.add("turns dropped", "second result of a call")
            else:
                results[e.call_id] = e
        elif e.kind == "assistant":
            pieces.setdefault(e.response, []).append(e)
            called.update([c.id for c in e.calls])
    for call_id, e in results.items():
        if call_id not in called:
            tally.add("turns dropped", "result without a call")
            tally.add("characters", "left out: result without a call", len(e.text))
    done: set[str] = set()
    for e in entries:
        kind = e.kind
        if kind == "assistant":
            if e.response not in done:
                done.add(e.response)
                unit = _answer(pieces[e.response], results, limits, redactor, tally)
                if unit:
                    yield unit
        elif kind in ("user", "summary"):
            room = limits.window // (2 if kind == "user" else 4)
            text = redactor.redact(e.text)
            tally.add("characters", "said", len(text))
            if len(text) > room:
                tally.add("turns", f"long {kind} text clipped")
                tally.add("characters", f"left out: long {kind} text cut", len(text) - room)
                text = clip(text, room)
            tally.add("turns", kind)
            yield Unit(
                kind,
                ({"role": "user", "content": text},),
                (e.by or _AUTHORS[kind],),
                (e.line, e.line),
                len(text) + _PER_MESSAGE,
                (e.mark,) if e.mark else (),
            )
        elif kind == "boundary":
            yield Unit("boundary", (), (), (e.line, e.line), 0)


def _answer(
    parts: list[Entry],
    results: dict[str, Entry],
    limits: Limits,
    redactor: Redactor,
    tally: Tally,
) -> Unit | None:
    calls: dict[str, Call] = {}
    marks: list[Mark] = []
    for e in parts:
        if e.mark:
            marks.append(e.mark)
        for c in e.calls:
            if c.id not in results:
                tally.add("turns dropped", "call without a result")
            else:
                calls.setdefault(c.id, c)
    text = "\n\n".join([e.text for e in parts if e.text])
    if not text and not calls:
        return None
    first = last = parts[0].line
    model = parts[0].model
    for e in parts:
        first, last = min(first, e.line), max(last, e.line)
    text = redactor.redact(text)
    answer: Message = {"role": "assistant", "content": text}
    messages = [answer]
    said = len(text)
    size = said + _PER_MESSAGE
    if calls:
        made = []
        for c in calls.values():
            function = {
                "name": redactor.redact(c.name),
                "arguments": redactor.redact_tree(c.arguments),
            }
            n = len(msgspec.json.encode(function))
            said += n
            size += n
            made.append({"id": c.id, "type": "function", "function": function})
        answer["tool_calls"] = made
    for c in calls.values():
        found = results[c.id]
        if found.mark:
            marks.append(found.mark)
        first, last = min(first, found.line), max(last, found.line)
        content = redactor.redact(found.text)
        said += len(content)
        if len(content) > limits.result:
            tally.add("turns", "tool result clipped")
            tally.add("characters", "left out: tool result cut", len(content) - limits.result)
            content = clip(content, limits.result)
        size += len(content) + _PER_MESSAGE
        name = redactor.redact(c.name)
        messages.append({"role": "tool", "name": name, "content": content, "tool_call_id": c.id})
    tally.add("turns", "assistant")
    tally.add("characters", "said", said)
    by = (f"agent:{model}" if model else "agent",)
    return Unit(
        "assistant",
        tuple(messages),
        by + ("tool",) * (len(messages) - 1),
        (first, last),
        size,
        tuple(marks),
    )


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

    def before(self, unit: Unit, prompt: str, summary: str) -> str:
        """The context of a window that starts with ``unit``, inside the episode of ``prompt``."""
        if unit.kind == "summary":
            return ""
        inside = unit.kind == "assistant"
        known = (self.first_prompt, summary, prompt if inside else "")
        # A prompt that was clipped on the way begins as the whole one does.
        said = list({x[:_SNAP]: x for x in known if x}.values())
        room = self.room if inside and len(said) == 1 else self.room // max(len(said), 2)
        return "\n\n".join([clip(x, room) for x in said])


def _windows(
    units: Sequence[Unit], carry: Carry, limits: Limits, source: str, tally: Tally
) -> Iterator[Window]:
    """Episodes packed into windows; what does not start the session gets the carried context."""
    first = carry.starts_here
    for part in _split_parts(units):
        if _size(part) <= limits.window and (first or part[0].kind == "summary"):
            yield Window(tuple(part), "")
            first = False
            continue
        summary = part[0].messages[0]["content"] if part[0].kind == "summary" else ""
        for chunk, prompt in _pack(part, limits.window - carry.room, source, tally):
            yield Window(tuple(chunk), "" if first else carry.before(chunk[0], prompt, summary))
            first = False


def _pack(
    part: list[Unit], room: int, source: str, tally: Tally
) -> Iterator[tuple[list[Unit], str]]:
    """Chunks of at most ``room`` characters, and the prompt of the episode that a chunk is cut from."""
    chunk: list[Unit] = []
    filled = 0
    for episode in _split_episodes(part):
        size = _size(episode)
        if chunk and filled + size > room:
            yield chunk, ""
            chunk, filled = [], 0
        if size <= room:
            chunk += episode
            filled += size
            continue
        prompt = "" if episode[0].kind == "assistant" else episode[0].messages[0]["content"]
        for piece in _split_turns(episode, room, source, tally):
            yield piece, prompt
    if chunk:
        yield chunk, ""


def _split_parts(units: Sequence[Unit]) -> Iterator[list[Unit]]:
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
    filled = 0
    for u in episode:
        if u.size > room:
            tally.add("turns dropped", f"longer than the window ({source})")
            tally.add("characters", "left out: longer than the window", u.size)
            if any(x.kind == "assistant" for x in chunk):
                yield chunk
                chunk, filled = [], 0
            continue
        if chunk and filled + u.size > room:
            yield chunk
            chunk, filled = [], 0
        chunk.append(u)
        filled += u.size
    if chunk:
        yield chunk


def _size(units: Sequence[Unit]) -> int:
    return sum([u.size for u in units])


def _build(window: Window, number: int) -> Cut:
    messages: list[Message] = []
    by: list[str] = []
    if window.header:
        messages.append({"role": "user", "content": window.header})
        by.append("harness")
    last_answer = max(i for i, u in enumerate(window.units) if u.kind == "assistant")
    kept = window.units[: last_answer + 1]
    names: dict[str, str] = {}
    tools: set[str] = set()
    marks: list[Mark] = []
    for unit in kept:
        marks += unit.marks
        for m, who in zip(unit.messages, unit.by, strict=True):
            if m["role"] == "user" and messages and messages[-1]["role"] == "user":
                before = messages[-1]["content"]
                joined = (
                    m["content"]
                    if m["content"].startswith(before)
                    else f"{before}\n\n{m['content']}"
                )
                messages[-1] = {**m, "content": joined}
                by[-1] = who
                continue
            # Call ids by order: a vendor's random id teaches nothing and makes equal examples differ.
            if calls := m.get("tool_calls"):
                for c in calls:
                    names.setdefault(c["id"], f"call-{len(names) + 1}")
                    tools.add(c["function"]["name"])
                m = {**m, "tool_calls": [{**c, "id": names[c["id"]]} for c in calls]}
            elif m["role"] == "tool":
                m = {**m, "tool_call_id": names[m["tool_call_id"]]}
            messages.append(m)
            by.append(who)
    return Cut(
        tuple(messages),
        tuple(
            {"type": "function", "function": {"name": n, "parameters": {}}} for n in sorted(tools)
        ),
        tuple(by),
        (kept[0].lines[0], max([u.lines[1] for u in kept])),
        number,
        tuple(dict.fromkeys(marks)),
    )
