"""The rows of the store as frozen values. Times are microseconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    id: str
    recipe_name: str
    recipe_hash: str
    # The resolved recipe document (gtft.recipe.resolve), as stored.
    recipe: dict[str, Any]
    role: str
    epic_bead: str | None
    actor: str
    # Where relative paths of the recipe start.
    root: str
    # What the operator wants: "run", "pause" or "cancel".
    desired: str
    created_us: int


@dataclass(frozen=True)
class StageRow:
    run_id: str
    stage: str
    position: int
    bead_id: str | None
    state: str
    reason: str | None
    reason_text: str
    token: str | None
    lease_until_us: int | None
    attempt: int
    worker: str | None
    reviewer: str | None
    artifact_id: str | None
    started_us: int | None
    updated_us: int


def make_ready(run_id: str, stage: str, position: int, now_us: int) -> StageRow:
    """A stage that nobody touched yet, and whose bead is not made."""
    return StageRow(
        run_id=run_id,
        stage=stage,
        position=position,
        bead_id=None,
        state="ready",
        reason=None,
        reason_text="",
        token=None,
        lease_until_us=None,
        attempt=0,
        worker=None,
        reviewer=None,
        artifact_id=None,
        started_us=None,
        updated_us=now_us,
    )


@dataclass(frozen=True)
class EventRow:
    run_id: str
    seq: int
    stage: str | None
    kind: str
    actor: str
    text: str
    created_us: int


@dataclass(frozen=True)
class ArtifactRow:
    id: str
    kind: str
    path: str
    # The artifact's summary.json: the only figures that a card may quote.
    summary: dict[str, Any]
    created_us: int


@dataclass(frozen=True)
class ModelRow:
    id: str
    name: str
    role: str
    version: int
    status: str
    run_id: str
    corpus_id: str
    adapter_id: str
    eval_id: str
    card_id: str
    created_us: int


@dataclass(frozen=True)
class AliasRow:
    """A name that moves from model to model. ``pin``: why the model may not be pruned, "" when it is no pin."""

    name: str
    model_id: str
    pin: str
    actor: str
    updated_us: int


@dataclass(frozen=True)
class DeploymentRow:
    """A model put into service for a role of a town; one row for each mode that it was in.

    ``state``: preparing, active or ended; ``reason``, once ended: promoted, superseded, undone, rolled-back or failed.
    """

    id: str
    model_id: str
    role: str
    # "" = every rig of the town.
    rig: str
    # shadow, advise or live.
    mode: str
    state: str
    reason: str | None
    reason_text: str
    actor: str
    # What it was made with: endpoint, agent, files with the sha256 of their bytes before and after, limits.
    detail: dict[str, Any]
    # What was measured since (gtft.runner.watching), the newest only.
    figures: dict[str, Any]
    created_us: int
    updated_us: int
    ended_us: int | None = None


@dataclass(frozen=True)
class IncidentRow:
    """Harm done by a model in service, with the safety item made from it (None when none could be made)."""

    id: str
    model_id: str
    deployment_id: str | None
    bead_id: str | None
    title: str
    item: dict[str, Any] | None
    actor: str
    created_us: int


@dataclass(frozen=True)
class ConsentRow:
    id: str
    rig: str
    # The last day, YYYY-MM-DD; "" = until it is revoked.
    until: str
    # The role that models may be trained for; "" = any.
    purpose: str
    given_by: str
    actor: str
    created_us: int
    revoked_us: int | None = None
    revoked_by: str | None = None


@dataclass(frozen=True)
class WithdrawalRow:
    id: str
    kind: str
    # A name, or "hmac:" and the keyed hash of one.
    who: str
    reason: str
    actor: str
    # The corpora that held it when it was withdrawn.
    touched: tuple[str, ...]
    created_us: int


@dataclass(frozen=True)
class OutboxRow:
    run_id: str
    seq: int
    kind: str
    payload: dict[str, Any]
    tries: int
    last_error: str
    created_us: int
    done_us: int | None


@dataclass(frozen=True)
class Message:
    """Something to deliver outside the store after the change that caused it is committed."""

    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One change of a stage: who, why, what is recorded with it and what is sent because of it."""

    frm: str
    to: str
    reason: str | None
    actor: str
    text: str
    messages: tuple[Message, ...] = ()
