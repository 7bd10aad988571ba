"""A run as it is seen now, and what changed since the last look, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gtft.contract import Checkpoint, Event, Failed, Warned
from gtft.records.rows import StageRow
from gtft.runner.figures import Figures, clean_text


@dataclass(frozen=True)
class Sight:
    """A run as it is seen now. ``silent_s``: seconds since the stage's worker last wrote a figure or event."""

    run: str
    recipe: str
    role: str
    state: str
    waits_for: str
    next: str
    reason: str
    stages: tuple[StageRow, ...]
    # The stage that is not done yet; the last one of a finished run.
    stage: str
    figures: dict[str, Figures]
    silent_s: float
    # What the active stage waits for: its turn, or memory.
    waiting: str = ""
    # The town's store cannot be asked now.
    away: str = ""

    @property
    def now(self) -> Figures:
        return self.figures[self.stage]

    @property
    def is_active(self) -> bool:
        """Somebody works on it, as far as the store knows."""
        return self.state.startswith("active") and self.waits_for == "nobody"

    @property
    def eta_s(self) -> float | None:
        """What is left, less what passed since the worker said so."""
        told = self.now.progress.eta_s if self.now.progress is not None else None
        if told is None or not math.isfinite(told):
            return None
        return max(0.0, told - self.silent_s)


def describe_change(stage: str, event: Event) -> str:
    """One line for what a reader should see even when it scrolls; empty for the rest."""
    match event:
        case Checkpoint():
            return f"{stage:<8} checkpoint at step {event.step}"
        case Warned():
            return f"{stage:<8} warning ({clean_text(event.code, 60)}): {clean_text(event.text)}"
        case Failed():
            return f"{stage:<8} failed ({clean_text(event.kind, 60)}): {clean_text(event.message)}"
        case _:
            return ""
