"""Names that scenarios take from a town's records."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from gtft.corpus.linking.link import parse_actor
from gtft.corpus.linking.town_record import TownRecords

# What gt accepts; anything else in a record could break a command line.
_PREFIX = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,19}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True)
class TownNames:
    """Names used in place of made-up ones: bead prefix → rig ("hq" aside), and polecats."""

    prefixes: Mapping[str, str] = field(default_factory=dict)
    polecats: tuple[str, ...] = ()


# A town of which nothing is known: all names are made up.
NOWHERE = TownNames()


def find_names(records: TownRecords, rigs: Collection[str]) -> TownNames:
    """The names that the records have of ``rigs``: those that agreed to be harvested."""
    prefixes = {
        p: rig
        for p, rig in sorted(records.prefixes.items())
        if rig in rigs and _NAME.fullmatch(rig) and _PREFIX.fullmatch(p)
    }
    workers = [w for w in map(parse_actor, sorted(records.holds)) if w and w.actor]
    polecats = {
        w.actor.rpartition("/")[2]
        for w in workers
        if w.actor and w.role == "polecat" and w.rig in rigs
    }
    return TownNames(prefixes, tuple(sorted(p for p in polecats if _NAME.fullmatch(p))))
