"""What a harvest met: counts by table and reason, and the places of what was wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NAMED_PER_REASON = 50
MOST_KEYS = 1000


@dataclass(frozen=True)
class Named:
    """One thing that was wrong, and where. Never holds the text itself: it may hold a secret."""

    reason: str
    file: str
    line: int
    detail: str = ""


@dataclass
class Tally:
    """Counters by table (``records``, ``dropped``, ``drift`` …) and the first places per reason."""

    tables: dict[str, Counter[str]] = field(default_factory=dict)
    named: list[Named] = field(default_factory=list)
    _named: Counter[str] = field(default_factory=Counter)

    def add(self, table: str, key: str, n: int = 1) -> None:
        """A file may name any number of types: what is beyond `MOST_KEYS` of a table is "others"."""
        counts = self.tables.get(table)
        if counts is None:
            counts = self.tables[table] = Counter()
        if key not in counts and len(counts) >= MOST_KEYS:
            key = "others"
        counts[key] += n

    def name(self, reason: str, file: str, line: int, detail: str = "") -> None:
        """Count something wrong under ``bad`` and keep its place (the first 50 per reason)."""
        self.add("bad", reason)
        self._named[reason] += 1
        if self._named[reason] <= NAMED_PER_REASON:
            self.named.append(Named(reason, file, line, detail))

    def get(self, table: str, key: str) -> int:
        return self.tables.get(table, Counter())[key]

    def total(self, table: str) -> int:
        return sum(self.tables.get(table, Counter()).values())

    def merge(self, other: Tally) -> None:
        for table, counts in other.tables.items():
            for key, n in counts.items():
                self.add(table, key, n)
        for named in other.named:
            self._named[named.reason] += 1
            if self._named[named.reason] <= NAMED_PER_REASON:
                self.named.append(named)

    def rename(self, change: Callable[[str], str]) -> Tally:
        """The same with ``change`` applied to every name in it; counts of names that become one are added up."""
        out = Tally()
        for table, counts in self.tables.items():
            for key, n in counts.items():
                out.tables.setdefault(change(table), Counter())[change(key)] += n
        out.named = [
            Named(change(x.reason), change(x.file), x.line, change(x.detail)) for x in self.named
        ]
        return out

    def as_dict(self) -> dict[str, Any]:
        """Tables with sorted keys, and the named places in order of meeting."""
        return {
            "tables": {t: dict(sorted(c.items())) for t, c in sorted(self.tables.items())},
            "named": [
                {"reason": n.reason, "file": n.file, "line": n.line, "detail": n.detail}
                for n in self.named
            ],
        }

    @staticmethod
    def from_dict(doc: dict[str, Any]) -> Tally:
        """The inverse of `as_dict`."""
        tables = {t: Counter(c) for t, c in doc["tables"].items()}
        named = [Named(n["reason"], n["file"], n["line"], n["detail"]) for n in doc["named"]]
        return Tally(tables, named, Counter(n.reason for n in named))
