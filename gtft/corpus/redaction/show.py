"""Redaction of any text, with nothing else set up: what ``gtft corpus redact`` shows.

A text is read twice in pieces, so that its size does not matter: first for the values of secrets, then to replace, a
value that was confirmed anywhere wherever it stands.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from gtft.corpus.redaction.canaries import check_rules
from gtft.corpus.redaction.redactor import RedactionConfig, Redactor, start_redactor
from gtft.corpus.redaction.second_reader import SecondReader, replace_suspects
from gtft.corpus.redaction.sweeper import Sweeper

# Characters that are read at a time, and those that follow so that nothing is cut in two.
_PIECE = 1 << 20
_OVERLAP = 1 << 16


@dataclass(frozen=True)
class Spot:
    """A span of the original text (code points) that is replaced, and by which reader; never the value."""

    start: int
    end: int
    kind: str
    replacement: str
    reader: str

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "start": self.start,
            "end": self.end,
            "kind": self.kind,
            "replacement": self.replacement,
            "reader": self.reader,
        }


@dataclass
class Shown:
    """Both readers. Raises RedactionError at the start when one misses a planted secret.

    ``cache``: the folder of a workspace where compiled rules are kept; None compiles them.
    """

    key: bytes = field(repr=False)
    config: RedactionConfig
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.cache is None:
            self._redactor = Redactor(self.key, self.config)
        else:
            self._redactor = start_redactor(self.key, self.config, self.cache)
        check_rules(self._redactor)
        self._reader = SecondReader()
        self._sweeper = Sweeper({})

    def learn(self, file: BinaryIO, report: Callable[[int], None] = lambda n: None) -> None:
        """Reads a file for the values of its secrets; ``report`` hears of the characters that were read."""
        for piece in _read_pieces(file):
            self._redactor.find(piece.text)
            report(piece.size)
        self._sweeper = Sweeper(self._redactor.values)

    def show(
        self, file: BinaryIO, report: Callable[[int], None] = lambda n: None
    ) -> Iterator[tuple[str, list[Spot]]]:
        """(redacted text, spots in the original) for each piece of a file, in order."""
        at = 0
        start = 0
        for piece in _read_pieces(file):
            spots = self._find(piece.text[start:])
            # What reaches into the next piece is replaced here, and the next piece starts behind it.
            mine = [s for s in spots if s.start < piece.size - start]
            end = max([piece.size - start, *(s.end for s in mine)])
            yield (
                self._clean(piece.text[start : start + end], mine),
                [Spot(s.start + at, s.end + at, s.kind, s.replacement, s.reader) for s in mine],
            )
            at += end
            start += end - piece.size
            report(piece.size)

    def _find(self, text: str) -> list[Spot]:
        """The spots of a text: our rules, values that were met elsewhere, then the second reader's suspects."""
        spots = [
            Spot(f.start, f.end, f.kind, f.replacement, "rules") for f in self._redactor.find(text)
        ]
        swept = self._sweeper.find(text)
        spots += [Spot(s.start, s.end, s.kind, s.placeholder, "values") for s in swept]
        spots = _unite(spots)
        more: list[Spot] = []
        passed = moved = 0
        for h in self._reader.suspects(_replace(text, spots)):
            # A hit overlaps no placeholder: what stands before it says how far it has moved.
            while passed < len(spots) and spots[passed].start < h.start + moved:
                s = spots[passed]
                moved += s.end - s.start - len(s.replacement)
                passed += 1
            start, end = h.start + moved, h.end + moved
            mark = self._redactor.placeholder("suspect", text[start:end])
            more.append(Spot(start, end, "suspect", mark, h.plugin))
        return _unite([*spots, *more])

    def _clean(self, text: str, spots: list[Spot]) -> str:
        """The text with its spots replaced, and what that brings to light."""
        cleaned = self._redactor.redact(_replace(text, spots))
        return replace_suspects(cleaned, self._reader, self._redactor).text


def _replace(text: str, spots: list[Spot]) -> str:
    parts: list[str] = []
    at = 0
    for s in spots:
        parts += [text[at : s.start], s.replacement]
        at = s.end
    return "".join([*parts, text[at:]])


def _unite(spots: list[Spot]) -> list[Spot]:
    """By position and apart from each other: of those that overlap the longest stands for all."""
    out: list[Spot] = []
    for s in sorted(spots, key=lambda s: (s.start, -s.end)):
        if not out or s.start >= out[-1].end:
            out.append(s)
            continue
        last = out[-1]
        longest = s if s.end - s.start > last.end - last.start else last
        end = max(last.end, s.end)
        out[-1] = Spot(last.start, end, longest.kind, longest.replacement, longest.reader)
    return out


@dataclass(frozen=True)
class _Piece:
    """``size`` characters that are read now, and a part of what follows."""

    text: str
    size: int


def _read_pieces(file: BinaryIO) -> Iterator[_Piece]:
    """A file in pieces that end with a line, where lines are not endless; bytes that are no UTF-8 are replaced."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = ""
    ended = False
    while text or not ended:
        while not ended and len(text) < _PIECE + _OVERLAP:
            raw = file.read(_PIECE)
            ended = not raw
            text += decoder.decode(raw, final=ended)
        size = len(text)
        if size > _PIECE + _OVERLAP or not ended:
            size = text.rfind("\n", 0, _PIECE) + 1 or _PIECE
        if text:
            yield _Piece(text[: size + _OVERLAP], size)
        text = text[size:]
