"""An answer as a model writes it, parted into what it says and what it calls, whole or as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gtft.evals.answer import BadAnswer, load_object

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class Said:
    text: str


@dataclass(frozen=True)
class Called:
    name: str
    arguments: dict[str, Any]


Piece = Said | Called


class Parter:
    """Fed with the text of tokens. A call is given out when it is whole; one that is damaged is text (`damaged`).

    White space around the whole answer and around calls is left out; a line end parts what is said before and after one.
    """

    def __init__(self) -> None:
        self.damaged = False
        self._held = ""
        self._space = ""
        self._begun = False
        self._any = False

    def feed(self, text: str) -> list[Piece]:
        self._held += text
        out: list[Piece] = []
        while True:
            start = self._held.find(OPEN)
            if start < 0:
                free = len(self._held) - _count_begun(self._held)
                said, self._held = self._held[:free], self._held[free:]
                return _join([*out, *self._say(said)])
            end = self._held.find(CLOSE, start)
            out += self._say(self._held[:start])
            if end < 0:
                self._held = self._held[start:]
                return _join(out)
            out += self._call(self._held[start : end + len(CLOSE)])
            self._held = self._held[end + len(CLOSE) :]

    def end(self) -> list[Piece]:
        """What was held back: a call that does not end is text."""
        rest, self._held = self._held, ""
        self.damaged |= rest.startswith(OPEN)
        return self._say(rest)

    def _call(self, text: str) -> list[Piece]:
        try:
            doc = load_object(text[len(OPEN) : -len(CLOSE)])
        except BadAnswer:
            doc = {}
        name, arguments = doc.get("name"), doc.get("arguments")
        if not isinstance(name, str) or not name or not isinstance(arguments, dict):
            self.damaged = True
            return self._say(text)
        self._space, self._begun = "\n" if self._any else "", False
        return [Called(name, arguments)]

    def _say(self, text: str) -> list[Piece]:
        """White space waits for what comes after it."""
        if not self._begun:
            text = text.lstrip()
        bare = text.rstrip()
        if not bare:
            self._space += text
            return []
        said = Said(self._space + bare)
        self._space, self._begun, self._any = text[len(bare) :], True, True
        return [said]


def part(text: str) -> tuple[str, tuple[Called, ...], bool]:
    """A whole answer: what it says, what it calls, whether a call is damaged."""
    parter = Parter()
    pieces = [*parter.feed(text), *parter.end()]
    said = "".join(p.text for p in pieces if isinstance(p, Said))
    return said, tuple(p for p in pieces if isinstance(p, Called)), parter.damaged


def _join(pieces: Iterable[Piece]) -> list[Piece]:
    """Texts that follow each other as one."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if isinstance(piece, Said) and isinstance(last, Said):
            out[-1] = Said(last.text + piece.text)
        else:
            out.append(piece)
    return out


def _count_begun(text: str) -> int:
    """How many characters at the end may be the beginning of a call."""
    return next((n for n in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:n])), 0)
