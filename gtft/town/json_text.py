"""Items of arrays and members of objects put into a JSON file, and taken out, without touching another byte of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class _Span:
    """A member or an item: ``start`` is its first character, ``value`` its value's, ``end`` past it."""

    key: str
    start: int
    value: int
    end: int


def list_items(text: str, keys: Sequence[str]) -> list[Any]:
    """The items of the array at ``keys``; none when there is no such array. Raises ValueError."""
    found = json.loads(text)
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, list) else []


def add_item(text: str, keys: Sequence[str], item: Any) -> str:
    """``item`` as the last one of the array at ``keys``, made where it is missing. Raises ValueError."""
    json.loads(text)
    at = _skip(text, 0)
    for n, key in enumerate(keys):
        if text[at] != "{":
            raise ValueError(f"{'.'.join(keys[:n]) or 'the file'} is not a JSON object")
        members = _read_members(text, at)
        member = next((m for m in members if m.key == key), None)
        if member is None:
            value: Any = [item]
            for name in reversed(keys[n + 1 :]):
                value = {name: value}
            return _insert(text, at, members, f"{json.dumps(key)}: ", value)
        at = member.value
    if text[at] != "[":
        raise ValueError(f"{'.'.join(keys)} is not a JSON array")
    return _insert(text, at, _read_items(text, at), "", item)


def drop_items(text: str, keys: Sequence[str], ours: Callable[[Any], bool]) -> str:
    """Without the items that are ``ours``; an array or object that this empties goes too."""
    while any(ours(item) for item in list_items(text, keys)):
        at = _skip(text, 0)
        path: list[tuple[int, list[_Span], int]] = []
        for key in keys:
            members = _read_members(text, at)
            n = next(i for i, m in enumerate(members) if m.key == key)
            path.append((at, members, n))
            at = members[n].value
        items = _read_items(text, at)
        n = next(i for i, s in enumerate(items) if ours(json.loads(text[s.value : s.end])))
        path.append((at, items, n))
        # From the innermost outwards: what holds nothing else goes with it.
        while len(path) > 1 and len(path[-1][1]) == 1:
            path.pop()
        text = _cut(text, *path[-1])
    return text


def set_member(text: str, keys: Sequence[str], value: Any) -> str:
    """The member at ``keys`` with this value, put or replaced; objects on the way are made. Raises ValueError."""
    json.loads(text)
    at = _skip(text, 0)
    for n, key in enumerate(keys):
        if text[at] != "{":
            raise ValueError(f"{'.'.join(keys[:n]) or 'the file'} is not a JSON object")
        members = _read_members(text, at)
        member = next((m for m in members if m.key == key), None)
        if member is None:
            for name in reversed(keys[n + 1 :]):
                value = {name: value}
            return _insert(text, at, members, f"{json.dumps(key)}: ", value)
        if n == len(keys) - 1:
            return text[: member.value] + json.dumps(value) + text[member.end :]
        at = member.value
    raise ValueError("no key was named")


def drop_member(text: str, keys: Sequence[str]) -> str:
    """Without the member at ``keys``; as it was when there is none. Raises ValueError."""
    json.loads(text)
    at = _skip(text, 0)
    for n, key in enumerate(keys):
        if text[at] != "{":
            return text
        members = _read_members(text, at)
        found = next((i for i, m in enumerate(members) if m.key == key), None)
        if found is None:
            return text
        if n == len(keys) - 1:
            return _cut(text, at, members, found)
        at = members[found].value
    return text


def _insert(text: str, at: int, spans: list[_Span], head: str, value: Any) -> str:
    if not spans:
        return f"{text[: at + 1]}{head}{json.dumps(value)}{text[at + 1 :]}"
    before = text[at + 1 : spans[0].start]
    last = spans[-1].end
    if "\n" not in before:
        return f"{text[:last]}, {head}{json.dumps(value)}{text[last:]}"
    # As the neighbours stand: on a line of its own, as deep as they are.
    end = "\r\n" if "\r\n" in before else "\n"
    indent = before.rsplit("\n", 1)[1]
    lines = json.dumps(value, indent=2).splitlines()
    return f"{text[:last]},{end}{indent}{head}" + f"{end}{indent}".join(lines) + text[last:]


def _cut(text: str, at: int, spans: list[_Span], n: int) -> str:
    if n:
        return text[: spans[n - 1].end] + text[spans[n].end :]
    if len(spans) > 1:
        return text[: spans[0].start] + text[spans[1].start :]
    return text[: at + 1] + text[spans[0].end :]


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _read_members(text: str, at: int) -> list[_Span]:
    spans: list[_Span] = []
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        value = _skip(text, _skip(text, end) + 1)
        _, end = _DECODER.raw_decode(text, value)
        spans.append(_Span(key, at, value, end))
        at = _next(text, end)
    return spans


def _read_items(text: str, at: int) -> list[_Span]:
    spans: list[_Span] = []
    at = _skip(text, at + 1)
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        spans.append(_Span("", at, at, end))
        at = _next(text, end)
    return spans


def _next(text: str, end: int) -> int:
    at = _skip(text, end)
    return _skip(text, at + 1) if text[at] == "," else at
