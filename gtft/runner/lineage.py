"""From a deployment back to the run that made its model, and workers that read as that run's harvest would."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gtft.contract import Job
from gtft.errors import EvidenceError, GtftError, WorkerFailed, find_kind
from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow, ModelRow, Run
from gtft.runner.governance import gather_governance
from gtft.runner.moves import read_recipe
from gtft.runner.process import WORKER_ENV
from gtft.runner.workspace import Workspace

_STOP_S = 60.0


def list_incident_items(ws: Workspace) -> Iterator[dict[str, Any]]:
    """The safety items made from incidents, oldest first: every later eval asks them, no harvest takes them in."""
    return (i.item for i in Deployments(ws.store).list_incidents() if i.item is not None)


def find_origin(ws: Workspace, row: DeploymentRow) -> tuple[ModelRow, Run]:
    """The model of a deployment and the run that made it. Raises EvidenceError when the store has them not."""
    model = next((m for m in ws.store.list_models() if m.id == row.model_id), None)
    run = ws.store.find_run(model.run_id) if model is not None else None
    if model is None or run is None:
        raise EvidenceError(
            f"the store does not know the model of deployment {row.id}", fix="gtft doctor"
        )
    return model, run


def make_job(ws: Workspace, run: Run, workdir: Path) -> Job:
    """The harvest of a model's run as it would read now: the same recipe, today's consents and withdrawals."""
    recipe = read_recipe(run)
    return Job(
        run_id=run.id,
        stage="harvest",
        bead_id="",
        actor=run.actor,
        recipe=run.recipe["recipe"],
        recipe_hash=run.recipe_hash,
        workspace=ws.path,
        workdir=workdir,
        artifacts=ws.artifacts,
        seed=recipe.train.seed,
        root=Path(run.root),
        store_url=ws.store.url,
        governance=gather_governance(ws, run.actor, recipe.scope),
        incidents=tuple(list_incident_items(ws)),
    )


def run_worker(module: str, folder: Path, ws: Workspace, seconds: float) -> None:
    """A worker that is given a folder. Raises what it reports, WorkerFailed when it takes longer than ``seconds``."""
    log = folder / "worker.log"
    with log.open("wb") as err:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(folder)],
            cwd=ws.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            env={**ws.environ, **WORKER_ENV},
        )
        try:
            code = worker.wait(seconds)
        except subprocess.TimeoutExpired as e:
            raise WorkerFailed(
                f"the worker took longer than {seconds:.0f} s",
                why=f"its log is {log}",
                fix="the same command again: it goes on from what is there",
            ) from e
        finally:
            # Also when we are interrupted: what it has recorded stays.
            if worker.poll() is None:
                worker.terminate()
                try:
                    worker.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    worker.kill()
                    worker.wait()
    if code:
        raise _read_error(log, code)


def _read_error(log: Path, code: int) -> GtftError:
    last = (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
    if last.startswith('{"error":'):
        error = json.loads(last)["error"]
        return find_kind(error["kind"])(error["what"], why=error["why"], fix=error["fix"])
    return WorkerFailed(f"the worker ended with {code}", why=last[:300], fix=f"read {log}")
