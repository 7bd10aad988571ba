"""A worker's process: start it, find it again after the runner died, read its events, stop it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gtft.artifact import write_json
from gtft.contract import (
    EVENTS_FILE,
    LOCK_FILE,
    LOG_FILE,
    WORKERS,
    Event,
    Produced,
    Stage,
    Warned,
    parse_event,
)
from gtft.errors import ConflictError

ATTEMPT_FILE = "attempt.json"

# Set before torch is imported: passive waiting keeps a busy box usable (training.md 2.6); no telemetry.
WORKER_ENV = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONHASHSEED": "0",
}


@dataclass(frozen=True)
class Attempt:
    """What a runner notes when it starts a worker, so that another runner can follow it."""

    pid: int
    # Where this attempt's events begin in events.jsonl, bytes.
    offset: int
    # It was asked to save and stop; a second request would not let it save.
    asked: bool = False


class WorkerProcess:
    """One worker, started by us or found alive. It is in its own session and outlives us."""

    def __init__(
        self, job_dir: Path, attempt: Attempt, child: subprocess.Popen[bytes] | None
    ) -> None:
        self._job_dir = job_dir
        self._attempt = attempt
        self._child = child
        self._offset = attempt.offset
        self._rest = b""

    @property
    def attached(self) -> bool:
        """True when another runner started it."""
        return self._child is None

    @property
    def pid(self) -> int:
        """0 when nobody knows it."""
        return self._attempt.pid

    def read_events(self) -> Iterator[Event]:
        """What it wrote since the last call. A line that is no event is reported as a warning."""
        path = self._job_dir / EVENTS_FILE
        if not path.exists():
            return
        with path.open("rb") as f:
            f.seek(self._offset)
            data = f.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not line.strip():
                continue
            try:
                yield parse_event(line)
            except ValueError:
                text = line[:200].decode("utf-8", "replace")
                yield Warned(code="event-unreadable", text=f"the worker wrote: {text}")

    def has_ended(self) -> bool:
        if self._child is not None:
            return self._child.poll() is not None
        return not is_locked(self._job_dir)

    def lost_the_lock(self) -> bool:
        """Our child gave up because another worker already holds the job."""
        return self._child is not None and self._child.poll() == ConflictError.exit_code

    def describe_end(self) -> str:
        code = self._child.poll() if self._child is not None else None
        if code is None:
            return "the worker is gone"
        if code < 0:
            return f"the worker was ended by {signal.Signals(-code).name}"
        return f"the worker exited with {code}"

    def stop(self, *, kill: bool = False) -> None:
        """Ask it to save and stop (once, whoever asks), or end it. Only a process that holds this job's lock
        is signalled."""
        # 0: nobody knows its pid, and to the kernel that would mean all of our own group.
        if self.has_ended() or self._attempt.pid <= 0:
            return
        if not kill:
            if self._attempt.asked:
                return
            self._attempt = replace(self._attempt, asked=True)
            # Noted first: a runner that takes over must not ask again.
            write_json(self._job_dir / ATTEMPT_FILE, asdict(self._attempt))
        try:
            os.kill(self._attempt.pid, signal.SIGKILL if kill else signal.SIGTERM)
        except ProcessLookupError:
            return


def start_worker(
    job_dir: Path, stage: Stage, cwd: Path, environ: Mapping[str, str], keep: int | None = None
) -> WorkerProcess:
    """Start the stage's worker, or attach to the one that already holds the job's lock.

    ``keep``: an open file that the worker inherits and holds while it lives (its place on the device).
    """
    if is_locked(job_dir):
        return attach_worker(job_dir)
    events = job_dir / EVENTS_FILE
    offset = events.stat().st_size if events.exists() else 0
    with (job_dir / LOG_FILE).open("ab") as log:
        child = subprocess.Popen(
            # -P: a module in the town's folder must not be imported in place of a library's.
            [sys.executable, "-P", "-m", f"gtft.workers.{WORKERS[stage]}", str(job_dir)],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=() if keep is None else (keep,),
            env={**environ, **WORKER_ENV},
        )
    attempt = Attempt(child.pid, offset)
    write_json(job_dir / ATTEMPT_FILE, asdict(attempt))
    return WorkerProcess(job_dir, attempt, child)


def attach_worker(job_dir: Path) -> WorkerProcess:
    """Follow a worker that another runner started."""
    with (job_dir / LOCK_FILE).open("rb") as f:
        holder = _find_holder(f.fileno(), job_dir)
    noted = _read_attempt(job_dir)
    pid = holder or noted.pid
    attempt = Attempt(pid, noted.offset, noted.asked and pid == noted.pid)
    return WorkerProcess(job_dir, attempt, None)


def find_result(job_dir: Path) -> Produced | None:
    """What the last attempt produced while no runner was there to see it."""
    if is_locked(job_dir):
        return None
    last = None
    for event in WorkerProcess(job_dir, _read_attempt(job_dir), None).read_events():
        last = event
    return last if isinstance(last, Produced) else None


def _read_attempt(job_dir: Path) -> Attempt:
    """What the last runner noted; a runner that died right after its first start noted nothing."""
    path = job_dir / ATTEMPT_FILE
    if not path.exists():
        return Attempt(0, 0)
    noted = json.loads(path.read_text("utf-8"))
    return Attempt(int(noted["pid"]), int(noted["offset"]), bool(noted.get("asked", False)))


def is_locked(job_dir: Path) -> bool:
    """True while a worker of this job lives: the kernel drops the lock with the process."""
    path = job_dir / LOCK_FILE
    if not path.exists():
        return False
    with path.open("a+") as f:
        try:
            # Shared: two that look at once must not take each other for the worker.
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(f, fcntl.LOCK_UN)
        return False


def _find_holder(fd: int, job_dir: Path) -> int | None:
    """The pid that holds the lock, as Linux tells it; None elsewhere."""
    locks = Path("/proc/locks")
    if not locks.exists():
        return None
    inode = os.fstat(fd).st_ino
    for line in locks.read_text().splitlines():
        parts = line.split()
        if len(parts) >= 6 and parts[1] == "FLOCK" and parts[5].endswith(f":{inode}"):
            return int(parts[4])
    return None
