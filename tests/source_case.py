"""Transcripts made by a test, read by one format's reader."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gtft.corpus.claims import Claims, settle
from gtft.corpus.example import Conversation
from gtft.corpus.files import InputFile
from gtft.corpus.sources import Read
from gtft.corpus.tally import Tally

Rows = list[dict[str, Any]] | str


def harvest(read: Read, folder: Path, **files: Rows) -> tuple[list[Conversation], Tally]:
    """Write JSONL files below ``folder`` (``__`` in a name is a folder) and read them; what goes in comes
    out or is counted."""
    inputs = []
    for name, rows in files.items():
        path = folder / (name.replace("__", "/") + ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rows if isinstance(rows, str) else "\n".join(json.dumps(r) for r in rows))
        inputs.append(InputFile(path, path.relative_to(folder).as_posix()))
    tally = Tally()
    talks = list(read_settled(read, inputs, tally))
    assert tally.total("records") == tally.total("kept") + tally.total("dropped")
    return talks, tally


def read_settled(read: Read, files: Sequence[InputFile], tally: Tally) -> Iterator[Conversation]:
    """The conversations of files that share records: read once to see who holds what, and once for good."""
    first = []
    for file in files:
        first.append(Claims())
        for _ in read([file], Tally(), first[-1]):
            pass
    settled = settle(first)
    tally.add("links", "phantom parents", settled.phantoms)
    for number, (file, lost) in enumerate(zip(files, settled.lost, strict=True)):
        sharing = {p for pair in settled.pairs if number in pair for p in pair} - {number}
        links = [first[n].link for n in sorted(sharing)]
        for talk in read([file], tally, Claims(lost)):
            yield replace(talk, links=tuple(dict.fromkeys([*talk.links, *links])))


def said(talk: Conversation) -> list[tuple[str, str]]:
    return [(e.kind, e.text) for e in talk.entries]
