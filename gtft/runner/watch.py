"""What a runner looks after while its stage is active: the lease, the operator, the beads."""

from __future__ import annotations

import time
from collections.abc import Callable

from gtft.contract import Event, Warned
from gtft.errors import TownError
from gtft.records.rows import Message, StageRow
from gtft.runner.byhand import respect_hands
from gtft.runner.lease import Claim, lease_end
from gtft.runner.outbox import deliver
from gtft.runner.patience import wait_longer
from gtft.runner.workspace import Workspace

# How often the beads of a running stage are compared with the store, and late messages sent.
LOOK_SECONDS = 10.0

# Told of every event while a stage runs: (stage row, event).
Listener = Callable[[StageRow, Event], None]


class Watch:
    """The lease is renewed, what was asked of the run or done to its beads by hand is noticed, late messages
    are sent. A town that is away is told once, and tried again."""

    def __init__(self, ws: Workspace, claim: Claim, listen: Listener) -> None:
        self._ws = wait_longer(ws, 0.0)
        self._claim = claim
        self._listen = listen
        self._every = min(ws.config.lease_seconds / 3, 1.0)
        self._beat = time.monotonic()
        # Not yet: the first heartbeat sends word of the start.
        self._looked = -LOOK_SECONDS
        self._away = False
        # "pause" or "cancel", once somebody asked for it.
        self.asked: str | None = None

    def look(self) -> bool:
        """A heartbeat when one is due. False when the stage is not ours any more."""
        if time.monotonic() - self._beat <= self._every:
            return True
        self._beat = time.monotonic()
        try:
            ours = self._renew()
        except TownError as e:
            if not self._away:
                text = f"{e.what}; the worker goes on, and what it made is recorded when the town is back"
                self._listen(self._claim.stage, Warned(code="town-away", text=text))
            self._away = True
            return True
        self._away = False
        return ours

    def note(self, kind: str, text: str, *messages: Message) -> None:
        """An event of the run's history. While the town is away it is said that it is not there."""
        row, who = self._claim.stage, self._claim.actor
        try:
            self._ws.store.add_event(row.run_id, row.stage, kind, who, text, messages=messages)
        except TownError as e:
            said = f"{e.what}; this is not in the run's history: {kind}: {text}"
            self._listen(row, Warned(code="town-away", text=said))

    def interrupt(self) -> None:
        """Ctrl-C: the run is to pause. The second time KeyboardInterrupt is raised."""
        if self.asked is not None:
            raise KeyboardInterrupt
        self._ws.store.set_desired(self._claim.stage.run_id, "pause", self._claim.actor)

    def _renew(self) -> bool:
        ws, row = self._ws, self._claim.stage
        if not ws.store.renew(row.run_id, row.stage, self._claim.token, lease_end(ws)):
            return False
        run = ws.store.find_run(row.run_id)
        if run is not None and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            deliver(ws)
            for text in respect_hands(ws, [run]):
                self._listen(row, Warned(code="by-hand", text=text))
            run = ws.store.find_run(row.run_id)
        if run is not None and run.desired != "run" and self.asked is None:
            self.asked = run.desired
        return True
