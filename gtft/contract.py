"""The contract between the runner and a worker: ``job.json`` in, events out.

A worker is started as ``python -m gtft.workers.<stage> JOB_DIR``. It holds an exclusive flock on
``JOB_DIR/worker.lock`` while it lives, reads ``JOB_DIR/job.json`` and appends one JSON object a line to
``JOB_DIR/events.jsonl``. A file, not a pipe: a worker outlives its runner, and the next runner reads on.
stdout and stderr are for people and go to ``JOB_DIR/worker.log``.

Exit 0 = artifact written; 75 = stopped on request with a checkpoint; anything else = failed.
The last event says the same as the exit code: ``artifact``, ``paused`` or ``failed``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Stage = Literal["harvest", "train", "eval", "card"]
STAGES: tuple[Stage, ...] = ("harvest", "train", "eval", "card")

# The module under gtft.workers that carries out each stage.
WORKERS: dict[Stage, str] = {
    "harvest": "harvest",
    "train": "train",
    "eval": "evaluate",
    "card": "card",
}

JOB_FILE = "job.json"
EVENTS_FILE = "events.jsonl"
LOCK_FILE = "worker.lock"
LOG_FILE = "worker.log"
METRICS_FILE = "metrics.jsonl"
# What was planned for a training (gtft.runner.planned), for the worker to compare with.
PLAN_FILE = "plan.json"
# As a run's own rig (`Governance.own`): a workspace without a town has one owner.
EVERY_RIG = "*"
# Every artifact holds one: the figures of the stage, which the runner copies into the store.
SUMMARY_FILE = "summary.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputArtifact(_Frozen):
    """An artifact of an earlier stage of the same run; the worker verifies it before use."""

    stage: Stage
    id: str
    path: Path


class Consent(_Frozen):
    """A standing consent of a rig. ``until``: its last day (YYYY-MM-DD), "" = until it is revoked;
    ``purpose``: the role that models may be trained for, "" = any."""

    rig: str
    until: str = ""
    purpose: str = ""


class Withdrawal(_Frozen):
    """An entry of the register of withdrawals; ``who`` is a name, or ``hmac:`` and the keyed hash of one."""

    kind: Literal["session", "actor", "email", "rig", "bead"]
    who: str


class Governance(_Frozen):
    """Whose data a harvest may use. ``own``: the run's own rig, or EVERY_RIG; ``today``: YYYY-MM-DD;
    ``rigs``: the names of the town's rigs, whose folders stand below the job's root; ``own_models``: the
    name of each model of ours → its generation (1 = the first of its role); ``served``: session → the model of
    ours that answered in it, live."""

    own: str = EVERY_RIG
    today: str = ""
    rigs: tuple[str, ...] = ()
    consents: tuple[Consent, ...] = ()
    withdrawals: tuple[Withdrawal, ...] = ()
    own_models: dict[str, int] = {}
    served: dict[str, str] = {}


class Job(_Frozen):
    """What a worker is asked to do. ``workdir`` outlives a kill; checkpoints live there."""

    run_id: str
    stage: Stage
    bead_id: str
    actor: str
    recipe: dict[str, Any]
    recipe_hash: str
    inputs: tuple[InputArtifact, ...] = ()
    workspace: Path
    workdir: Path
    artifacts: Path
    seed: int
    # Where relative source paths of the recipe start.
    root: Path
    store_url: str
    # Of a harvest only.
    governance: Governance = Governance()
    # Items made from harm that a model did in service (gtft.evals.item): asked by every eval, never trained on.
    incidents: tuple[dict[str, Any], ...] = ()
    # What the town works by (gtft.town.conventions): name → hash. Of a harvest in a town only.
    conventions: dict[str, str] = {}

    def input(self, stage: Stage) -> InputArtifact:
        """The input artifact of a stage; KeyError when the runner did not pass it."""
        for a in self.inputs:
            if a.stage == stage:
                return a
        raise KeyError(stage)


class Progress(_Frozen):
    event: Literal["progress"] = "progress"
    done: int
    total: int | None = None
    unit: str
    eta_s: float | None = None
    note: str = ""


class Metric(_Frozen):
    event: Literal["metric"] = "metric"
    step: int
    name: str
    value: float


class Checkpoint(_Frozen):
    event: Literal["checkpoint"] = "checkpoint"
    path: str
    step: int


class Warned(_Frozen):
    event: Literal["warning"] = "warning"
    code: str
    text: str


class Produced(_Frozen):
    event: Literal["artifact"] = "artifact"
    id: str
    kind: str
    path: Path


class Paused(_Frozen):
    event: Literal["paused"] = "paused"
    step: int | None = None
    text: str = ""


class Failed(_Frozen):
    event: Literal["failed"] = "failed"
    kind: str
    message: str
    why: str = ""
    fix: str = ""


Event = Progress | Metric | Checkpoint | Warned | Produced | Paused | Failed
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def parse_event(line: str | bytes) -> Event:
    """One line of ``events.jsonl``. Raises ValueError on anything that is not an event."""
    return _EVENT.validate_json(line)
