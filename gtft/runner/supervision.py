"""A stage under way: its worker is followed until it ends, and asked to stop when somebody wants that.

A training waits for its turn and for memory first; when memory runs out it gives way (its worker saves and
stops) and is started again by itself. The stage is active all the while, and its lease is kept.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from gtft.contract import Checkpoint, Event, Failed, Paused, Produced, Stage, Warned
from gtft.errors import GtftError, TrainingError
from gtft.recipe.schema import Recipe
from gtft.records.rows import Run
from gtft.runner.admission import Holder, Turn, find_devices, find_folder
from gtft.runner.box import say_count, say_size
from gtft.runner.lease import Claim
from gtft.runner.outbox import tell_people
from gtft.runner.pressure import (
    Reading,
    count_room,
    count_room_again,
    is_low,
    measure_memory,
    measure_resident,
    name_holders,
    say_low,
)
from gtft.runner.process import WorkerProcess, attach_worker, is_locked, start_worker
from gtft.runner.waiting import Waiting, clear_waiting, read_waiting, write_waiting
from gtft.runner.watch import Listener, Watch
from gtft.runner.workspace import Workspace

POLL_SECONDS = 0.25
# How often the queue is looked at, and what is told of a wait brought up to date.
QUEUE_SECONDS = 0.5
TELL_SECONDS = 5.0
MB = 1024**2


@dataclass(frozen=True)
class Terms:
    """On which terms a training may use the box. Bytes and seconds."""

    # The folder of the tickets, and the devices that it needs.
    queue: Path
    devices: tuple[str, ...]
    per_device: int
    # Memory that must stay free.
    headroom: int
    # Its peak as planned; 0 = not known.
    planned: int = 0
    measure: Callable[[], Reading] = measure_memory
    # Memory is looked at so often, and so many looks in a row decide.
    look_seconds: float = 3.0
    looks: int = 3
    # It gives way at most once in so long, and so often without a new step before it fails.
    yield_seconds: float = 60.0
    most_yields: int = 3
    # After so long a wait it says what can be done.
    advise_seconds: float = 1800.0


@dataclass(frozen=True)
class End:
    """How a stage ended. ``last``: its worker's last word; ``asked``: pause or cancel; ``ours``: False when
    another runner took over; ``text``: how the process ended; ``error``: why it cannot go on."""

    last: Event | None = None
    asked: str | None = None
    ours: bool = True
    text: str = ""
    error: GtftError | None = None


def find_terms(
    ws: Workspace, recipe: Recipe, environ: Mapping[str, str], planned: int = 0
) -> Terms:
    """The terms of this workspace on this box. ``planned``: peak memory in bytes, 0 = not known."""
    devices = find_devices(environ, recipe.train.processes)
    return Terms(
        queue=find_folder(environ),
        devices=devices,
        per_device=ws.config.trainings_per_device,
        headroom=ws.config.headroom_mb * MB,
        # On a GPU the plan is about the card's memory.
        planned=planned if devices == ("cpu",) else 0,
    )


def supervise(
    ws: Workspace,
    claim: Claim,
    run: Run,
    environ: Mapping[str, str],
    listen: Listener,
    terms: Terms | None,
) -> End:
    """Start or find the worker of a claimed stage and follow it until it has nothing more to say.

    ``terms`` None: a stage that may start at any time.
    """
    watch = Watch(ws, claim, listen)

    def start(keep: int | None) -> WorkerProcess:
        stage = cast(Stage, claim.stage.stage)
        return start_worker(ws.job_dir(run.id, stage), stage, Path(run.root), environ, keep)

    if terms is None:
        return follow(ws, claim, start(None), watch, listen, None)
    who = Holder(run.id, str(ws.path), os.getpid(), terms.devices)
    with Turn(terms.queue, who) as turn:
        return Training(ws, claim, run, watch, listen, terms, turn, start).carry()


def follow(
    ws: Workspace,
    claim: Claim,
    worker: WorkerProcess,
    watch: Watch,
    listen: Listener,
    training: Training | None,
) -> End:
    """Read a worker's events until it ends, or the stage is not ours any more."""
    row = claim.stage
    last: Event | None = None
    # When it was asked to stop.
    asked_at: float | None = None
    while True:
        try:
            # Before the events: what it wrote last is read after it has ended.
            ended = worker.has_ended()
            for event in worker.read_events():
                listen(row, event)
                if isinstance(event, Produced | Paused | Failed):
                    last = event
                if training is not None:
                    training.hear(event)
            if ended and worker.lost_the_lock() and last is None:
                worker = attach_worker(ws.job_dir(row.run_id, row.stage))
                continue
            if ended:
                return End(last, watch.asked, text=worker.describe_end())
            if not watch.look():
                return End(last, watch.asked, ours=False)
            wanted = watch.asked or (training is not None and training.must_yield(worker.pid))
            if wanted and asked_at is None:
                asked_at = time.monotonic()
                worker.stop()
            if asked_at is not None and time.monotonic() - asked_at > ws.config.stop_seconds:
                worker.stop(kill=True)
            time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            watch.interrupt()


