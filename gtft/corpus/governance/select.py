"""Selection: which examples of what was read go into the corpus, as ``key:value`` items.

Items of one key widen the choice, different keys narrow it: ``role:witness role:refinery since:2026-01-01``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from typing import Any, get_args

from gtft.corpus.governance.row import Row
from gtft.errors import UsageError
from gtft.recipe.schema import SourceType

KEYS = ("type", "rig", "role", "since", "until", "label", "outcome", "bead", "session")
_VALUE = re.compile(r"[\w./:@+-]{1,200}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Selection:
    """``wanted``: key → values of which one must fit. ``since`` and ``until``: first and last day, or ""."""

    wanted: dict[str, frozenset[str]] = field(default_factory=dict)
    since: str = ""
    until: str = ""

    def admits(self, row: Row) -> str:
        """ "" when the row is chosen; else the reason, named by the key that does not fit."""
        for key, values in self.wanted.items():
            if not values.intersection(_read(row, key)):
                return f"not selected: {key}"
        if (self.since or self.until) and not row.started:
            return "not selected: no date"
        if self.since and row.started < self.since:
            return "not selected: since"
        if self.until and row.started[:10] > self.until:
            return "not selected: until"
        return ""


def parse_select(items: Sequence[str]) -> Selection:
    """Raises UsageError that names the item and the nearest known word."""
    wanted: dict[str, set[str]] = {}
    days: dict[str, str] = {}
    for item in items:
        key, colon, value = item.partition(":")
        if not colon or key not in KEYS:
            raise _refuse(item, f"{key!r} is no key of a selection", _guess(key, KEYS, ":…"))
        if key in ("since", "until"):
            if key in days and days[key] != value:
                raise _refuse(item, f"{key} is given twice", f"keep one {key}:")
            days[key] = _check_day(item, value)
        elif not _VALUE.fullmatch(value):
            why = "it is empty" if not value else "its value holds a character that no name has"
            raise _refuse(item, why, f"{key}:NAME")
        else:
            known = tuple(t for t in get_args(SourceType) if t != "auto")
            if key == "type" and value not in known:
                raise _refuse(item, f"{value!r} is no type of source", _guess(value, known))
            wanted.setdefault(key, set()).add(value)
    since, until = days.get("since", ""), days.get("until", "")
    if since and until and until < since:
        raise _refuse(
            f"until:{until}", f"it ends before since:{since} begins", "swap the two dates"
        )
    return Selection({k: frozenset(wanted[k]) for k in KEYS if k in wanted}, since, until)


def _read(row: Row, key: str) -> tuple[Any, ...]:
    if key == "type":
        return (row.source,)
    if key == "label":
        return row.labels
    if key == "bead":
        # A child of a wanted bead is wanted too: gz-1.2 below gz-1.
        return _above(row.bead)
    return (getattr(row, key),)


def _above(bead: str | None) -> tuple[str, ...]:
    parts = (bead or "").split(".")
    return tuple(".".join(parts[: n + 1]) for n in range(min(len(parts), 20)))


def _check_day(item: str, value: str) -> str:
    try:
        if not _DATE.fullmatch(value):
            raise ValueError("a date is written YYYY-MM-DD")
        date.fromisoformat(value)
    except ValueError as e:
        raise _refuse(item, str(e), f"{item.partition(':')[0]}:2026-01-31") from e
    return value


def _guess(word: str, known: Sequence[str], tail: str = "") -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}{tail}?" if near else f"known: {', '.join(known)}"


def _refuse(item: str, why: str, fix: str) -> UsageError:
    return UsageError(f"select {item[:80]!r} is not understood", why=why, fix=fix)
