"""The frame around every worker: the lock, the job, the events, the signal and the exit code."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from pydantic import ValidationError

from gtft.artifact import Artifact, canonical_json
from gtft.contract import (
    EVENTS_FILE,
    JOB_FILE,
    LOCK_FILE,
    METRICS_FILE,
    Checkpoint,
    Event,
    Failed,
    Job,
    Metric,
    Paused,
    Produced,
    Progress,
    Warned,
)
from gtft.errors import (
    PAUSED_EXIT,
    ConflictError,
    GtftError,
    InputError,
    InternalError,
    UsageError,
    translate_os_error,
)

LOCK_SECONDS = 1.0


class Stopped(Exception):
    """Raised by a worker that was asked to stop and has saved its work. ``step`` is where it stands."""

    def __init__(self, step: int | None = None, text: str = "") -> None:
        super().__init__(text)
        self.step = step
        self.text = text


class Reporter:
    """Writes the events of one job. Every line is flushed; events that promise something are fsynced."""

    def __init__(self, job_dir: Path, echo: TextIO) -> None:
        self._events = (job_dir / EVENTS_FILE).open("a", encoding="utf-8")
        self._metrics_path = job_dir / METRICS_FILE
        self._metrics: TextIO | None = None
        self._echo = echo
        self._stop = False
        self._not_finite: set[str] = set()

    @property
    def stop_requested(self) -> bool:
        """True once the worker was asked (SIGTERM) to save and stop."""
        return self._stop

    def request_stop(self) -> None:
        self._stop = True

    def progress(
        self, done: int, total: int | None, unit: str, eta_s: float | None = None, note: str = ""
    ) -> None:
        """``eta_s`` in seconds; ``total`` None when it cannot be known."""
        self._send(Progress(done=done, total=total, unit=unit, eta_s=eta_s, note=note))

    def metric(self, step: int, name: str, value: float) -> None:
        """One figure of one step; also a line of ``metrics.jsonl``. NaN and infinity have no place in JSON:
        they are told as a warning, once a name, and not written."""
        if not math.isfinite(value):
            if name not in self._not_finite:
                self._not_finite.add(name)
                self.warn(
                    "figure-not-finite", f"{name} is {value} at step {step}; it is not written"
                )
            return
        value = float(value)
        self._send(Metric(step=step, name=name, value=value))
        if self._metrics is None:
            self._metrics = self._metrics_path.open("a", encoding="utf-8")
        self._metrics.write(canonical_json({"step": step, "name": name, "value": value}) + "\n")
        self._metrics.flush()

    def checkpoint(self, path: str, step: int) -> None:
        self._send(Checkpoint(path=path, step=step), durable=True)

    def warn(self, code: str, text: str) -> None:
        self._send(Warned(code=code, text=text))
        self._echo.write(f"warning ({code}): {text}\n")
        self._echo.flush()

    def finish(self, event: Produced | Paused | Failed) -> None:
        self._send(event, durable=True)

    def _send(self, event: Event, *, durable: bool = False) -> None:
        self._events.write(event.model_dump_json() + "\n")
        self._events.flush()
        if durable:
            os.fsync(self._events.fileno())


def main(work: Callable[[Job, Reporter], Artifact]) -> NoReturn:
    """Run ``work`` on the job directory named on the command line and exit as the contract says."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m gtft.workers.<stage> JOB_DIR\n")
        sys.exit(UsageError.exit_code)
    sys.exit(carry_out(work, Path(sys.argv[1])))


