"""Invented names that makers draw from: rigs with prefixes, polecats, titles, ids.

None of them is in the example town, in the corpus' own scenarios or in the retention texts; a test holds that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
HQ = "hq"


def _split(text: str, mark: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(mark))


@dataclass(frozen=True)
class Rig:
    """``prefix`` without the trailing dash; its beads are kept in ``path`` below the town."""

    name: str
    prefix: str

    @property
    def path(self) -> str:
        return "." if self.prefix == HQ else f"{self.name}/mayor/rig"


HEADQUARTERS = Rig(HQ, HQ)
RIGS = tuple(
    Rig(*pair.split(":"))
    for pair in _split(
        "apiary:ap bindery:bi brewery:bw chandlery:ch cistern:ci cooperage:co dovecote:dv foundry:fo "
        "glassworks:gl greenhouse:gr icehouse:ic inkwell:ik kiln:ki lighthouse:lh loom:lo millrace:mr "
        "planetarium:pl pottery:po ropewalk:rw saltworks:sw sawmill:sa seedbank:sb sluice:sl smithy:sm "
        "sundial:sd tannery:tn turnstile:ts vineyard:vy weighhouse:wh windlass:wl"
    )
)
# Prefixes with dashes, and prefixes that begin another rig's prefix.
DASHED = tuple(
    Rig(*pair.split(":"))
    for pair in _split(
        "kiln-tools:ki-t kiln-archive:ki-arc loom-web:lo-web loom-api:lo-api foundry-docs:fo-docs "
        "sluice-east:sl-e sluice-west:sl-w seedbank-lab:sb-lab tannery-ios:tn-ios smithy-two:sm-2 "
        "windlass-core:wl-core pottery-shop:po-shop"
    )
)
POLECATS = _split(
    "agnes bertil corwin dagny elsbet fergus greta halvor ingrid joris katya ludo maren nestor oskar petra "
    "quentin ragna sigrid tobias ulrik viggo wilma yorick zelda"
)
THINGS = _split(
    "barcode reader|batch export|booking form|coupon field|CSV reader|delivery map|fee table|font loader|"
    "gallery page|holiday list|invoice footer|key ring|login throttle|mail merge|night backup|page cache|"
    "password hint|payment hook|picture resizer|postcode lookup|print layout|rate limiter|rota planner|"
    "search box|session store|shelf finder|stock counter|tax rule|till report|time zone switch|undo stack|"
    "upload queue|voucher check|weather feed|zip writer",
    "|",
)
FAULTS = _split(
    "crashes on an empty file|forgets the last row|hangs after a restart|shows stale figures|"
    "loses its settings overnight|counts refunds twice|fails for names with accents|ignores the filter|"
    "leaks a file handle on each call|rounds half a cent the wrong way|stops at 1,000 entries|"
    "writes to the wrong folder",
    "|",
)
WISHES = _split(
    "accept several files at once|offer a dark theme|remember the last choice|work without a mouse|"
    "send a weekly summary|sort by two columns|keep a history of changes|print on A5|"
    "take dates in any order|show its progress",
    "|",
)


def draw_rigs(dice: random.Random, count: int, dashed: int = 0) -> list[Rig]:
    """``count`` rigs with unlike prefixes, ``dashed`` of them with a dash in the prefix, in random order."""
    rigs = [*dice.sample(RIGS, count - dashed), *dice.sample(DASHED, dashed)]
    dice.shuffle(rigs)
    return rigs


def draw_tail(dice: random.Random, length: int = 3) -> str:
    """``length`` characters of base 36 with at least one digit, so that no tail is a word."""
    while True:
        tail = "".join(dice.choice(_BASE36) for _ in range(length))
        if any(c.isdigit() for c in tail):
            return tail


def draw_id(dice: random.Random, prefix: str, length: int = 3) -> str:
    """A bead id such as ``lo-7k2``."""
    return f"{prefix}-{draw_tail(dice, length)}"


def draw_ids(dice: random.Random, prefix: str, count: int, length: int = 3) -> list[str]:
    """``count`` ids, none of them twice."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw_id(dice, prefix, length)] = None
    return list(found)


def draw_fault(dice: random.Random) -> str:
    """The title of a bug, such as ``fee table ignores the filter``."""
    return f"{dice.choice(THINGS)} {dice.choice(FAULTS)}"


def draw_wish(dice: random.Random) -> str:
    """The title of a feature, such as ``let the fee table print on A5``."""
    return f"let the {dice.choice(THINGS)} {dice.choice(WISHES)}"
