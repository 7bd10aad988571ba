"""A run and its swarm: what is asked of the swarm worker, and the seat that ties them together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gtft.contract import STAGES
from gtft.errors import ConflictError, WorkerFailed, find_kind
from gtft.recipe.schema import Base
from gtft.records.rows import Run
from gtft.runner.moves import read_recipe
from gtft.runner.workspace import Workspace
from gtft.swarm.place import SeatFile, find_seat, read_seat, write_seat
from gtft.swarm.preflight import Answer

# Loading Hivemind takes about 6 s; every address is dialled for up to 5.
LOOK_S = 45.0
# Hashing a base of 30 GB, or fetching it first.
BASE_S = 4 * 3600.0


def hash_base(
    workspace: Path, base: Base, root: Path, environ: Mapping[str, str]
) -> tuple[str, str]:
    """The (id, name) of a recipe's base. Raises BaseMissing, MissingExtra, WorkerFailed."""
    request = {
        "do": "base",
        "workspace": str(workspace),
        "base": base.model_dump(mode="json"),
        "root": str(root),
    }
    found = ask_worker(request, environ, BASE_S)
    return str(found["id"]), str(found["name"])


def look_at(
    workspace: Path, folder: Path, environ: Mapping[str, str]
) -> tuple[tuple[Answer, ...], dict[str, Any], dict[str, int]]:
    """Ask the swarm itself: answers by address, newest records by peer, and who is up at which round."""
    request = {"do": "look", "workspace": str(workspace), "folder": str(folder)}
    found = ask_worker(request, environ, LOOK_S)
    return tuple(Answer(**a) for a in found["answers"]), found["records"], found["here"]


def ask_worker(
    request: Mapping[str, Any], environ: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    """One request to ``gtft.workers.swarm``, in a process group of its own that ends with it.

    Raises what the worker answers as an error, and WorkerFailed when it does not answer in time.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "gtft.workers.swarm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=dict(environ),
    ) as child:
        try:
            out, said = child.communicate(json.dumps(request), timeout=seconds)
        except subprocess.TimeoutExpired:
            out, said = "", f"no answer within {seconds:.0f} s"
        finally:
            _end_group(child.pid)
    try:
        answer = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError) as e:
        raise WorkerFailed(
            f"gtft could not {'ask the swarm' if request['do'] == 'look' else 'read the base'}",
            why=" | ".join(said.strip().splitlines()[-2:])[:300]
            or "its worker ended without a word",
            fix="gtft doctor, then run the command again",
        ) from e
    if not answer["ok"]:
        error = answer["error"]
        raise find_kind(error["kind"])(error["what"], why=error["why"], fix=error["fix"])
    return dict(answer["data"])


def check_run(ws: Workspace, run: Run, folder: Path | None) -> None:
    """Raises ConflictError unless this run can still take a seat in a swarm (``folder``; None: a new one)."""
    held = find_seat(ws.path, run.id)
    if held is not None and held[0] != folder:
        raise ConflictError(
            f"{run.id} takes part in {held[0].name} already",
            why="a run has one swarm",
            fix="gtft swarm status, or another run",
        )
    if read_recipe(run).train.engine != "swarm":
        raise ConflictError(
            f"{run.id} does not train with peers",
            why='its recipe says engine = "local", and a run keeps its recipe',
            fix="leave --run out: a run is then dispatched",
        )
    trained = next(s for s in ws.store.list_stages(run.id) if s.stage == "train")
    if trained.state not in ("ready", "active"):
        raise ConflictError(
            f"{run.id} has trained already ({trained.state})",
            why="only a run that is not trained yet can take a seat",
            fix="leave --run out: a run is then dispatched",
        )


def check_free(ws: Workspace, folder: Path, run_id: str | None) -> None:
    """Raises ConflictError when another run of this workspace, not finished, has the seat."""
    seat = read_seat(folder)
    if seat is None or seat.run == run_id:
        return
    states = {s.stage: s.state for s in ws.store.list_stages(seat.run)}
    if states.get("train") in ("ready", "active"):
        raise ConflictError(
            f"{seat.run} takes part in {folder.name} already",
            why="a workspace has one seat in a swarm",
            fix=f"gtft run {seat.run}, or give it up: gtft runs cancel {seat.run}",
        )


def take_seat(folder: Path, run_id: str, listen: Sequence[str], announce: Sequence[str]) -> None:
    """From now on the run trains in this swarm."""
    write_seat(folder, SeatFile(run=run_id, listen=tuple(listen), announce=tuple(announce)))


def is_training(ws: Workspace, run_id: str) -> bool:
    """A worker has its training in hand now."""
    states = {s.stage: s.state for s in ws.store.list_stages(run_id)}
    return [states.get(s) for s in STAGES[:2]] == ["done", "active"]


def _end_group(pid: int) -> None:
    """What the worker started (p2pd) must not outlive it."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
