"""Carrying out a stage: start or find its worker, follow it, keep the lease, check the evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from gtft.artifact import write_json
from gtft.beads.lifecycle import Reason
from gtft.contract import (
    JOB_FILE,
    STAGES,
    Failed,
    Governance,
    InputArtifact,
    Job,
    Paused,
    Produced,
    Stage,
    Warned,
)
from gtft.errors import (
    ConflictError,
    EvidenceError,
    GtftError,
    WorkerFailed,
    find_kind,
)
from gtft.records.rows import Run, StageRow
from gtft.runner.byhand import respect_hands
from gtft.runner.dispatch import finish_dispatch
from gtft.runner.evidence import check_evidence
from gtft.runner.governance import gather_governance
from gtft.runner.launch import plan_stage
from gtft.runner.lease import Claim, claim_next, may_take_over
from gtft.runner.lineage import list_incident_items
from gtft.runner.milestones import say_trained, tell_milestones
from gtft.runner.moves import (
    accept,
    finish_unfinished,
    hold,
    read_recipe,
    refuse_evidence,
    reopen_held,
    submit,
)
from gtft.runner.outbox import deliver
from gtft.runner.patience import wait_longer
from gtft.runner.planned import Planned
from gtft.runner.process import find_result
from gtft.runner.supervision import End, Terms, find_terms, supervise
from gtft.runner.watch import Listener
from gtft.runner.workspace import Workspace
from gtft.town.conventions import read_conventions


@dataclass(frozen=True)
class Outcome:
    """How a stage ended for now: where it stands, and the error if it failed."""

    state: Literal["done", "review", "paused", "cancelled", "failed", "lost"]
    stage: StageRow
    error: GtftError | None = None


def carry_out(
    ws: Workspace,
    claim: Claim,
    environ: Mapping[str, str],
    listen: Listener,
    terms: Terms | None = None,
) -> Outcome:
    """Bring a claimed stage as far as it goes without a person.

    A training waits for its turn and for memory first, on ``terms`` (`find_terms` when not given).
    KeyboardInterrupt asks the run to pause: the worker saves, and the stage goes back to ready. A town whose
    server is away is waited for, `Config.patience_seconds` long; the worker goes on meanwhile.
    """
    ws = wait_longer(ws, ws.config.patience_seconds)
    row = claim.stage
    run = ws.store.find_run(row.run_id)
    assert run is not None
    try:
        job = prepare_job(ws, run, row, claim.actor)
    except GtftError as e:
        return Outcome("failed", hold(ws, claim, "failed", _first_lines(e)), e)
    job_dir = ws.job_dir(run.id, row.stage)
    if row.reason == "expired" and (result := find_result(job_dir)) is not None:
        listen(row, result)
        return _settle(ws, claim, job, result)
    if job.stage != "train":
        terms = None
    elif terms is None:
        terms = find_terms(ws, read_recipe(run), environ, _plan(ws, run, row, job, listen).memory)
    if job.stage == "train":
        listen = tell_milestones(ws, claim, listen)
    end = supervise(ws, claim, run, environ, listen, terms)
    last = end.last
    if not end.ours:
        return Outcome("lost", ws.store.find_stage(row.run_id, row.stage))
    if isinstance(last, Produced):
        outcome = _settle(ws, claim, job, last)
        return finish_cancelled(ws, run.id, row.stage) or outcome
    if end.asked == "cancel" and (ended := finish_cancelled(ws, run.id, row.stage)):
        return ended
    error = end.error
    if isinstance(last, Failed):
        error = find_kind(last.kind)(last.message, why=last.why, fix=last.fix)
    if error is not None:
        return Outcome("failed", hold(ws, claim, "failed", _first_lines(error)), error)
    if isinstance(last, Paused):
        return Outcome("paused", hold(ws, claim, "paused", last.text))
    return _settle_crash(ws, run, claim, end)


def _plan(ws: Workspace, run: Run, row: StageRow, job: Job, listen: Listener) -> Planned:
    """What the training will need. A plan that cannot be made is told, and stops nothing."""
    try:
        return plan_stage(ws, run, job)
    except GtftError as e:
        listen(row, Warned(code="not-planned", text=f"{e.what}: {e.why}"))
        return Planned()


def run_through(
    ws: Workspace, run_id: str, actor: str, environ: Mapping[str, str], listen: Listener
) -> Outcome | None:
    """Carry out the stages of one run, in order, until somebody must decide. None = nothing to claim."""
    catch_up(ws)
    outcome: Outcome | None = None
    while (claim := claim_next(ws, actor, run_id)) is not None:
        outcome = carry_out(ws, claim, environ, listen)
        if outcome.state != "done" and not _is_retry(outcome):
            return outcome
    return outcome


def prepare_job(ws: Workspace, run: Run, row: StageRow, actor: str) -> Job:
    """Write ``job.json``. Raises EvidenceError when an earlier stage's artifact is not recorded."""
    stage = cast(Stage, row.stage)
    inputs: list[InputArtifact] = []
    for earlier in STAGES[: STAGES.index(stage)]:
        artifact_id = ws.store.find_stage(run.id, earlier).artifact_id
        found = ws.store.find_artifact(artifact_id) if artifact_id else None
        if found is None:
            raise EvidenceError(
                f"{stage} needs the artifact of {earlier}, and the store has none",
                fix=f"gtft runs show {run.id}",
            )
        inputs.append(InputArtifact(stage=earlier, id=found.id, path=ws.artifact_path(found.path)))
    job_dir = ws.job_dir(run.id, stage)
    job_dir.mkdir(parents=True, exist_ok=True)
    recipe = read_recipe(run)
    harvests = stage == "harvest"
    job = Job(
        run_id=run.id,
        stage=stage,
        bead_id=row.bead_id or "",
        actor=actor,
        recipe=run.recipe["recipe"],
        recipe_hash=run.recipe_hash,
        inputs=tuple(inputs),
        workspace=ws.path,
        workdir=job_dir / "work",
        artifacts=ws.artifacts,
        seed=recipe.train.seed,
        root=Path(run.root),
        store_url=ws.store.url,
        governance=gather_governance(ws, run.actor, recipe.scope) if harvests else Governance(),
        incidents=tuple(list_incident_items(ws)) if stage in ("harvest", "eval") else (),
        conventions=read_conventions(ws.home.town, ws.environ) if harvests and ws.home else {},
    )
    write_json(job_dir / JOB_FILE, json.loads(job.model_dump_json()))
    return job


