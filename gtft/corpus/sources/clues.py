"""What a transcript says about who spoke and when, gathered while it is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gtft.corpus.claims import RECORD, Claims
from gtft.corpus.example import Author, Evidence
from gtft.corpus.linking.link import gather

FIRST_TEXTS = 6
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[0-9:.,+Zz-]{0,24}")
_LATEST = 4_102_444_800_000  # the year 2100, in milliseconds


@dataclass
class Clues:
    """Of one session. ``texts`` are the first ones that the model was given, harness text included."""

    session: str
    parent: str = ""
    cwd: str | None = None
    agent_name: str | None = None
    branch: str = ""
    texts: list[str] = field(default_factory=list)
    started: str = ""
    ended: str = ""
    # Sessions that this one shares entries with.
    shared: set[str] = field(default_factory=set)

    def note_text(self, text: str) -> None:
        if text and len(self.texts) < FIRST_TEXTS:
            self.texts.append(text)

    def note_time(self, value: Any) -> None:
        """ISO 8601, or milliseconds since 1970; anything else is no time."""
        if isinstance(value, int) and 0 < value < _LATEST:
            value = datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds")
        if isinstance(value, str) and value[:4].isdigit():
            self.started = self.started or value
            self.ended = value

    def write_evidence(self, branch: str = "") -> Evidence:
        """``branch`` names a part of the session that is a conversation of its own."""
        return Evidence(
            session=f"{self.session}#{branch}" if branch else self.session,
            parent=self.parent or None,
            candidates=gather(self.texts, self.cwd, self.agent_name, self.session, self.started),
            started=read_time(self.started),
            ended=read_time(self.ended),
            branch=self.branch,
        )

    def list_links(self, evidence: Evidence) -> tuple[str, ...]:
        """Cluster keys: the session, those it came from or shares with, the bead it names."""
        others = sorted({self.parent, *self.shared} - {"", self.session})
        beads = sorted({c.bead for c in evidence.candidates if c.bead})
        return (
            f"session:{self.session}",
            *(f"session:{x}" for x in others),
            *(f"bead:{x}" for x in beads),
        )


def read_time(value: Any) -> str:
    """The value when it is a time as ISO 8601 writes it, else nothing: a file may say anything there."""
    return value if isinstance(value, str) and _TIME.fullmatch(value) else ""


def judge_author(text: str, parent: str) -> Author:
    """Who wrote a user text: the town's own beacon is no human, nor is what starts a sub-agent."""
    if text.lstrip().startswith("[GAS TOWN]"):
        return "harness"
    return "agent" if parent else ""


@dataclass
class Held:
    """The names of what one file says, so that what several files hold is kept once."""

    claims: Claims
    names: dict[str, None] = field(default_factory=dict)

    def take(self, name: str) -> bool:
        """False when the file has said it before, or another file keeps it."""
        if name in self.names:
            return False
        self.names[name] = None
        return not self.claims.lose(RECORD, name)

    def note(self, link: str, version: str = "") -> None:
        """To be called when the file is read. Of several files the one of the lowest ``version`` keeps."""
        self.claims.link = link
        self.claims.note_records(self.names, [(0, version)], ())
