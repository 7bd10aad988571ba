"""The engine: gate, confirm, guards, over a text and its views; what it finds are spans of the text's bytes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import msgspec
import xxhash
from msgspec.structs import replace

from gtft.corpus.redaction import views
from gtft.corpus.redaction.gate import Gate, compile_re2, make_gate
from gtft.corpus.redaction.personal import Detector
from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.views import View

PLACEHOLDER = re.compile(r"<SECRET:[a-z0-9_]+:[0-9a-f]{8}>")
_PLACEHOLDER_BYTES = re.compile(PLACEHOLDER.pattern.encode())
_OPENING = b"<SECRET:"
# Bytes of a long text that are read at a time, and those around them that are read with them.
_PIECE = 1 << 16
_OVERLAP = 1 << 14
_BEFORE = 1 << 11
_MOST_PLANS = 10_000


class Span(msgspec.Struct, frozen=True):
    """Bytes ``start`` to ``end`` of a text are to be replaced.

    ``value`` is what stands there as its view reads it; ``alias`` is set for personal data alone. ``own``: known by
    its own form, not by what stands around it; ``joined``: read over a line break that was taken out. ``also`` holds
    the values of shorter readings of the same place: which one stands elsewhere, nobody knows here.
    """

    start: int
    end: int
    kind: str
    value: str
    alias: str = ""
    own: bool = False
    joined: bool = False
    also: tuple[str, ...] = ()


class _Confirm:
    """A rule with its pattern, compiled at first use: most rules find nothing to look at."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._before = _expand(rule.not_before)
        self._after = _expand(rule.not_after)

    @cached_property
    def pattern(self) -> Any:
        return compile_re2(self.rule.pattern)

    def find(self, data: bytes) -> Iterator[tuple[int, int]]:
        """The spans of the secrets in ``data``. Raises RedactionError when the rule does not compile."""
        pattern, guard = self.pattern, self.rule.guard
        for m in pattern.finditer(data):
            start, end = m.span()
            if start and data[start - 1] in self._before and not _is_mark(data, start - 1):
                continue
            if end < len(data) and data[end] in self._after:
                continue
            for group in range(1, pattern.groups + 1):
                if m.start(group) >= 0:
                    start, end = m.span(group)
                    break
            start = _skip_escape(data, start)
            if start < end and (guard is None or guard(data[start:end].decode("utf-8", "replace"))):
                yield start, end


class _Plan(msgspec.Struct, frozen=True):
    """What an opened gate asks for: rules by number, kinds of personal data, views."""

    rules: tuple[int, ...]
    personal: frozenset[str]
    hints: frozenset[str]


class Engine:
    """Rules and personal data compiled together; made once for a process and a configuration.

    Raises RedactionError when a gate does not compile. ``dumped``: `dump_gate` of an engine with the same rules.
    """

    def __init__(self, rules: Sequence[Rule], detector: Detector, dumped: bytes = b"") -> None:
        self._detector = detector
        self._rules = [_Confirm(r) for r in rules]
        self._personal = detector.gates()
        # Per expression what it opens: rules (their numbers), kinds of personal data and views (their names).
        opens: dict[str, list[int | str]] = {}
        for number, rule in enumerate(rules):
            for expression in rule.gate or (rule.pattern,):
                opens.setdefault(expression, []).append(number)
        for name, gates in (self._personal | views.HINTS).items():
            for expression in gates:
                opens.setdefault(expression, []).append(name)
        self._opens = list(opens.values())
        self._gate: Gate = make_gate(list(opens), dumped)
        self._plans: dict[frozenset[int], _Plan] = {}
        self._of_lines = {i for i, r in enumerate(rules) if r.lines}

    def dump_gate(self) -> bytes:
        """The compiled gate, for another process with the same rules."""
        return self._gate.dump()

    def find(self, data: bytes) -> list[Span] | None:
        """Spans to replace, sorted and apart from each other; None when not even the gate opened."""
        if len(data) <= _PIECE + _OVERLAP:
            spans = self._find(data)
            return None if spans is None else _settle(spans, data)
        # A long text in windows, so that one hit does not have all of it read again and again.
        out: list[Span] = []
        at = 0
        while at < len(data):
            end = min(at + _PIECE, len(data))
            if end < len(data):
                end = data.rfind(b"\n", at, end) + 1 or end
            first = max(0, at - _BEFORE)
            for s in self._find(data[first : end + _OVERLAP]) or ():
                if s.end + first > at and s.start + first < end:
                    out.append(replace(s, start=s.start + first, end=s.end + first))
            at = end
        return _settle(out, data)

    def _find(self, data: bytes) -> list[Span] | None:
        opened = self._gate.open_for(data)
        if not opened:
            return None
        plan = self._plan(opened)
        spans = list(self._read(View(data), plan))
        if plan.hints:
            spans += self._read_views(data, plan)
        return spans

    def _plan(self, opened: set[int]) -> _Plan:
        known = self._plans.get(which := frozenset(opened))
        if known is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            asked = {what for i in opened for what in self._opens[i]}
            names = frozenset(a for a in asked if isinstance(a, str))
            rules = sorted(a for a in asked if isinstance(a, int))
            lines = () if self._of_lines.isdisjoint(rules) else ("lines",)
            hints = frozenset((*(names & views.HINTS.keys()), *lines))
            known = self._plans[which] = _Plan(tuple(rules), names & self._personal.keys(), hints)
        return known

    def _read_views(self, data: bytes, plan: _Plan) -> list[Span]:
        """What stands in the views of a text and in their views."""
        spans: list[Span] = []
        # The views whose own views are still to be made.
        waiting = deque([(View(data), plan)])
        seen = {xxhash.xxh3_128_digest(data)}
        left = views.limit_size(len(data))
        while waiting:
            view, plan = waiting.popleft()
            for child in views.grow(view, plan.hints):
                mark = xxhash.xxh3_128_digest(child.data)
                left -= len(child.data)
                if left > 0 and mark not in seen:
                    seen.add(mark)
                    opened = self._gate.open_for(child.data)
                    if opened:
                        child_plan = self._plan(opened)
                        spans += self._read(child, child_plan)
                        waiting.append((child, child_plan))
        return spans

    def _read(self, view: View, plan: _Plan) -> Iterator[Span]:
        """What the rules and, where lines are whole, the personal data say of one view."""
        data = view.data
        taken = [m.span() for m in _PLACEHOLDER_BYTES.finditer(data)] if _OPENING in data else []
        joined = view.step == "join"
        for number in plan.rules:
            confirm = self._rules[number]
            for start, end in confirm.find(data):
                if _overlaps(start, end, taken) or (
                    joined and not _crosses(start, end, view.joins)
                ):
                    continue
                first, last = view.find_source(start, end)
                value = data[start:end].decode("utf-8", "replace")
                own = not confirm.rule.context
                yield Span(first, last, confirm.rule.kind, value, own=own, joined=joined)
        if plan.personal and not view.has_step("join") and not view.has_step("base64"):
            escaped = b"\\" in data
            for p in self._detector.find(data, plan.personal):
                start = _skip_escape(data, p.start) if escaped else p.start
                if start < p.end and not _overlaps(start, p.end, taken):
                    first, last = view.find_source(start, p.end)
                    skip = start - p.start
                    yield Span(first, last, p.kind, p.value[skip:], p.alias[skip:])


