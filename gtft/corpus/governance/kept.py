"""What is kept of sessions beside the corpora: recorded answers, preferences of a shadow, items made from incidents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtft.corpus.example import Labels
from gtft.corpus.governance.row import Listed, Row
from gtft.corpus.governance.withdrawal import Withdrawals
from gtft.errors import translate_os_error
from gtft.service import ANSWERS_FOLDER, FOLDER, PREFERENCES_FOLDER, drop_lines


@dataclass
class Taken:
    """What a withdrawal takes. ``recorded``: session → who it was, by the session hook; what corpora hold of it is
    added, since an answer names its session and its bead only."""

    register: Withdrawals
    recorded: Mapping[str, Labels] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    examples: set[str] = field(default_factory=set)

    def add(self, example: Listed) -> None:
        """One that a corpus holds and that is withdrawn."""
        self.examples.add(example.id)
        if example.origin.session:
            self.sessions.add(example.origin.session)

    def covers(self, doc: Mapping[str, Any]) -> bool:
        """Whether an answer, a preference or an incident is of it. ``origin`` says most, where it is known."""
        origin = doc.get("origin") or doc
        session = origin.get("session") or ""
        who = self.recorded.get(session, Labels())
        row = Row(
            session=session or None,
            parent=origin.get("parent"),
            cluster=origin.get("cluster") or "",
            rig=origin.get("rig") or who.rig,
            actor=origin.get("actor") or who.actor,
            bead=origin.get("bead") or who.bead,
            contributor=origin.get("contributor") or "",
        )
        known = session in self.sessions or doc.get("example") in self.examples
        return known or bool(self.register.covers(row))

    def keeps(self, line: bytes) -> bool:
        """Whether a line of a file stays; one that cannot be read does."""
        try:
            doc = json.loads(line)
        except (ValueError, RecursionError):
            return True
        return not (isinstance(doc, dict) and self.covers(doc))


def count_kept(workspace: Path, taken: Taken) -> Iterator[tuple[Path, int]]:
    """Files of answers and preferences with lines of what is withdrawn, and how many. Raises InputError."""
    for name in (ANSWERS_FOLDER, PREFERENCES_FOLDER):
        for path in sorted((workspace / FOLDER / name).glob("*.jsonl")):
            try:
                with path.open("rb") as f:
                    n = sum(not taken.keeps(line) for line in f)
            except OSError as e:
                raise translate_os_error(e, f"reading {path.name}") from e
            if n:
                yield path, n


def drop_kept(workspace: Path, taken: Taken) -> None:
    """Take those lines out."""
    for path, _ in list(count_kept(workspace, taken)):
        drop_lines(path, taken.keeps)
