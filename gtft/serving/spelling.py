"""From tokens to text as they come: whole characters, nothing of a stop string, no space around the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# What a decoder writes for the bytes of a character that is not whole yet.
_BROKEN = "\ufffd"
_LONGEST_BREAK = 3


class Cutter:
    """What may be told of a text that grows. What it returns, put together, is the text, stripped, up to the first of
    ``stop``. ``stopped_by``: that one, "" while none was found."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop = [s for s in stop if s]
        self._held = ""
        self._begun = False
        self.stopped_by = ""

    def add(self, new: str, *, last: bool = False) -> str:
        if self.stopped_by:
            return ""
        self._held += new
        found = [(at, s) for s in self.stop if (at := self._held.find(s)) >= 0]
        if found:
            at, self.stopped_by = min(found)
            self._held, last = self._held[:at], True
        kept = 0 if last else max((_count_begun(self._held, s) for s in self.stop), default=0)
        body = self._held[: len(self._held) - kept].rstrip()
        self._held = self._held[len(body) :]
        if body and not self._begun:
            self._begun = True
            body = body.lstrip()
        return body


class Spelling:
    """The text of one answer's tokens; what `add` and `end` return is whole characters, cut by a `Cutter`."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._cutter = Cutter(stop)
        self._ids: list[int] = []
        # Text is decoded from the last whole character on, with some tokens before it: spaces depend on them.
        self._before, self._from, self._shown = 0, 0, 0

    @property
    def stopped_by(self) -> str:
        return self._cutter.stopped_by

    def add(self, token: int) -> str:
        """The text that can be told now."""
        self._ids.append(token)
        text = self._read()
        whole = text.rstrip(_BROKEN)
        whole += _BROKEN * max(0, len(text) - len(whole) - _LONGEST_BREAK)
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        if whole == text:
            self._before, self._from, self._shown = self._from, len(self._ids), 0
        return self._cutter.add(new)

    def end(self) -> str:
        """The rest, when no token comes any more."""
        return self._cutter.add(self._read()[self._shown :], last=True)

    def _read(self) -> str:
        """What comes after the last whole character."""
        known = len(self._decode(self._ids[self._before : self._from]))
        return self._decode(self._ids[self._before :])[known:]


def _count_begun(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
