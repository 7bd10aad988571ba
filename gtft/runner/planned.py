"""What was planned for a run, kept in its history, and compared with what it took.

An event of kind ``planned`` holds the figures as ``name=value`` words; the one of the train stage, planned on
the corpus itself, also lies in the job's folder as ``plan.json`` for the worker.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from gtft.artifact import write_json
from gtft.contract import PLAN_FILE
from gtft.records.rows import Run
from gtft.runner.box import say_size
from gtft.runner.budget import Plan
from gtft.runner.past import recall_run
from gtft.runner.workspace import Workspace

KIND = "planned"
_WORD = re.compile(r"\b([a-z]+)=(\d+)\b")


@dataclass(frozen=True)
class Planned:
    """The figures of a plan. ``seconds`` of the train stage, ``memory`` and ``disk`` in bytes; 0 = not known."""

    tokens: int = 0
    rows: int = 0
    updates: int = 0
    seconds: int = 0
    memory: int = 0
    disk: int = 0
    # Milliseconds of one update.
    pace: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(plan: Plan) -> Planned:
    return Planned(
        tokens=plan.tokens,
        rows=plan.rows,
        updates=plan.updates,
        seconds=round(plan.seconds or 0),
        memory=plan.memory or 0,
        disk=plan.disk or 0,
        pace=round((plan.pace or 0) * 1000),
    )


def record_plan(
    ws: Workspace, run_id: str, stage: str | None, planned: Planned, who: str, machine: str = ""
) -> None:
    """As an event of the run; for a stage also as its worker's ``plan.json``. ``machine``: where it will run."""
    if stage is not None:
        folder = ws.job_dir(run_id, stage)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PLAN_FILE, planned.as_dict())
    text = " ".join(f"{name}={value}" for name, value in planned.as_dict().items())
    ws.store.add_event(run_id, stage, KIND, who, f"{text}; machine: {machine}" if machine else text)


def find_plan(ws: Workspace, run_id: str, stage: str | None = None) -> Planned | None:
    """What was planned for a stage; without one the best plan of the run, which is the last. None = none."""
    events = [e for e in ws.store.list_events(run_id) if e.kind == KIND]
    if stage is not None:
        events = [e for e in events if e.stage == stage]
    return parse_plan(events[-1].text) if events else None


def parse_plan(text: str) -> Planned:
    """The words of an event; a name that is not known, and what is no number, counts as not there."""
    known = Planned.__dataclass_fields__
    return Planned(**{n: int(v) for n, v in _WORD.findall(text) if n in known})


@dataclass(frozen=True)
class Comparison:
    """One figure, planned and measured. ``ratio``: measured over planned."""

    name: str
    planned: float
    took: float

    @property
    def ratio(self) -> float:
        return self.took / self.planned


def compare(ws: Workspace, run: Run) -> tuple[Comparison, ...]:
    """What is known of both sides: time, memory, tokens of the train stage."""
    planned, past = find_plan(ws, run.id), recall_run(ws, run)
    if planned is None or past is None:
        return ()
    tokens: float | None = None
    if past.tokens and past.rows and past.steps:
        train = run.recipe["recipe"]["train"]
        per_update = train["batch"] * train["accumulation"] * train.get("processes", 1)
        tokens = past.tokens / past.rows * past.steps * per_update
    pairs = (
        ("time", planned.seconds, past.seconds.get("train")),
        ("memory", planned.memory, past.peak),
        ("tokens", planned.tokens, tokens),
        ("updates", planned.updates, past.steps),
    )
    return tuple(Comparison(n, float(p), float(t)) for n, p, t in pairs if p and t)


def compare_plan(ws: Workspace, run: Run) -> tuple[str, ...]:
    """Lines for people: ``time: planned 8.6 min, took 9.1 min (1.06×)``."""
    return tuple(
        f"{c.name}: planned {_say(c.name, c.planned)}, took {_say(c.name, c.took)} ({c.ratio:.2f}×)"
        for c in compare(ws, run)
    )


def _say(name: str, value: float) -> str:
    if name == "time":
        return f"{value / 60:.1f} min" if value >= 60 else f"{value:.0f} s"
    return say_size(value) if name == "memory" else f"{value:,.0f}"
