"""Who did the work of a run and who accepted it, from its stages and events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from gtft.contract import STAGES
from gtft.errors import EvidenceError
from gtft.records.rows import EventRow, Run, StageRow
from gtft.records.store import Store

_WORKED = ("claimed", "taken-over")


@dataclass(frozen=True)
class Review:
    """The acceptance of the eval. ``at`` is UTC, as the store recorded it."""

    reviewer: str
    at: str
    text: str
    # The reviewer is among those who carried out a stage that made the evidence.
    self_approved: bool


@dataclass(frozen=True)
class People:
    dispatched_by: str
    # stage → actors, in order of their first claim
    workers: dict[str, tuple[str, ...]]
    review: Review


def read_people(store: Store, run: Run) -> People:
    """Raises EvidenceError when nobody has accepted the eval, or when the worker did without being allowed."""
    events = store.list_events(run.id)
    workers: dict[str, tuple[str, ...]] = {
        stage: tuple(
            dict.fromkeys(e.actor for e in events if e.stage == stage and e.kind in _WORKED)
        )
        for stage in STAGES
    }
    stage = store.find_stage(run.id, "eval")
    review = _read_review(run, stage, events, workers)
    return People(run.actor, workers, review)


def _read_review(
    run: Run, stage: StageRow, events: list[EventRow], workers: dict[str, tuple[str, ...]]
) -> Review:
    accepted = [e for e in events if e.stage == "eval" and e.kind == "done"]
    if stage.state != "done" or stage.reason or not stage.reviewer or not accepted:
        raise EvidenceError(
            f"the card cannot be written: nobody has accepted the eval of {run.id}",
            why=f"the store has it as {stage.state}"
            + (f" ({stage.reason})" if stage.reason else ""),
            fix="gtft review list",
        )
    last = accepted[-1]
    made = {stage.worker, *workers["harvest"], *workers["train"], *workers["eval"]}
    return Review(
        reviewer=stage.reviewer,
        at=format_time(last.created_us),
        text=last.text,
        self_approved=stage.reviewer in made,
    )


def format_time(us: int) -> str:
    """Microseconds since the epoch as ``2026-03-01 09:12 UTC``."""
    return datetime.fromtimestamp(us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
