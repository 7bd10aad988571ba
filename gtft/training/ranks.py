"""Several processes of one box that share a training: torchrun's environment, with or without torchrun.

The worker that the runner started is rank 0; it starts the others, which are the same script with RANK
set, and they end with it. Started by ``torchrun`` or ``accelerate launch`` the variables are already there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gtft.contract import EVENTS_FILE, Failed, parse_event
from gtft.errors import GtftError, TrainingError, WorkerFailed, find_kind

_PR_SET_PDEATHSIG = 1
_END_SECONDS = 10.0
# How long after the end of a rank the others may take to notice by themselves.
_GRACE_SECONDS = 20.0


@dataclass(frozen=True)
class Ranks:
    """Which of how many this process is; ``local`` numbers the GPUs of this box."""

    rank: int = 0
    local: int = 0
    world: int = 1

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Ranks:
        """Raises TrainingError when the launcher's variables are not numbers."""
        try:
            rank, world = int(environ.get("RANK", "0")), int(environ.get("WORLD_SIZE", "1"))
            return cls(rank, int(environ.get("LOCAL_RANK", str(rank))), world)
        except ValueError as e:
            raise TrainingError(
                "RANK, LOCAL_RANK and WORLD_SIZE must be numbers",
                why=str(e),
                fix="unset them, or start it with torchrun",
            ) from e


@contextmanager
def start_ranks(
    processes: int, job_dir: Path, environ: MutableMapping[str, str]
) -> Iterator[Ranks]:
    """The ranks of this training, from this process's view; rank 0 of a plain start brings up the others.

    Raises TrainingError when torchrun started another number than the recipe says.
    """
    given = Ranks.read(environ)
    if given.world > 1 and given.world != processes:
        raise TrainingError(
            f"{given.world} processes were started, and the recipe says train.processes = {processes}",
            why="the updates would not be those of the recipe",
            fix=f"torchrun --nproc-per-node {processes} …, or --set train.processes={given.world}",
        )
    if processes == 1 or given.world > 1:
        yield given
        return
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_find_port()),
        "WORLD_SIZE": str(processes),
        # Ranks with all cores each would only wait for each other.
        "OMP_NUM_THREADS": environ.get("OMP_NUM_THREADS", str(share_cores(processes))),
    }
    children: list[subprocess.Popen[bytes]] = []
    done = threading.Event()
    die_with_parent = _prepare_death()
    try:
        for rank in range(1, processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            children.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "gtft.workers.train", str(job_dir)],
                    env={**environ, **shared, **own},
                    stdin=subprocess.DEVNULL,
                    preexec_fn=die_with_parent,
                )
            )
        environ.update({**shared, "RANK": "0", "LOCAL_RANK": "0"})
        threading.Thread(target=_watch, args=(children, done), daemon=True).start()
        yield Ranks(0, 0, processes)
    except RuntimeError as e:
        # The others are gone from the line: one of them may have said why.
        told = _find_failure(job_dir, processes)
        if told is None:
            raise
        raise told from e
    finally:
        done.set()
        _end(children)


def _watch(children: Sequence[subprocess.Popen[bytes]], done: threading.Event) -> None:
    """A rank that dies before all have met is waited for half an hour by the library: not here."""
    while not done.wait(1.0):
        if any(child.poll() for child in children) and not done.wait(_GRACE_SECONDS):
            sys.stderr.write("a process of this training ended, and the others wait for it\n")
            sys.stderr.flush()
            os._exit(WorkerFailed.exit_code)


def _find_failure(job_dir: Path, processes: int) -> GtftError | None:
    """What a rank gave as the reason for its end."""
    for rank in range(1, processes):
        path = job_dir / f"rank-{rank}" / EVENTS_FILE
        lines = path.read_bytes().splitlines() if path.is_file() else []
        try:
            event = parse_event(lines[-1]) if lines else None
        except ValueError:
            continue
        if isinstance(event, Failed):
            return find_kind(event.kind)(event.message, why=event.why, fix=event.fix)
    return None


def share_cores(processes: int) -> int:
    """Threads of each rank."""
    return max(1, (os.cpu_count() or 1) // processes)


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    """They end by themselves when the training does; one that waits for a dead rank is ended."""
    for child in children:
        try:
            child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _prepare_death() -> Callable[[], object] | None:
    """What a child calls to be killed with its parent; found before the fork, which only calls it."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _find_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
