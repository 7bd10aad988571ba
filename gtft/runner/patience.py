"""Waiting for a town whose server is away: its Dolt may be stopped for a while, and training is long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from gtft.errors import TownError
from gtft.records.store import Store
from gtft.runner.workspace import Workspace

R = TypeVar("R")
RETRY_SECONDS = 1.0


def wait_longer(ws: Workspace, seconds: float) -> Workspace:
    """The same workspace whose store waits up to ``seconds`` for a server that is away."""
    return replace(ws, store=Store(ws.store.units.engine, ws.now, seconds))


def insist(ws: Workspace, call: Callable[[], R]) -> R:
    """Call until the town answers, at most for ``patience_seconds``; then its TownError is raised.
    ``call`` must bear repetition."""
    end = time.monotonic() + ws.config.patience_seconds
    while True:
        try:
            return call()
        except TownError:
            if time.monotonic() > end:
                raise
            time.sleep(RETRY_SECONDS)