class Training:
    """A train stage between its claim and its end: waiting, at work, giving way, at work again."""

    def __init__(
        self,
        ws: Workspace,
        claim: Claim,
        run: Run,
        watch: Watch,
        listen: Listener,
        terms: Terms,
        turn: Turn,
        start: Callable[[int | None], WorkerProcess],
    ) -> None:
        self._ws = ws
        self._claim = claim
        self._run = run
        self._job_dir = ws.job_dir(run.id, claim.stage.stage)
        self._watch = watch
        self._listen = listen
        self._terms = terms
        self._turn = turn
        self._start = start
        # Its worker was asked to stop because memory is low.
        self.yielding = False
        self._yields = 0
        self._stuck = 0
        # The last step that is saved, and the one at which it gave way before.
        self._step = 0
        self._yield_step = 0
        # Bytes that its worker held at most, since it was started last.
        self._used = 0
        self._looks = 0
        self._looked = self._started = self._told_at = 0.0
        self._told: Waiting | None = None
        self._advised = False
        noted = read_waiting(self._job_dir)
        if noted is not None and noted.why == "yielded":
            # Under a runner that is gone.
            self._yields, self._told = noted.yields, noted

    def carry(self) -> End:
        while True:
            worker = self._admit()
            if isinstance(worker, End):
                return worker
            end = follow(self._ws, self._claim, worker, self._watch, self._listen, self)
            if not end.ours:
                return end
            if end.asked or not self.yielding or isinstance(end.last, Produced | Failed):
                clear_waiting(self._job_dir)
                return end
            if (error := self._count_yield()) is not None:
                clear_waiting(self._job_dir)
                return replace(end, error=error)

    def hear(self, event: Event) -> None:
        """What its worker says about saved steps."""
        if isinstance(event, Checkpoint | Paused) and event.step is not None:
            self._step = max(self._step, event.step)

    def must_yield(self, pid: int) -> bool:
        """Look at memory when a look is due. True when the worker must give way."""
        terms, now = self._terms, time.monotonic()
        if self.yielding or now - self._looked < terms.look_seconds:
            return self.yielding
        self._looked = now
        self._used = max(self._used, measure_resident(pid))
        reading = terms.measure()
        self._looks = self._looks + 1 if is_low(reading, terms.headroom) else 0
        too_soon = self._yields > 0 and now - self._started < terms.yield_seconds
        if self._looks < terms.looks or too_soon:
            return False
        self.yielding = True
        self._yields += 1
        often = f" ({say_place(self._yields)} time)" if self._yields > 1 else ""
        low = say_low(reading, terms.headroom)
        text = f"{low}; it saves, stops, and goes on when there is room{often}"
        # On record before the worker is asked: whoever takes over then knows why it stops.
        self._tell(Waiting("yielded", text, yields=self._yields))
        return True

    def _admit(self) -> WorkerProcess | End:
        """Wait for the turn and for memory, then start the worker; or find the one that lives."""
        self._looks = 0
        next_look = 0.0
        while True:
            try:
                if is_locked(self._job_dir):
                    # It has a ticket of its own.
                    self._turn.release()
                    self.yielding = self._yields > 0
                    return attach_worker(self._job_dir)
                if not self._watch.look():
                    return End(ours=False)
                if self._watch.asked:
                    clear_waiting(self._job_dir)
                    text = (
                        "before it started"
                        if self._told is None
                        else f"it waited: {self._told.why}"
                    )
                    return End(Paused(text=text), self._watch.asked)
                if time.monotonic() >= next_look:
                    waiting = self._find_reason()
                    if isinstance(waiting, GtftError):
                        clear_waiting(self._job_dir)
                        return End(error=waiting)
                    if waiting is None:
                        return self._go()
                    self._tell(waiting)
                    queued = waiting.why == "queue"
                    pace = QUEUE_SECONDS if queued else self._terms.look_seconds
                    next_look = time.monotonic() + pace
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                self._watch.interrupt()

    def _find_reason(self) -> Waiting | GtftError | None:
        """Why the worker may not start now; an error when it never may; None when it may."""
        terms = self._terms
        try:
            self._turn.take()
            obstacle = self._turn.find_obstacle(terms.per_device)
        except GtftError as e:
            return e
        if obstacle is not None:
            device, ahead = obstacle
            runs = tuple(h.run for h in ahead)
            place = say_place(len(ahead) + 1)
            text = f"{place} for {device}, behind {' and '.join(str(h) for h in ahead)}"
            if runs[-1] == self._run.id:
                text = "its worker of before still starts or ends"
            return Waiting("queue", text, device, len(ahead) + 1, runs)
        reading = terms.measure()
        again = self._yields > 0
        room = count_room(terms.planned, terms.headroom)
        if again:
            room = count_room_again(room, terms.headroom, self._used)
        if room > reading.total:
            return TrainingError(
                f"this training needs {say_size(room)} of memory, {say_size(terms.headroom)} of them "
                "to stay free",
                why=f"all that there is here is {say_size(reading.total)}",
                fix="gtft run RECIPE --set train.max_length=512 (or a smaller base); gtft plan RECIPE says what fits",
            )
        enough = reading.free >= room and not (again and is_low(reading, terms.headroom))
        self._looks = self._looks + 1 if enough else 0
        if enough and (not again or self._looks >= terms.looks):
            return None
        text = f"{say_size(reading.free)} free, {say_size(room)} needed; waits"
        why = "yielded" if again else "memory"
        return Waiting(why, text, yields=self._yields)  # type: ignore[arg-type]

    def _go(self) -> WorkerProcess:
        """Start the worker, which keeps our place in the queue."""
        told = self._told
        if told is not None:
            over = "memory is back, it goes on by itself" if self._yields else "its turn has come"
            code = "resumed" if self._yields else told.why
            self._listen(self._claim.stage, Warned(code=code, text=over))
            self._watch.note("went-on", over)
        clear_waiting(self._job_dir)
        self._told, self._advised, self.yielding = None, False, False
        self._used = self._looks = 0
        worker = self._start(self._turn.fd)
        self._started = time.monotonic()
        return worker

    def _tell(self, waiting: Waiting) -> None:
        """Say a wait once, keep its figures up to date, and after a long one what can be done."""
        told, now = self._told, time.monotonic()
        same = told is not None and (told.why, told.behind) == (waiting.why, waiting.behind)
        since = told.since_us if same and told is not None else self._ws.store.now_us()
        waiting = replace(waiting, since_us=since)
        row = self._claim.stage
        if not same:
            holders = "" if waiting.why == "queue" else f" ({name_holders()})"
            self._listen(row, Warned(code=waiting.why, text=waiting.text + holders))
            gave_way = waiting.why == "yielded"
            kind, text = ("yielded", waiting.text) if gave_way else ("waits", str(waiting))
            self._watch.note(kind, text + holders)
        if not same or now - self._told_at > TELL_SECONDS:
            write_waiting(self._job_dir, waiting)
            self._told, self._told_at = waiting, now
        waited = (self._ws.store.now_us() - since) / 1e6
        if waited > self._terms.advise_seconds and not self._advised:
            self._advised = True
            self._advise(waiting, waited)

    def _advise(self, waiting: Waiting, waited: float) -> None:
        """What can be done about a long wait; for memory it is mailed too, since nobody else may notice."""
        row, run = self._claim.stage, self._run
        begun = f"it waits since {say_count(round(waited / 60), 'minute')}: {waiting}"
        if waiting.why == "queue":
            step = f"gtft runs pause {run.id} gives its place up; gtft runs show of the run ahead says how it does"
            self._listen(row, Warned(code="waits-long", text=f"{begun}. {step}"))
            return
        step = (
            f"Memory is held by {name_holders()}. End or pause some of them, or take a smaller training: "
            "gtft run RECIPE --set train.max_length=512"
        )
        self._listen(row, Warned(code="waits-long", text=f"{begun}. {step}"))
        notify = Recipe.model_validate(run.recipe["recipe"], strict=False).notify
        subject = (
            f"GTFT_FAILED: {row.stage} of {run.id} waits for memory ({run.recipe_name}, {run.role})"
        )
        body = f"{begun}\n{step}\nNext: gtft runs show {run.id}\nOr: gtft runs pause {run.id}"
        self._watch.note("waits-long", begun, tell_people(notify.to, subject, body))

    def _count_yield(self) -> GtftError | None:
        """After the worker has stopped: an error when it gives way again and again and gets nowhere."""
        self._stuck = 0 if self._step > self._yield_step else self._stuck + 1
        self._yield_step = self._step
        if self._stuck < self._terms.most_yields:
            return None
        return TrainingError(
            f"training gave way to others {say_count(self._stuck, 'time')} in a row without a new step",
            why=f"less than {say_size(self._terms.headroom)} of memory stayed free each time; it held "
            f"{say_size(self._used)} itself, and now: {name_holders()}",
            fix=f"free some memory, then: gtft runs resume {self._run.id}; "
            "or a smaller training: gtft run RECIPE --set train.max_length=512",
        )


def say_place(n: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``11th``."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th") if n % 100 not in (11, 12, 13) else "th"
    return f"{n}{ending}"
