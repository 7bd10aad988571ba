"""Pages that people wrote for agents and for each other (CLAUDE.md, AGENTS.md, docs): prose as it stands.

No question is made up for them: a page is not an answer that an agent gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation, Evidence
from gtft.corpus.files import InputFile, read_head
from gtft.corpus.sources.clues import Held
from gtft.corpus.tally import Tally

# A page that is longer is a dump of something.
LONGEST_PAGE = 2 * 1024 * 1024


def read(files: Sequence[InputFile], tally: Tally, claims: Claims) -> Iterator[Conversation]:
    """One conversation per page, with prose and nothing said. Tables: ``records``, ``dropped``, ``kept``."""
    for file in files:
        held = Held(claims)
        tally.add("records", "page")
        raw = read_head(file, LONGEST_PAGE + 1)
        text = raw.replace(b"\x00", b"").decode("utf-8", "replace").strip("\ufeff \t\r\n")
        if len(raw) > LONGEST_PAGE:
            tally.name("page too long", file.name, 1)
            tally.add("dropped", "too long")
        elif not text:
            tally.add("dropped", "empty")
        elif not held.take(f"page {text}"):
            tally.add("dropped", "copy of another page")
        else:
            tally.add("kept", "page")
            yield Conversation(
                source="docs",
                file=file.name,
                links=(f"doc:{file.name}",),
                evidence=Evidence(),
                provenance="human",
                plain=text,
            )
        held.note(f"doc:{file.name}")
