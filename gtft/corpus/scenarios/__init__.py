"""Made-up decisions with computed answers, for towns that have too little of their own.

Eight families, each a file with ``make(scene) -> Case``: it draws a state, writes it down in words, and computes
the answer from the same state. A new family is one file and one line here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from gtft.corpus.example import Conversation, Evidence, Labels
from gtft.corpus.scenarios import (
    asking,
    command,
    lifecycle,
    ready,
    refusal,
    repair,
    route,
    triage,
)
from gtft.corpus.scenarios.names import NOWHERE, TownNames, find_names
from gtft.corpus.scenarios.scene import Case, Scene

__all__ = ["FAMILIES", "NOWHERE", "TownNames", "find_names", "make_cases", "make_scenarios"]

SOURCE = "scenarios"
RUNG = "made up"

FAMILIES: dict[str, Callable[[Scene], Case]] = {
    "lifecycle": lifecycle.make,
    "ready": ready.make,
    "route": route.make,
    "repair": repair.make,
    "triage": triage.make,
    "command": command.make,
    "refusal": refusal.make,
    "asking": asking.make,
}


def make_scenarios(count: int, seed: int, names: TownNames = NOWHERE) -> Iterator[Conversation]:
    """``count`` conversations, families in turn. The first n of a seed and names are always the same."""
    for number, case in enumerate(make_cases(count, seed, names)):
        yield Conversation(
            source=SOURCE,
            file=f"{SOURCE}/{case.family}/{seed}-{number}",
            links=(case.link,),
            entries=case.entries,
            evidence=Evidence(candidates=(Labels(case.role, case.rig, rung=RUNG, confidence=1.0),)),
            provenance="synthetic",
        )


def make_cases(count: int, seed: int, names: TownNames) -> Iterator[Case]:
    """The same before it is a conversation, with what was computed."""
    makers = tuple(FAMILIES.values())
    for number in range(count):
        rng = random.Random(f"{seed}:{number}")  # noqa: S311 - names and numbers, no secrets
        yield makers[number % len(makers)](Scene(rng, names, number // len(makers)))
