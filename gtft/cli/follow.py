"""What a person sees while stages run: progress bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from gtft.artifact import short_id
from gtft.contract import Checkpoint, Event, Failed, Paused, Produced, Progress, Warned
from gtft.records.rows import StageRow
from gtft.runner.execution import Outcome
from gtft.runner.figures import say_seconds
from gtft.runner.watch import Listener

# Without a terminal, one progress line per stage and this many seconds.
PLAIN_SECONDS = 10.0


@contextmanager
def follow(*, quiet: bool) -> Iterator[Listener]:
    """A listener that shows events on stderr; nothing but errors when ``quiet``."""
    if quiet:
        yield lambda _row, _event: None
    elif sys.stderr.isatty():
        with _Bars() as bars:
            yield bars.listen
    else:
        yield _Lines().listen


class _Lines:
    def __init__(self) -> None:
        self._said = 0.0
        self._stage = ""

    def listen(self, row: StageRow, event: Event) -> None:
        if row.stage != self._stage:
            self._stage = row.stage
            self._say(row, "started")
        if isinstance(event, Progress):
            if time.monotonic() - self._said >= PLAIN_SECONDS:
                self._say(row, describe_progress(event))
        else:
            text = describe(event)
            if text:
                self._say(row, text)

    def _say(self, row: StageRow, text: str) -> None:
        self._said = time.monotonic()
        click.echo(f"{row.stage:<8} {text}", err=True)


class _Bars:
    """One rich progress bar per stage and unit, above it the lines that stay."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.fields[stage]:<8}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def listen(self, row: StageRow, event: Event) -> None:
        if isinstance(event, Progress):
            key = (row.stage, event.unit)
            if key not in self._tasks:
                self._tasks[key] = self._progress.add_task(
                    "", total=event.total, stage=row.stage, unit=event.unit, eta=""
                )
            self._progress.update(
                self._tasks[key],
                completed=event.done,
                total=event.total,
                eta=_describe_eta(event),
            )
        else:
            if isinstance(event, Produced):
                self._complete(row.stage)
            text = describe(event)
            if text:
                self._progress.console.print(
                    f"{row.stage:<8} {text}", markup=False, highlight=False
                )

    def _complete(self, stage: str) -> None:
        """What a finished stage showed last is whole."""
        for task in self._progress.tasks:
            if task.fields["stage"] == stage:
                self._progress.update(task.id, completed=task.total or task.completed, eta="")


def describe_progress(event: Progress) -> str:
    total = f" of {event.total}" if event.total is not None else ""
    return f"{event.done}{total} {event.unit}{_pad(_describe_eta(event))}"


def _describe_eta(event: Progress) -> str:
    parts = []
    if event.eta_s is not None:
        parts.append(f"about {say_seconds(event.eta_s)} left")
    if event.note:
        parts.append(event.note)
    return ", ".join(parts)


def _pad(text: str) -> str:
    return f", {text}" if text else ""


def describe(event: Event) -> str:
    """One line for an event that should stay on the screen; empty when it should not."""
    match event:
        case Checkpoint():
            return f"checkpoint at step {event.step}"
        case Warned(code="queue" | "memory"):
            return f"{event.code}: {event.text}"
        case Warned():
            return f"warning ({event.code}): {event.text}"
        case Produced():
            return f"wrote {event.kind} {short_id(event.id)}"
        case Paused():
            return f"paused{f' at step {event.step}' if event.step is not None else ''}"
        case Failed():
            return f"failed ({event.kind}): {event.message}"
        case _:
            return ""


def describe_outcome(outcome: Outcome) -> str:
    """Where a stage stands after it was carried out, and the next command."""
    row = outcome.stage
    match outcome.state:
        case "review":
            return (
                f"{row.stage} waits for its witness.\n"
                f"  see the evidence:  gtft review show {row.bead_id}\n"
                f"  decide:            gtft review approve {row.bead_id} --as witness\n"
                f'                     gtft review reject {row.bead_id} --as witness --reason "…"'
            )
        case "paused":
            return f"{row.stage} is paused. Go on with: gtft runs resume {row.run_id}"
        case "cancelled":
            return f"{row.run_id} is cancelled; what it made stays on disk."
        case "lost":
            return f"another runner took over {row.stage} of {row.run_id}: gtft status"
        case "failed":
            return f"{row.stage} failed. After mending it: gtft runs resume {row.run_id}"
        case _:
            return f"{row.stage} is done."
