"""``gtft hook``: what the installed hooks call. Quiet, quick, and never an agent's trouble."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import click

from gtft.town.hooks import find_home, log_error, queue_bead, read_stdin, record_session


@click.group(epilog="Put into a town by: gtft town install    (docs/town-parts.md)")
def command() -> None:
    """What the installed hooks call. It says nothing and always exits 0; see .gtft/hooks.log."""


@command.command("session-start")
def session_start() -> None:
    """Claude Code's SessionStart: note which session is which agent. Its JSON is on stdin."""
    stdin = read_stdin()
    _try("session-start", lambda home: record_session(home, stdin, os.environ, time.time()))


@command.command("bead-close", context_settings={"ignore_unknown_options": True})
@click.argument("bead")
@click.argument("event", default="close")
def bead_close(bead: str, event: str) -> None:
    """bd's on_close: queue the session of BEAD for the next harvest."""
    if event == "close":
        _try("bead-close", lambda home: queue_bead(home, bead, os.environ, time.time()))


def _try(hook: str, act: Callable[[Path], None]) -> None:
    home = find_home(Path.cwd(), os.environ)
    if home is None:
        return
    try:
        act(home)
    except (OSError, ValueError, RecursionError) as e:
        log_error(home, hook, e, time.time())
