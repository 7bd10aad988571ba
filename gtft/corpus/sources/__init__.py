"""The formats that history comes in: one file each, one line here.

A reader gets the files of its source in a fixed order and yields `Conversation`s; what it could not use
goes into the tally: ``records`` by type in, ``dropped`` by reason, so that in = kept + dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gtft.corpus.example import Conversation
from gtft.corpus.files import InputFile
from gtft.corpus.sources import beads, claude_code, codex, formulas, gemini, opencode, pi
from gtft.corpus.tally import Tally

Read = Callable[[Sequence[InputFile], Tally], Iterator[Conversation]]


@dataclass(frozen=True)
class Format:
    """``suffixes`` are the file names looked for below a folder."""

    suffixes: tuple[str, ...]
    read: Read


FORMATS: dict[str, Format] = {
    "claude-code": Format((".jsonl",), claude_code.read),
    "codex": Format((".jsonl",), codex.read),
    "gemini": Format((".json", ".jsonl"), gemini.read),
    "opencode": Format((".db", ".json"), opencode.read),
    "pi": Format((".jsonl",), pi.read),
    "beads": Format((".jsonl",), beads.read),
    "formulas": Format((".formula.toml",), formulas.read),
}
