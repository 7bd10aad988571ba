"""From an example back to where it came from, and from a withdrawal forward to what it touches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gtft.artifact import Artifact
from gtft.corpus.governance.row import SIDES, Listed, read_listed
from gtft.corpus.governance.withdrawal import Withdrawals
from gtft.errors import UsageError

_ID = re.compile(r"(?:ex-)?[0-9a-f]{2,16}")


@dataclass(frozen=True)
class Found:
    """An example in one corpus."""

    corpus: str
    side: str
    example: Listed


def trace(corpora: Sequence[Artifact], prefix: str) -> list[Found]:
    """Every corpus that holds the example whose id starts with ``prefix``.

    Raises UsageError when there is none, or when several examples start so.
    """
    wanted = prefix if prefix.startswith("ex-") else f"ex-{prefix}"
    if not _ID.fullmatch(prefix):
        raise UsageError(
            f"{prefix[:80]!r} is not the start of an example's id",
            why="an id is ex- and 16 hex digits",
            fix="gtft corpus preview shows ids",
        )
    found = [
        Found(corpus.id, side, e)
        for corpus in corpora
        for side in SIDES
        for e in read_listed(corpus, side)
        if e.id.startswith(wanted)
    ]
    ids = sorted({f.example.id for f in found})
    if len(ids) == 1:
        return found
    raise UsageError(
        f"{len(ids) or 'no'} examples start with {wanted}",
        why=", ".join(ids[:5]) if ids else f"{len(corpora)} corpora were searched",
        fix="write more of the id" if ids else "gtft corpus preview shows ids",
    )


def count_covered(corpus: Artifact, withdrawals: Withdrawals) -> Counter[str]:
    """How many examples of each side are withdrawn."""
    out: Counter[str] = Counter()
    for side, _ in list_covered(corpus, withdrawals):
        out[side] += 1
    return out


def list_covered(corpus: Artifact, withdrawals: Withdrawals) -> Iterator[tuple[str, Listed]]:
    """Side and example of each that is withdrawn."""
    for side in SIDES:
        for e in read_listed(corpus, side):
            if withdrawals.covers(e.row()):
                yield side, e
