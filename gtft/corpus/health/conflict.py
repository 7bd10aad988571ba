"""Examples that answer one question differently, and rules that say opposite things of one command.

Of two decisions the later one stands: the earlier is dropped. A decision that came back (A, B, A) is
flagged as a reversal. Answers in prose may differ and both be right: they are flagged and both stay; so
are answers of one day, whose order nothing tells.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec
import xxhash

from gtft.corpus.example import Example
from gtft.corpus.segment import shorten

# A longer answer is prose: two ways to word it are no contradiction.
LONGEST_DECISION = 400
MOST_SHOWN = 50
_SHOWN_CHARACTERS = 240
_MOST_RULES = 20_000

_SPACE = b" \t\n\r\v\f"
_FOLD = bytes(range(65)) + bytes(range(97, 123)) + bytes(range(91, 256))
_CLOCK = re.compile(r"20\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d{1,9})?Z?)?")


class Taught(msgspec.Struct, frozen=True):
    """What one example teaches, without its text: 16-byte digests of what stands before the last answer and
    of that answer. ``decision``: the answer is a choice (a call, JSON, or short) and not prose."""

    asked: bytes
    answered: bytes
    decision: bool


class Row(msgspec.Struct, frozen=True):
    """`Taught`, of whom and when. ``started`` sorts as text (ISO 8601); "" when nothing tells."""

    id: str
    role: str | None
    started: str
    taught: Taught


@dataclass(frozen=True)
class Conflict:
    """``kept`` teach what stands, ``dropped`` go before anything is written, ``flagged`` stay and are named.

    ``reversed``: the decision that stands had been given up in between.
    """

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    flagged: tuple[str, ...]
    why: str
    reversed: bool = False


def read_taught(messages: Sequence[dict[str, Any]]) -> Taught | None:
    """What a row of messages teaches last; None when nothing was asked or answered.

    Case, white space and the clock do not count: the same question of another day is the same question.
    Numbers and names do: "3 of 5" and "4 of 5" may well be answered differently.
    """
    last = next(
        (n for n in range(len(messages) - 1, -1, -1) if messages[n]["role"] == "assistant"), 0
    )
    if not last:
        return None
    answer = messages[last]
    calls = answer.get("tool_calls") or []
    text = answer["content"].strip()
    asked = xxhash.xxh3_128()
    for message in messages[:last]:
        asked.update(message["role"].encode())
        _digest(asked, message)
    answered = xxhash.xxh3_128()
    _digest(answered, answer)
    decision = bool(calls) or text.startswith(("{", "[")) or len(text) <= LONGEST_DECISION
    return Taught(asked.digest(), answered.digest(), decision)


def _digest(state: xxhash.xxh3_128, message: dict[str, Any]) -> None:
    content = message["content"]
    if "20" in content:
        content = _CLOCK.sub("", content)
    state.update(content.encode("utf-8", "replace").translate(_FOLD, _SPACE))
    for call in message.get("tool_calls") or ():
        f = call["function"]
        # The order of keys as the file has it: canonical already, since the row is.
        state.update(b"\x00" + f["name"].encode("utf-8", "replace"))
        state.update(msgspec.json.encode(f["arguments"], order="deterministic"))


class Conflicts:
    """Fed example by example, or row by row; `finish` decides. Some 150 bytes are kept of each."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def add(self, example: Example) -> None:
        taught = read_taught(example.messages)
        if taught is not None:
            self.add_row(Row(example.id, example.role, example.started, taught))

    def add_row(self, row: Row) -> None:
        self._rows.append(row)

    def finish(self) -> list[Conflict]:
        """In order of the first id of each: the same rows give the same list."""
        return find_conflicts(self._rows)


def find_conflicts(rows: Iterable[Row]) -> list[Conflict]:
    """Every question that one role answered in more than one way, and what stands."""
    # Most questions are asked once: only those asked again get a list.
    first: dict[tuple[str, bytes], Row] = {}
    again: dict[tuple[str, bytes], list[Row]] = defaultdict(list)
    for row in rows:
        key = (row.role or "", row.taught.asked)
        seen = first.setdefault(key, row)
        if seen is not row:
            again[key].append(row)
    found = [_decide([first[key], *others]) for key, others in again.items()]
    return sorted((c for c in found if c), key=lambda c: min(c.kept + c.dropped + c.flagged))


def _decide(rows: list[Row]) -> Conflict | None:
    rows.sort(key=lambda r: (r.started, r.id))
    answers = {r.taught.answered for r in rows}
    if len(answers) == 1:
        return None
    ids = tuple(r.id for r in rows)
    if not all(r.taught.decision for r in rows):
        return Conflict((), (), ids, "answers in prose differ: both may be right, both stay")
    latest = rows[-1].started
    newest = {r.taught.answered for r in rows if r.started == latest}
    if not latest or len(newest) > 1:
        why = "no dates" if not latest else f"both of {latest[:10]}"
        return Conflict((), (), ids, f"decisions differ, and nothing tells which is later ({why})")
    (stands,) = newest
    order = [r.taught.answered for r in rows]
    first = order.index(stands)
    came_back = any(a != stands for a in order[first:])
    kept = tuple(r.id for r in rows if r.taught.answered == stands)
    dropped = tuple(r.id for r in rows if r.taught.answered != stands)
    if came_back:
        why = f"the decision of {latest[:10]} stands, which had been given up in between: read both"
        return Conflict(kept, dropped, kept, why, reversed=True)
    return Conflict(kept, dropped, (), f"the later decision stands, of {latest[:10]}")