def _expand(inside: str) -> frozenset[int]:
    """The bytes of a character class."""
    if not inside:
        return frozenset()
    pattern = re.compile(f"[{inside}]".encode())
    return frozenset(b for b in range(256) if pattern.match(bytes((b,))))


def _is_mark(data: bytes, at: int) -> bool:
    """A sign of a diff at the start of a line belongs to no value."""
    return data[at] in b"+-" and (at == 0 or data[at - 1] == 0x0A)


def _skip_escape(data: bytes, start: int) -> int:
    """A value read from escaped text does not start with the letter of an escape before it (``\\nann@…``)."""
    if start == 0 or data[start - 1] != 0x5C or data[start : start + 1] not in (b"n", b"r", b"t"):
        return start
    slashes = start - len(data[max(0, start - 64) : start].rstrip(b"\\")) - max(0, start - 64)
    return start + slashes % 2


def _overlaps(start: int, end: int, spans: list[tuple[int, int]]) -> bool:
    return any(start < last and first < end for first, last in spans)


def _crosses(start: int, end: int, joins: tuple[int, ...]) -> bool:
    return any(start < join < end for join in joins)


def _settle(spans: list[Span], data: bytes) -> list[Span]:
    """Overlapping secrets become their union, under the kind with a form of its own, then of the longest.

    Personal data gives way to secrets and to longer personal data; ends never cut a character.
    """
    out: list[Span] = []
    for s in sorted(spans, key=lambda s: (s.start, -s.end)):
        if out and s.start < out[-1].end:
            out[-1] = _unite(out[-1], s)
        else:
            out.append(s)
    return [_whole_characters(s, data) for s in out]


def _unite(a: Span, b: Span) -> Span:
    first, second = (b, a) if _rank(b) > _rank(a) else (a, b)
    if second.alias:
        # Personal data beside or inside a secret, or inside of other personal data.
        if not first.alias or (second.end <= first.end and second.start >= first.start):
            return first
        return Span(min(a.start, b.start), max(a.end, b.end), first.kind, first.value, first.alias)
    start, end = min(a.start, b.start), max(a.end, b.end)
    also = dict.fromkeys((*first.also, *second.also, second.value))
    also.pop(first.value, None)
    return Span(
        start, end, first.kind, first.value, own=first.own, joined=first.joined, also=tuple(also)
    )


def _rank(s: Span) -> tuple[bool, bool, bool, int]:
    return (not s.alias, s.own, not s.joined, s.end - s.start)


def _whole_characters(s: Span, data: bytes) -> Span:
    start, end = s.start, s.end
    while start > 0 and data[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    if (start, end) == (s.start, s.end):
        return s
    return Span(start, end, s.kind, s.value, s.alias, s.own, s.joined, s.also)
