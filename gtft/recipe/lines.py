"""Where each key of a TOML document stands: tomli gives values without positions.

The scanner expects text that tomli has accepted, so it never judges, it only finds. Paths are tuples
of keys and array indices: ``("gtft", "harvest", "sources", 1, "path")``.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import tomli

KeyPath = tuple[str | int, ...]

# Deeper than any formula; a bound keeps hostile nesting cheap.
MAX_DEPTH = 40

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class TooDeep(Exception):
    """The document nests deeper than ``MAX_DEPTH``."""


@dataclass(frozen=True)
class Lines:
    """The 1-based line of every key, table and array element of one document."""

    lines: dict[KeyPath, int]
    wrapped: tuple[int, ...] = ()  # lines where an inline table runs on: TOML 1.1 only

    def find(self, path: KeyPath) -> int:
        """The line of ``path``, else of its nearest ancestor, else 1."""
        for end in range(len(path), 0, -1):
            line = self.lines.get(path[:end])
            if line is not None:
                return line
        return 1


def locate(text: str) -> Lines:
    """The lines of a valid TOML document. Raises TooDeep."""
    scan = _Scan(text.replace("\r\n", "\n"))
    scan.document()
    return Lines(scan.lines, tuple(scan.wrapped))


def write_path(path: KeyPath) -> str:
    """A path as people write it: ``gtft.harvest.sources[1].path``."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else (f".{part}" if out else part)
    return out


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.lines: dict[KeyPath, int] = {}
        self.wrapped: list[int] = []
        self._counts: dict[KeyPath, int] = {}
        self._starts = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]

    def document(self) -> None:
        table: KeyPath = ()
        while True:
            self._blank()
            if self.pos >= len(self.text):
                return
            if self.text[self.pos] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _line(self, pos: int) -> int:
        return bisect_right(self._starts, pos)

    def _mark(self, path: KeyPath, pos: int) -> None:
        if len(path) > MAX_DEPTH:
            raise TooDeep
        self.lines.setdefault(path, self._line(pos))

    def _spaces(self) -> None:
        while self.pos < len(self.text) and self.text[self.pos] in " \t":
            self.pos += 1

    def _blank(self) -> None:
        while self.pos < len(self.text):
            c = self.text[self.pos]
            if c in " \t\r\n":
                self.pos += 1
            elif c == "#":
                end = self.text.find("\n", self.pos)
                self.pos = len(self.text) if end < 0 else end
            else:
                return

    def _header(self) -> KeyPath:
        start = self.pos
        repeated = self.text.startswith("[[", self.pos)
        self.pos += 2 if repeated else 1
        parts = self._key()
        self.pos += 2 if repeated else 1
        path: KeyPath = ()
        for i, part in enumerate(parts):
            path += (part,)
            last = i == len(parts) - 1
            if repeated and last:
                self._counts[path] = self._counts.get(path, -1) + 1
            self._mark(path, start)
            if path in self._counts:
                path += (self._counts[path],)
                self._mark(path, start)
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self.pos
        path = table
        for part in self._key():
            path += (part,)
            self._mark(path, start)
        self.pos += 1  # the "="
        self._spaces()
        self._value(path)

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._spaces()
            parts.append(self._key_part())
            if len(parts) > MAX_DEPTH:
                raise TooDeep
            self._spaces()
            if not self.text.startswith(".", self.pos):
                return parts
            self.pos += 1

    def _key_part(self) -> str:
        start = self.pos
        if self.text[start] in "\"'":
            self._string()
            raw = self.text[start : self.pos]
            return str(tomli.loads(f"k = {raw}")["k"])
        while self.pos < len(self.text) and self.text[self.pos] in _BARE:
            self.pos += 1
        return self.text[start : self.pos]

    def _value(self, path: KeyPath) -> None:
        c = self.text[self.pos]
        if c in "\"'":
            self._string()
        elif c == "[":
            self._array(path)
        elif c == "{":
            self._inline(path)
        else:
            while self.pos < len(self.text) and self.text[self.pos] not in ",]}#\n":
                self.pos += 1

    def _string(self) -> None:
        quote = self.text[self.pos]
        fence = quote * 3 if self.text.startswith(quote * 3, self.pos) else quote
        self.pos += len(fence)
        while not self.text.startswith(fence, self.pos):
            self.pos += 2 if quote == '"' and self.text[self.pos] == "\\" else 1
        self.pos += len(fence)
        if len(fence) == 3:
            # Up to two quotes of the content may touch the closing fence.
            for _ in range(2):
                if self.text.startswith(quote, self.pos):
                    self.pos += 1

    def _array(self, path: KeyPath) -> None:
        self.pos += 1
        index = 0
        while True:
            self._blank()
            if self.text[self.pos] == "]":
                self.pos += 1
                return
            self._mark((*path, index), self.pos)
            self._value((*path, index))
            index += 1
            self._blank()
            if self.text[self.pos] == ",":
                self.pos += 1

    def _inline(self, path: KeyPath) -> None:
        self.pos += 1
        while True:
            before = self.pos
            self._blank()
            if "\n" in self.text[before : self.pos]:
                self.wrapped.append(self._line(before))
            if self.text[self.pos] == "}":
                self.pos += 1
                return
            if self.text[self.pos] == ",":
                self.pos += 1
                continue
            self._pair(path)
