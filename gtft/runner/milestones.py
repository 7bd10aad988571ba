"""The few comments that a training leaves on its bead: begun, first saved, half-way. Never one per step.

The end is in the note of its evidence (`say_trained`). Each is an event of the run and a message of the
outbox in one transaction, so that it is there once, whoever is killed in between.
"""

from __future__ import annotations

from pathlib import Path

from gtft.contract import Checkpoint, Event, Progress
from gtft.errors import TownError
from gtft.runner.box import say_count, say_size
from gtft.runner.figures import clean_text, read_figures, say_seconds, summarize
from gtft.runner.lease import Claim
from gtft.runner.outbox import tell_ledger
from gtft.runner.patience import wait_longer
from gtft.runner.planned import find_plan
from gtft.runner.watch import Listener
from gtft.runner.workspace import Workspace

# Kinds of events in the run's history.
BEGUN, SAVED, HALF_WAY = "training-begun", "first-checkpoint", "half-way"
# What comes between begin and end is only worth a comment when so much is left.
LEFT_SECONDS = 600.0


def tell_milestones(ws: Workspace, claim: Claim, listen: Listener) -> Listener:
    """A listener that hands every event on to ``listen``, and comments the milestones on the bead."""
    milestones = Milestones(ws, claim)

    def hear(row: object, event: Event) -> None:
        listen(claim.stage, event)
        milestones.hear(event)

    return hear


class Milestones:
    """The milestones of one claimed training."""

    def __init__(self, ws: Workspace, claim: Claim) -> None:
        # The runner reads on while the town is away; what could not be recorded is tried with the next event.
        self._ws = wait_longer(ws, 0.0)
        self._claim = claim
        self._due: dict[str, str] = {}
        # Those of earlier attempts; None = not asked yet.
        self._done: set[str] | None = None
        self._progress: Progress | None = None
        # Seconds, as told last.
        self._left: float | None = None

    def hear(self, event: Event) -> None:
        """One event of the worker. Looks into the store only when a milestone is due."""
        match event:
            case Progress(unit="steps", total=int(total)) if total > 0:
                self._progress = event
                self._left = event.eta_s if event.eta_s is not None else self._left
                self._note(BEGUN, f"training has begun: {say_count(total, 'step')}")
                if 2 * event.done >= total and self._is_long():
                    self._note(HALF_WAY, f"half-way: {self._say_step()}")
            case Checkpoint(step=step) if self._is_long():
                text = f"first checkpoint, at step {step}; from here on a stop loses little"
                self._note(SAVED, f"{text}. {self._say_step()}")
            case _:
                pass
        if self._due:
            self._record()

    def _note(self, kind: str, text: str) -> None:
        if self._done is None or kind not in self._done:
            self._due.setdefault(kind, text)

    def _record(self) -> None:
        ws, row, who = self._ws, self._claim.stage, self._claim.actor
        try:
            if self._done is None:
                events = ws.store.list_events(row.run_id)
                self._done = {e.kind for e in events if e.stage == row.stage}
            for kind, text in list(self._due.items()):
                if kind not in self._done:
                    text += self._say_planned() if kind == BEGUN else ""
                    note = tell_ledger("note", row.bead_id or "", who, text=text)
                    ws.store.add_event(row.run_id, row.stage, kind, who, text, messages=(note,))
                    self._done.add(kind)
                del self._due[kind]
        except TownError:
            return

    def _say_planned(self) -> str:
        planned = find_plan(self._ws, self._claim.stage.run_id)
        if planned is None or not planned.seconds:
            return ""
        size = f", {say_size(planned.memory)} of memory" if planned.memory else ""
        return f"; planned: {say_seconds(planned.seconds)}{size}"

    def _is_long(self) -> bool:
        return self._left is not None and self._left >= LEFT_SECONDS

    def _say_left(self) -> str:
        return f", about {say_seconds(self._left)} left" if self._left is not None else ""

    def _say_step(self) -> str:
        p = self._progress
        if p is None:
            return ""
        note = f", {clean_text(p.note, 80)}" if p.note else ""
        return f"step {p.done} of {p.total}{note}{self._say_left()}"


def say_trained(job_dir: Path) -> str:
    """The figures of a finished training, one line; empty when it left none."""
    t = summarize(read_figures(job_dir))
    if t is None:
        return ""
    said = [say_count(t.step, "step"), f"loss {t.loss_first:.3f} to {t.loss_last:.3f}"]
    if t.validation_best is not None:
        said.append(f"held-out {t.validation_best:.3f} at step {t.validation_best_step}")
    if t.tokens_per_s is not None:
        said.append(f"{t.tokens_per_s:,.0f} tokens/s")
    if t.peak_memory is not None:
        said.append(f"{say_size(t.peak_memory)} of memory at most")
    if t.seconds is not None:
        said.append(say_seconds(t.seconds))
    if t.warnings:
        said.append(say_count(t.warnings, "warning"))
    return ", ".join(said)
