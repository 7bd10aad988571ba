"""What a run took: the time of each stage and the machine of its training, from the store's events."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gtft.contract import STAGES
from gtft.records.rows import Run
from gtft.records.store import Store

_STARTS = ("claimed", "taken-over")
_MACHINE = re.compile(r"\bmachine: (.+)$")
# What the runner says of a finished training behind the count of its files.
_TOLD = re.compile(r"files re-hashed; (.+)$")


@dataclass(frozen=True)
class Spent:
    """``seconds`` from the last claim of the stage to its evidence, over ``attempts`` claims in all."""

    stage: str
    seconds: float
    attempts: int


@dataclass(frozen=True)
class Cost:
    """``machine`` is None where the runner did not record it; ``told`` is what it said of the training."""

    stages: tuple[Spent, ...]
    machine: str | None
    told: str


def read_cost(store: Store, run: Run) -> Cost:
    """Times of what is recorded; a stage without evidence is left out."""
    events = store.list_events(run.id)
    stages = []
    for stage in STAGES[:-1]:
        own = [e for e in events if e.stage == stage]
        starts = [e for e in own if e.kind in _STARTS]
        ends = [e for e in own if e.kind == "review"]
        if starts and ends:
            begun = [s.created_us for s in starts if s.created_us <= ends[-1].created_us]
            seconds = (ends[-1].created_us - max(begun, default=ends[-1].created_us)) / 1e6
            stages.append(Spent(stage, seconds, len(starts)))
    train = [e for e in events if e.stage == "train"]
    machines = [m[1] for e in train if e.kind == "planned" and (m := _MACHINE.search(e.text))]
    told = [m[1] for e in train if e.kind == "review" and (m := _TOLD.search(e.text))]
    return Cost(tuple(stages), machines[-1] if machines else None, told[-1] if told else "")
