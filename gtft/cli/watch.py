"""``gtft runs show RUN --watch``: a run as it goes, until it ends or waits for somebody.

It only reads: the store now and then, and what the workers appended since the last look.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

from gtft.cli.sight import Sight, describe_change
from gtft.cli.training import say_training
from gtft.contract import STAGES, Event, Progress
from gtft.errors import TownError
from gtft.records.rows import Run, StageRow
from gtft.runner.figures import Follower, clean_text, say_seconds, summarize
from gtft.runner.status import judge_run
from gtft.runner.waiting import read_waiting
from gtft.runner.workspace import Workspace

TICK_SECONDS = 0.5
STORE_SECONDS = 2.0
# Without a terminal: a line this often, and one for every change.
PLAIN_SECONDS = 10.0
# As long as this nobody may hold the run between two stages, or before a runner took it up.
GRACE_SECONDS = 20.0


class Face(Protocol):
    """How a sight is shown."""

    def show(self, sight: Sight, events: list[tuple[str, Event]]) -> None: ...

    def end(self, sight: Sight, last_words: str) -> None: ...


class Watcher:
    """Looks at one run again and again."""

    def __init__(self, ws: Workspace, run: Run, clock: Callable[[], float]) -> None:
        self._ws = ws
        self._run = run
        self._clock = clock
        self._followers: dict[str, Follower] = {s: Follower(ws.job_dir(run.id, s)) for s in STAGES}
        self._rows: tuple[StageRow, ...] = tuple(ws.store.list_stages(run.id))
        self._asked: float | None = None
        self._waiting = self._away = ""

    def look(self) -> tuple[Sight, list[tuple[str, Event]]]:
        """The run now, and what its workers said since the last look."""
        now = self._clock()
        if self._asked is None or now - self._asked >= STORE_SECONDS:
            self._ask_store()
            self._asked = now
        said = [(s, e) for s, f in self._followers.items() for e in f.read()]
        state, waits, step = judge_run(self._ws, self._run, list(self._rows))
        open_row = next((r for r in self._rows if r.state != "done"), self._rows[-1])
        held = next((r for r in self._rows if r.reason), open_row)
        sight = Sight(
            run=self._run.id,
            recipe=self._run.recipe_name,
            role=self._run.role,
            state=state,
            waits_for=waits,
            next=step,
            reason=held.reason_text,
            stages=self._rows,
            stage=open_row.stage,
            figures={s: f.figures for s, f in self._followers.items()},
            silent_s=max(0.0, self._ws.now() - self._followers[open_row.stage].changed),
            waiting=self._waiting,
            away=self._away,
        )
        return sight, said

    def _ask_store(self) -> None:
        try:
            self._rows = tuple(self._ws.store.list_stages(self._run.id))
            self._run = self._ws.store.find_run(self._run.id) or self._run
            self._away = ""
        except TownError as e:
            self._away = e.what
        active = next((r.stage for r in self._rows if r.state == "active"), None)
        waiting = read_waiting(self._ws.job_dir(self._run.id, active)) if active else None
        self._waiting = str(waiting) if waiting is not None else ""


def watch(
    ws: Workspace,
    run: Run,
    face: Face,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show ``run`` until it ends or waits for somebody. Ctrl-C ends the watching, never the run."""
    watcher = Watcher(ws, run, clock)
    sight, said = watcher.look()
    alone_since: float | None = None
    try:
        while True:
            face.show(sight, said)
            if is_settled(sight):
                face.end(sight, _say_end(sight))
                return
            # Between two stages nobody holds it for a moment.
            if sight.waits_for in ("a worker", "gtft") and not sight.away:
                alone_since = alone_since if alone_since is not None else clock()
                if clock() - alone_since > GRACE_SECONDS:
                    face.end(sight, f"nobody works on {sight.run}; go on with: {sight.next}")
                    return
            else:
                alone_since = None
            sleep(TICK_SECONDS)
            sight, said = watcher.look()
    except KeyboardInterrupt:
        goes_on = "goes on" if sight.is_active else f"stays {sight.state}"
        face.end(
            sight,
            f"stopped watching; {sight.run} {goes_on}. Look again: gtft runs show {sight.run} --watch",
        )


