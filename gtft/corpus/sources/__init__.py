"""The formats that history comes in: one file each, one line here.

A reader yields `Conversation`s; what it could not use goes into the tally: ``records`` by type in,
``dropped`` by reason, so that in = kept + dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation
from gtft.corpus.files import InputFile
from gtft.corpus.sources import (
    beads,
    claude_code,
    codex,
    docs,
    formulas,
    gemini,
    interactions,
    opencode,
    pi,
)
from gtft.corpus.sources.sniff import holds_lines, holds_prose, holds_records, holds_toml, sniff
from gtft.corpus.tally import Tally

Read = Callable[[Sequence[InputFile], Tally, Claims], Iterator[Conversation]]


@dataclass(frozen=True)
class Format:
    """``alone``: each file may be read by itself, and claims settle what several hold; else all files of a
    source are read together. ``fits``: may a file be this, though its content does not say so?"""

    read: Read
    alone: bool
    fits: Callable[[InputFile], bool] = holds_lines


FORMATS: dict[str, Format] = {
    "claude-code": Format(claude_code.read, alone=True),
    "codex": Format(codex.read, alone=True),
    "gemini": Format(gemini.read, alone=True, fits=holds_records),
    "opencode": Format(opencode.read, alone=False, fits=holds_records),
    "pi": Format(pi.read, alone=True),
    "beads": Format(beads.read, alone=False, fits=holds_records),
    "formulas": Format(formulas.read, alone=True, fits=holds_toml),
    "docs": Format(docs.read, alone=True, fits=holds_prose),
    "interactions": Format(interactions.read, alone=True),
}


def tell_format(file: InputFile, wanted: str) -> str | None:
    """The format that a file is read as, in a source of type ``wanted`` ("auto": any). A file that does not
    say what it is counts as the wanted one when it may be that; None when nothing fits.

    Raises InputError when the system refuses to read.
    """
    found = sniff(file)
    if found is None and wanted in FORMATS and FORMATS[wanted].fits(file):
        return wanted
    return found


# What an agent's sessions come in; everything else says itself whose it is.
SESSIONS = frozenset({"claude-code", "codex", "gemini", "opencode", "pi"})