def carry_out(work: Callable[[Job, Reporter], Artifact], job_dir: Path) -> int:
    """The body of `main`: returns the exit code."""
    try:
        job = Job.model_validate_json((job_dir / JOB_FILE).read_bytes())
        job.workdir.mkdir(parents=True, exist_ok=True)
        rank = os.environ.get("RANK", "0")
        if rank != "0" and rank.isdigit():
            # The other processes of a shared training have a lock and events of their own.
            job_dir = job_dir / f"rank-{rank}"
            job_dir.mkdir(exist_ok=True)
        lock = (job_dir / LOCK_FILE).open("a+")
        for name in (EVENTS_FILE, METRICS_FILE):
            _trim_torn_line(job_dir / name)
        report = Reporter(job_dir, sys.stderr)
    except OSError as e:
        return _say(translate_os_error(e, "opening the job"))
    except ValidationError as e:
        return _say(InputError(f"{job_dir / JOB_FILE} is not a job", why=str(e), fix="gtft doctor"))
    if not _take_lock(lock.fileno()):
        # No event here: the file belongs to the worker that holds the lock.
        return _say(
            ConflictError(
                f"another worker already carries out {job.stage} of {job.run_id}",
                why=f"it holds {LOCK_FILE} in {job_dir}",
                fix=f"gtft runs show {job.run_id}",
            )
        )

    def on_term(_signum: int, _frame: FrameType | None) -> None:
        if report.stop_requested:
            # A second request does not wait for the step to end.
            os._exit(128 + signal.SIGTERM)
        report.request_stop()

    signal.signal(signal.SIGTERM, on_term)
    # Ctrl-C reaches the whole terminal group; the runner decides what it means for the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        made = work(job, report)
        report.finish(Produced(id=made.id, kind=made.kind, path=made.path))
        return 0
    except Stopped as e:
        report.finish(Paused(step=e.step, text=e.text))
        # Rank 0 speaks for all: a launcher takes any other code of a rank for a crash.
        return PAUSED_EXIT if rank == "0" else 0
    except GtftError as e:
        return _fail(report, e)
    except OSError as e:
        return _fail(report, translate_os_error(e, f"carrying out {job.stage}"))
    except Exception as e:  # noqa: BLE001 - the last frame of the process: a bug must still be told
        native = _find_os_error(e)
        if native is not None:
            return _fail(report, translate_os_error(native, f"carrying out {job.stage}"))
        traceback.print_exc()
        return _fail(
            report,
            InternalError(
                f"{job.stage} ended with a bug: {type(e).__name__}: {e}",
                why=f"the traceback is in {job_dir / 'worker.log'}",
                fix=f"gtft runs logs {job.run_id} --stage {job.stage}",
            ),
        )


def answer_once(work: Callable[[Path, Job], None], doing: str) -> int:
    """The frame of a worker outside the stages: a folder with a job in, files out. ``doing`` completes "while …".

    Returns the exit code: the error's, which is told on stderr as JSON.
    """
    try:
        folder = Path(sys.argv[1])
        work(folder, Job.model_validate_json((folder / JOB_FILE).read_bytes()))
    except (ValidationError, IndexError) as e:
        error: GtftError = InputError(
            f"what was asked while {doing} cannot be read", why=str(e)[:300], fix="gtft doctor"
        )
    except GtftError as e:
        error = e
    except OSError as e:
        error = translate_os_error(e, doing)
    else:
        return 0
    sys.stderr.write(json.dumps({"error": error.as_dict()}) + "\n")
    return error.exit_code


def _take_lock(fd: int) -> bool:
    """A look from outside (`gtft.runner.process.is_locked`) holds the lock for an instant; a worker
    holds it for long. So a short wait tells them apart."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)


def _find_os_error(error: Exception) -> OSError | None:
    """Libraries written in Rust (safetensors, tokenizers) raise their own classes for the system's
    refusals, with ``(os error N)`` in the text."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def _fail(report: Reporter, error: GtftError) -> int:
    text = "\n".join(str(error).split("\n  why:")[0].split("\n  next:")[0].splitlines())
    report.finish(Failed(kind=error.kind, message=text, why=error.why, fix=error.fix))
    return _say(error)


def _say(error: GtftError) -> int:
    sys.stderr.write(f"{error}\n")
    sys.stderr.flush()
    return error.exit_code


def _trim_torn_line(path: Path) -> None:
    """A killed writer may leave half a line; what follows must start on a line of its own."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as f:
        f.seek(-1, os.SEEK_END)
        if f.read(1) != b"\n":
            f.write(b"\n")
