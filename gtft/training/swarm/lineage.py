"""What a peer has been part of: round, samples and lineage, and who gives way when two differ. Pure.

Two peers hold the same adapter only when the same members averaged in the same order since the start. The
lineage is the hash of that history; it goes with every round, so a fork is seen before numbers are mixed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Standing:
    """Where a peer stands. ``samples``: rows that all members have put into this lineage since round 0."""

    round: int
    lineage: str
    samples: int
    fingerprint: str

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; ``parse_standing`` reads it back."""
        return asdict(self)


def parse_standing(doc: object) -> Standing:
    """A standing that came from a peer or a file. Raises ValueError on anything that is not one."""
    if not isinstance(doc, dict):
        raise ValueError("a standing is a table")
    number, lineage = doc.get("round"), doc.get("lineage")
    samples, fingerprint = doc.get("samples"), doc.get("fingerprint")
    if type(number) is not int or not 0 <= number < 2**31:
        raise ValueError(f"round is {number!r}")
    if type(samples) is not int or not 0 <= samples < 2**62:
        raise ValueError(f"samples is {samples!r}")
    if not isinstance(lineage, str) or not isinstance(fingerprint, str):
        raise ValueError("lineage and fingerprint are texts")
    if len(lineage) != 64 or len(fingerprint) > 256:
        raise ValueError("lineage or fingerprint has the wrong length")
    return Standing(number, lineage, samples, fingerprint)


def begin_lineage(swarm: str, fingerprint: str) -> Standing:
    """The standing of round 0, the same for every peer of a swarm."""
    first = hashlib.sha256(f"{swarm}|{fingerprint}".encode()).hexdigest()
    return Standing(0, first, 0, fingerprint)


def extend(standing: Standing, rows: Mapping[str, int]) -> Standing:
    """The standing after a round whose members (peer id → rows since the last one) are ``rows``."""
    number = standing.round + 1
    text = "|".join([standing.lineage, str(number), *sorted(rows)])
    return Standing(
        number,
        hashlib.sha256(text.encode()).hexdigest(),
        standing.samples + sum(rows.values()),
        standing.fingerprint,
    )


@dataclass(frozen=True)
class Verdict:
    """What a group's standings say. ``reason`` is empty when they agree; ``pull``: this peer gives way."""

    reason: str = ""
    pull: bool = False
    heirs: tuple[str, ...] = ()


def judge(own: Standing, others: Mapping[str, Standing]) -> Verdict:
    """Compare the standings of a group (without this peer). Every member comes to the same verdict.

    Of two lineages the one with more samples goes on; at a tie the one whose hash sorts last.
    """
    stranger = [p for p, s in others.items() if s.fingerprint != own.fingerprint]
    if stranger:
        return Verdict(f"another recipe or base at {_name(stranger)}")
    elsewhere = [p for p, s in others.items() if s.round != own.round]
    if elsewhere:
        return Verdict(f"another round at {_name(elsewhere)}")
    weight = {own.lineage: own.samples}
    for standing in others.values():
        weight[standing.lineage] = max(weight.get(standing.lineage, 0), standing.samples)
    if len(weight) == 1:
        return Verdict()
    heir = max(weight, key=lambda lineage: (weight[lineage], lineage))
    heirs = tuple(sorted(p for p, s in others.items() if s.lineage == heir))
    return Verdict(
        f"a fork: {len(weight)} lineages at round {own.round}", own.lineage != heir, heirs
    )


def is_plausible(standing: Standing, members: int, max_weight: int) -> bool:
    """Whether so many members can have put that many samples into so many rounds."""
    return standing.samples <= standing.round * max(1, members) * max_weight


def find_excess(moved: float, own: float, bound: float) -> str:
    """Why a step of norm ``moved`` from weights of norm ``own`` must not be taken; "" when it may."""
    if not math.isfinite(moved):
        return "numbers that are not finite"
    if moved > bound * max(own, 1.0):
        return (
            f"a step of norm {moved:.3g} from weights of norm {own:.3g} (at most {bound:g} times)"
        )
    return ""


def _name(peers: Iterable[str]) -> str:
    return ", ".join(p[-8:] for p in sorted(peers))
