"""Who may switch a role of the town now: one at a time, and nobody for as long as a server takes to answer."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gtft.errors import ConflictError, translate_os_error

LOCK_FILE = "deploy.lock"
_PAUSE = 0.05


@contextmanager
def lock_deploy(workspace: Path, seconds: float = 0.0) -> Iterator[IO[str]]:
    """One switch at a time; the kernel drops the lock with its holder. Raises ConflictError when another still holds
    it after ``seconds``. Yields what `let_others` takes."""
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        f = (workspace / LOCK_FILE).open("a")
    except OSError as e:
        raise translate_os_error(e, "locking deployments") from e
    end = time.monotonic() + seconds
    with f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as e:
                if time.monotonic() >= end:
                    raise ConflictError(
                        "another deploy, promote or rollback is at work in this town",
                        why="one at a time, so that each sees what the other did",
                        fix="wait for it, then the same command again",
                    ) from e
            time.sleep(_PAUSE)
        yield f


@contextmanager
def let_others(lock: IO[str], journal: Path) -> Iterator[None]:
    """Others may switch while we wait in the middle of ``journal``. That file is locked meanwhile, so that nobody
    takes it for one that was cut off; a rollback of the place may still put another in its stead."""
    try:
        own = journal.open("r+b")
    except OSError as e:
        raise translate_os_error(e, "locking a deployment's journal") from e
    with own:
        fcntl.flock(own, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_UN)
        try:
            yield
        finally:
            _lock_again(lock)


def _lock_again(lock: IO[str]) -> None:
    """A key stops nobody before the lock is ours: what comes next touches the journal."""
    stopped: KeyboardInterrupt | None = None
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            break
        except KeyboardInterrupt as e:
            stopped = e
    if stopped is not None:
        raise stopped


def is_awaited(journal: Path) -> bool:
    """Whether the one who applies it is at work: it waits in `let_others`."""
    try:
        with journal.open("r+b") as own:
            fcntl.flock(own, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as e:
        raise translate_os_error(e, "reading a deployment's journal") from e
    return False