def _settle(ws: Workspace, claim: Claim, job: Job, produced: Produced) -> Outcome:
    """Check the evidence and submit it; where the machine is the reviewer, review it too."""
    try:
        evidence = check_evidence(job, produced)
    except EvidenceError as e:
        return Outcome("failed", hold(ws, claim, "failed", _first_lines(e)), e)
    if job.stage == "train" and (said := say_trained(ws.job_dir(job.run_id, job.stage))):
        evidence = replace(evidence, text=f"{evidence.text}; {said}")
    row = submit(ws, claim, evidence)
    if job.stage == "eval":
        return Outcome("review", row)
    return review_by_machine(ws, row)


def review_by_machine(ws: Workspace, row: StageRow) -> Outcome:
    """Accept a submitted harvest, train or card whose evidence still holds when hashed again."""
    run = ws.store.find_run(row.run_id)
    found = ws.store.find_artifact(row.artifact_id or "")
    assert run is not None
    assert found is not None
    try:
        job = prepare_job(ws, run, row, row.worker or "gtft")
        path = ws.artifact_path(found.path)
        check_evidence(job, Produced(id=found.id, kind=found.kind, path=path))
    except EvidenceError as e:
        return Outcome("failed", refuse_evidence(ws, row, _first_lines(e)), e)
    try:
        return Outcome("done", accept(ws, row, "gtft", "evidence re-hashed by the machine"))
    except ConflictError:
        # Its runner and whoever comes by (`catch_up`) review it; one of them is first.
        now = ws.store.find_stage(row.run_id, row.stage)
        if now.state != "done":
            raise
        return Outcome("cancelled" if now.reason else "done", now)


def finish_cancelled(ws: Workspace, run_id: str, stage: str) -> Outcome | None:
    """Close what is open of a run whose operator asked to cancel it; None when nobody did."""
    run = ws.store.find_run(run_id)
    assert run is not None
    if run.desired != "cancel":
        return None
    order = next(e for e in reversed(ws.store.list_events(run.id)) if e.kind == "asked:cancel")
    finish_unfinished(ws, run, "cancelled", order.actor, order.text)
    return Outcome("cancelled", ws.store.find_stage(run.id, stage))


def catch_up(ws: Workspace) -> None:
    """Finish what a runner that died left between two steps: beads, ends, machine reviews, messages."""
    for run in ws.store.list_runs():
        if run.epic_bead is None:
            finish_dispatch(ws, run)
        _finish_ended(ws, run)
        if run.desired == "cancel" and not any(
            s.state == "active" and not may_take_over(ws, s) for s in ws.store.list_stages(run.id)
        ):
            finish_cancelled(ws, run.id, STAGES[0])
    for row in ws.store.list_stages(state="review"):
        if row.stage != "eval":
            review_by_machine(ws, row)
    deliver(ws)
    respect_hands(ws, ws.store.list_runs())


def _finish_ended(ws: Workspace, run: Run) -> None:
    """A run ends stage by stage, and whoever ended it may have died after the first."""
    rows = ws.store.list_stages(run.id)
    first = next((s for s in rows if s.state == "done" and s.reason), None)
    if first is not None and any(s.state != "done" for s in rows):
        reason = cast(Reason, first.reason)
        finish_unfinished(ws, run, reason, first.reviewer or "gtft", first.reason_text)


def _settle_crash(ws: Workspace, run: Run, claim: Claim, end: End) -> Outcome:
    """No last word from the worker: it was killed. It is started again a few times by itself."""
    text = f"{end.text} without an artifact (attempt {claim.stage.attempt})"
    error = WorkerFailed(
        f"{claim.stage.stage}: {text}",
        why="it was killed, or the box ran out of memory",
        fix=f"gtft runs logs {run.id} --stage {claim.stage.stage}, then: gtft runs resume {run.id}",
    )
    if end.asked is not None:
        return Outcome("paused", hold(ws, claim, "paused", text))
    again = claim.stage.attempt <= ws.config.retries
    row = hold(ws, claim, "failed", text, announce=not again)
    if again:
        reopen_held(ws, run, claim.actor)
        row = ws.store.find_stage(run.id, row.stage)
    return Outcome("failed", row, error)


def _is_retry(outcome: Outcome) -> bool:
    return outcome.state == "failed" and outcome.stage.reason is None


def _first_lines(error: GtftError) -> str:
    return "\n".join(part for part in (error.what, error.why, error.fix) if part)
