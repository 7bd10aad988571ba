"""Trainings that cost nothing, for tests of the queue and of giving way: real runners, real worker processes in
the real frame, whose work is to count. What is free of memory stands in a file.

As a program it is a runner of one train stage: ``python admission_case.py WORKSPACE RUN WORKER FREE_FILE``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gtft.contract import EVENTS_FILE, Event
from gtft.records.rows import Run, StageRow
from gtft.runner.execution import Outcome, carry_out, catch_up
from gtft.runner.lease import claim_next
from gtft.runner.moves import read_recipe
from gtft.runner.pressure import Reading
from gtft.runner.supervision import Terms, find_terms
from gtft.runner.workspace import Workspace, open_workspace
from run_case import claim_of, finish_stage, make_run

GIB = 1024**3
TOTAL = 64 * GIB
PLENTY = 32 * GIB
STEPS = 30

# It counts to STEPS with the workdir's file as its checkpoint, and holds `device.lock` beside the queue as it
# works: when somebody else holds it, two train at once, and it says so in `twice`.
WORKER = """\
#!{python}
import fcntl, json, struct, sys, time
from pathlib import Path
sys.argv = [sys.argv[0], sys.argv[-1]]
from gtft.artifact import stage_artifact
from gtft.workers.frame import Stopped, main

HERE = Path({here!r})

def work(job, report):
    held = (HERE / "device.lock").open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (HERE / "twice").write_text(job.run_id)
    path = job.workdir / "step"
    step = int(path.read_text()) if path.exists() else 0
    while step < {steps}:
        time.sleep(0.03)
        while step == {steps} // 2 and (HERE / "hold").exists() and not report.stop_requested:
            time.sleep(0.02)
        if report.stop_requested:
            while (HERE / "slow").exists():
                time.sleep(0.02)
            if not {forgets}:
                path.write_text(str(step))
            raise Stopped(step if not {forgets} else None)
        step += 1
        report.progress(step, {steps}, "steps")
    header = json.dumps({{"x.lora_B": {{"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}}}).encode()
    parents = (job.input("harvest").id,)
    with stage_artifact(job.artifacts, "adapter", parents=parents) as staging:
        (staging.path / "summary.json").write_text("{{}}")
        (staging.path / "adapter_model.safetensors").write_bytes(
            struct.pack("<Q", len(header)) + header + b"abcd"
        )
    return staging.result

main(work)
"""


def write_worker(
    folder: Path, *, steps: int = STEPS, saving: float = 0.0, forgets: bool = False
) -> Path:
    """The program that stands in for python where a worker is started. ``saving``: seconds that saving
    takes; ``forgets``: it saves no step."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "worker"
    text = WORKER.format(python=sys.executable, here=str(folder), steps=steps, forgets=forgets)
    path.write_text(text)
    path.chmod(0o755)
    return path


def make_training(folder: Path, name: str) -> tuple[Workspace, Run]:
    """A workspace of its own with a run whose next stage is to train."""
    ws = open_workspace(folder / name)
    run = make_run(ws, folder / name)
    finish_stage(ws, claim_of(ws, run.id))
    return ws, run


def set_free(path: Path, size: int) -> None:
    """So many bytes of memory are free now; whoever reads meanwhile reads the old figure."""
    aside = path.with_suffix(".new")
    aside.write_text(str(size))
    aside.replace(path)


def make_terms(ws: Workspace, run: Run, environ: Mapping[str, str], free: Path) -> Terms:
    """Those of the workspace, quick, with memory as the file says: bytes."""
    found = find_terms(ws, read_recipe(run), environ)
    return replace(
        found,
        measure=lambda: Reading(int(free.read_text()), TOTAL),
        look_seconds=0.05,
        looks=2,
        yield_seconds=0.3,
    )


def train(
    ws: Workspace,
    run: Run,
    terms: Terms,
    listen: Callable[[StageRow, Event], None] = lambda *_: None,
) -> Outcome | None:
    """Claim and carry out the train stage, again after a crash, as `run_through` does."""
    outcome = None
    # A runner that died between submitting and accepting.
    catch_up(ws)
    while ws.store.find_stage(run.id, "train").state in ("ready", "active"):
        claim = claim_next(ws, "gizmo/polecats/a", run.id)
        if claim is None:
            break
        outcome = carry_out(ws, claim, os.environ, listen, terms)
        if outcome.state != "failed" or outcome.stage.reason is not None:
            break
    return outcome


def start_training(ws: Workspace, run: Run, worker: Path, free: Path) -> subprocess.Popen[str]:
    """The same in a process of its own; it ends with 0 when the stage is done, else with 1."""
    return subprocess.Popen(
        [sys.executable, __file__, str(ws.path), run.id, str(worker), str(free)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_steps(ws: Workspace, run: Run) -> list[int]:
    """Every step that a worker of the run told, in order, over all attempts."""
    path = ws.job_dir(run.id, "train") / EVENTS_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]
    return [e["done"] for e in events if e["event"] == "progress"]


def wait_until(ready: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def main() -> None:
    path, run_id, worker, free = sys.argv[1:]
    ws = open_workspace(Path(path))
    run = ws.store.find_run(run_id)
    assert run is not None
    sys.executable = worker
    terms = make_terms(ws, run, os.environ, Path(free))
    outcome = train(ws, run, terms, lambda row, event: print(event.model_dump_json(), flush=True))
    print(outcome, flush=True)
    sys.exit(0 if outcome is not None and outcome.state == "done" else 1)


if __name__ == "__main__":
    main()