def is_settled(sight: Sight) -> bool:
    """It ended, or a person must decide; nothing will change by itself."""
    if all(r.state == "done" for r in sight.stages) or sight.state.startswith("done"):
        return True
    return sight.waits_for not in ("nobody", "a worker", "gtft")


def _say_end(sight: Sight) -> str:
    reason = f": {clean_text(sight.reason)}" if sight.reason else ""
    waits = f"; waits for {clean_text(sight.waits_for)}" if sight.waits_for != "nobody" else ""
    return f"{sight.run} is {sight.state}{reason}{waits}; next: {sight.next}"


@contextmanager
def choose_face(*, as_json: bool) -> Iterator[Face]:
    """JSON lines, a live screen on a terminal, else plain lines."""
    if as_json:
        yield JsonLines()
    elif sys.stdout.isatty():
        from gtft.cli.watch_screen import open_screen

        with open_screen() as screen:
            yield screen
    else:
        yield PlainLines()


# -- without a terminal


class PlainLines:
    """A line for what changed, and every `PLAIN_SECONDS` one for where it stands."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said = 0.0
        self._state = ""
        self._line = ""
        self._away = ""

    def show(self, sight: Sight, events: list[tuple[str, Event]]) -> None:
        # At the first look the past is told by the line of where it stands.
        changes = [describe_change(*e) for e in events] if self._state else []
        for text in filter(None, changes):
            click.echo(text)
        if sight.away != self._away:
            self._away = sight.away
            click.echo(
                f"town     {clean_text(sight.away)}; looking on" if sight.away else "town     back"
            )
        if sight.state != self._state:
            click.echo(f"{sight.run}  {sight.state}")
            self._state, self._said, self._line = sight.state, 0.0, ""
        line = describe_sight(sight)
        if line and line != self._line and self._clock() - self._said >= PLAIN_SECONDS:
            click.echo(line)
            self._line, self._said = line, self._clock()

    def end(self, sight: Sight, last_words: str) -> None:
        line = describe_sight(sight)
        if line and line != self._line:
            click.echo(line)
        click.echo(last_words)


def describe_sight(sight: Sight) -> str:
    """Where the run stands, in one line; empty when nothing was said yet."""
    if sight.waiting:
        return f"{sight.stage:<8} waits: {clean_text(sight.waiting, 400)}"
    progress = sight.now.progress
    trained = summarize(sight.figures["train"])
    if progress is None or not sight.is_active:
        return f"{'train':<8} {', '.join(say_training(trained))}" if trained is not None else ""
    if sight.stage == "train" and trained is not None:
        parts = say_training(trained)
    else:
        total = f" of {progress.total}" if progress.total is not None else ""
        parts = [f"{progress.done}{total} {progress.unit}"]
        parts += [progress.note] if progress.note else []
    if sight.eta_s is not None:
        parts.append(f"about {say_seconds(sight.eta_s)} left")
    return f"{sight.stage:<8} {clean_text(', '.join(parts), 400)}"


class JsonLines:
    """One envelope a line: at every change of state, of progress, and for every warning and checkpoint."""

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}

    def show(self, sight: Sight, events: list[tuple[str, Event]]) -> None:
        data = self._describe(sight)
        told = [
            {"stage": s, **json.loads(e.model_dump_json())}
            for s, e in events
            if not isinstance(e, Progress)
        ]
        if told or {**data, "eta_s": None} != self._before:
            self._print({**data, "events": told, "end": False})
            self._before = {**data, "eta_s": None}

    def end(self, sight: Sight, last_words: str) -> None:
        self._print({**self._describe(sight), "events": [], "end": True, "text": last_words})

    def _describe(self, sight: Sight) -> dict[str, Any]:
        progress = sight.now.progress
        training = summarize(sight.figures["train"])
        return {
            "run": sight.run,
            "state": sight.state,
            "waits_for": sight.waits_for,
            "next": sight.next,
            "stage": sight.stage,
            "progress": json.loads(progress.model_dump_json()) if progress is not None else None,
            "eta_s": sight.eta_s,
            "training": training.as_dict() if training is not None else None,
            "waiting": sight.waiting,
            "away": sight.away,
        }

    def _print(self, data: dict[str, Any]) -> None:
        click.echo(json.dumps({"ok": True, "data": data}, ensure_ascii=True))
        sys.stdout.flush()
