"""Transcripts made by a test, read by one format's reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gtft.corpus.claims import read_settled
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


def said(talk: Conversation) -> list[tuple[str, str]]:
    return [(e.kind, e.text) for e in talk.entries]