def mark_examples(conflicts: Iterable[Conflict]) -> dict[str, list[str]]:
    """Id → the flags of an example that a conflict names and that stays."""
    marks: dict[str, list[str]] = {}
    for conflict in conflicts:
        flag = "conflict: taken back and decided again" if conflict.reversed else "conflict"
        for name in conflict.flagged:
            marks.setdefault(name, []).append(flag)
    return marks


def show_conflict(
    conflict: Conflict, fetch: Callable[[str], Sequence[dict[str, Any]] | None]
) -> dict[str, Any]:
    """Both sides as the health report has them; ``fetch`` gives the messages of an id, or None."""
    sides: list[dict[str, str]] = []
    asked = ""
    named = [("kept", i) for i in conflict.kept[:2]] + [
        ("dropped", i) for i in conflict.dropped[:2]
    ]
    if not named:
        named = [("stays", i) for i in conflict.flagged[:3]]
    for what, name in named:
        messages = fetch(name)
        if messages is None:
            sides.append(
                {"what": what, "id": name, "answer": "(left out later, for another reason)"}
            )
            continue
        answer = next((m for m in reversed(messages) if m["role"] == "assistant"), None)
        prompt = next((m for m in messages if m["role"] == "user"), None)
        asked = asked or _excerpt(prompt)
        sides.append({"what": what, "id": name, "answer": _excerpt(answer)})
    return {
        "why": conflict.why,
        "reversed": conflict.reversed,
        "kept": list(conflict.kept),
        "dropped": list(conflict.dropped),
        "flagged": list(conflict.flagged),
        "asked": asked,
        "sides": sides,
    }


def _excerpt(message: dict[str, Any] | None) -> str:
    if message is None:
        return ""
    calls = " ".join(
        msgspec.json.encode(c["function"]["arguments"], order="deterministic").decode()
        for c in message.get("tool_calls") or ()
    )
    text = " ".join((message["content"][:2000] + " " + calls[:2000]).split())
    return shorten(text, _SHOWN_CHARACTERS)


_RULE = re.compile(r"`((?:gt|bd) [a-z][^`\n]{0,80})`")
_FORBIDS = re.compile(
    r"\b(?:never|do not|don't|must not|mustn't|should not|shouldn't|avoid|forbidden)\b", re.I
)
_DEMANDS = re.compile(
    r"\b(?:always|must|should|have to|be sure to|make sure to|required to)\b", re.I
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORDS = re.compile(r"[a-z][a-z-]*")


@dataclass
class Rules:
    """Sentences of documents that demand or forbid a command, by command."""

    _said: dict[str, list[tuple[str, str, str, str]]] = field(default_factory=dict)
    _count: int = 0

    def add(self, where: str, text: str, date: str = "") -> None:
        """``where`` names the document; ``date`` (YYYY-MM-DD, or "") is what it is known to be of."""
        if "`bd " not in text and "`gt " not in text:
            return
        for sentence in _SENTENCE.split(text):
            if len(sentence) > 1000 or self._count >= _MOST_RULES:
                continue
            for command in _name_commands(sentence):
                stance = _read_stance(sentence)
                if stance:
                    shown = " ".join(sentence.split())[:_SHOWN_CHARACTERS]
                    self._said.setdefault(command, []).append((date, where, stance, shown))
                    self._count += 1

    def finish(self) -> list[dict[str, Any]]:
        """One row per command that is both demanded and forbidden; the later side first, where dates tell."""
        rows: list[dict[str, Any]] = []
        for command, said in sorted(self._said.items()):
            if len({stance for _, _, stance, _ in said}) < 2:
                continue
            said = sorted(set(said), reverse=True)
            latest = {stance for date, _, stance, _ in said if date == said[0][0]}
            stands = said[0][2] if said[0][0] and len(latest) == 1 else ""
            order = [stance for _, _, stance, _ in reversed(said)]
            turns = sum(a != b for a, b in pairwise(order))
            shown = [
                next(s for s in said if s[2] == side) for side in dict.fromkeys(s[2] for s in said)
            ]
            rows.append(
                {
                    "command": command,
                    "stands": stands,
                    "reversed": bool(stands) and turns > 1,
                    "why": (
                        f"the later text stands, of {said[0][0]}: {stands}"
                        if stands
                        else "nothing tells which is later: read both"
                    ),
                    "sides": [
                        {"what": what, "where": where, "date": date, "text": text}
                        for date, where, what, text in shown
                    ],
                }
            )
        return rows


def _name_commands(sentence: str) -> Iterator[str]:
    for found in _RULE.finditer(sentence):
        words = found[1].split()
        path = [words[0]]
        for word in words[1:3]:
            if not _WORDS.fullmatch(word):
                break
            path.append(word)
        yield " ".join(path)


def _read_stance(sentence: str) -> str:
    forbids, demands = _FORBIDS.search(sentence), _DEMANDS.search(sentence)
    if forbids:
        return "forbids"
    return "demands" if demands else ""
