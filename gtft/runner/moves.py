"""The moves of a stage: each checked against the table, written once, with what follows from it."""

from __future__ import annotations

import json

from gtft.artifact import short_id
from gtft.beads.lifecycle import Reason, check_move
from gtft.contract import STAGES
from gtft.errors import ConflictError, EvidenceError
from gtft.recipe.schema import Recipe
from gtft.records.rows import ArtifactRow, Change, Message, ModelRow, Run, StageRow
from gtft.runner.evidence import Evidence
from gtft.runner.lease import Claim
from gtft.runner.outbox import deliver, nudge_people, tell_feed, tell_ledger, tell_people
from gtft.runner.workspace import Workspace

# Roles that are of the town, not of a rig (gas-town.md section 3).
TOWN_ROLES = ("mayor", "deacon")


def read_recipe(run: Run) -> Recipe:
    """The recipe that the run stores."""
    return Recipe.model_validate_json(json.dumps(run.recipe["recipe"]))


def hold(
    ws: Workspace, claim: Claim, reason: Reason, text: str, *, announce: bool = True
) -> StageRow:
    """active → ready, because it was paused or failed; it waits until it is resumed."""
    row = claim.stage
    check_move("active", "ready", reason)
    run = _run(ws, row.run_id)
    messages = [tell_ledger("release", _bead(row), claim.actor, failed=reason == "failed")]
    if text:
        messages.append(tell_ledger("note", _bead(row), claim.actor, text=f"{reason}: {text}"))
    if reason == "failed" and announce:
        messages.append(
            _tell(run, "GTFT_FAILED", row.stage, f"{text}\nNext: gtft runs show {run.id}")
        )
    if announce:
        messages.append(tell_feed(f"gtft_{reason}", _bead(row), claim.actor, row.stage))
    change = Change("active", "ready", reason, claim.actor, text, tuple(messages))
    done = ws.store.change(row.run_id, row.stage, change, token=claim.token)
    deliver(ws)
    return done


def submit(ws: Workspace, claim: Claim, evidence: Evidence) -> StageRow:
    """active → review: the artifact, its parents and its figures are recorded with the move."""
    row = claim.stage
    check_move("active", "review", None)
    run = _run(ws, row.run_id)
    messages = [tell_ledger("submit", _bead(row), claim.actor, note=evidence.text)]
    if row.stage == "eval":
        messages += _ask_for_review(ws, run, row, claim.actor)
    artifact = ArtifactRow(
        id=evidence.artifact.id,
        kind=evidence.artifact.kind,
        path=str(evidence.artifact.path.relative_to(ws.path)),
        summary=evidence.summary,
        created_us=ws.store.now_us(),
    )
    change = Change("active", "review", None, claim.actor, evidence.text, tuple(messages))
    done = ws.store.change(
        row.run_id,
        row.stage,
        change,
        token=claim.token,
        artifact=artifact,
        parents=evidence.artifact.parents,
    )
    deliver(ws)
    return done


def accept(ws: Workspace, row: StageRow, reviewer: str, text: str) -> StageRow:
    """review → done: the bead closes; an accepted card registers its model and closes the epic."""
    check_move("review", "done", None)
    run = _run(ws, row.run_id)
    mark = short_id(row.artifact_id or "")
    reason = f"{row.stage} accepted by {reviewer}: artifact {mark} re-hashed and found whole"
    messages = [tell_ledger("close", _bead(row), reviewer, reason=reason)]
    if row.stage == "eval":
        messages.insert(
            0, tell_ledger("answer", _bead(row), reviewer, reason=f"approved: {reason}")
        )
    model = None
    notify = read_recipe(run).notify
    if row.stage == STAGES[-1]:
        model = _make_model(ws, run, row)
        closing = f"run {run.id} complete, card {mark} written"
        messages.append(tell_ledger("close", run.epic_bead or "", reviewer, reason=closing))
        if notify.verbosity != "quiet":
            messages.append(
                _tell(run, "GTFT_DONE", model.name, f"Next: gtft model show {model.name}")
            )
        messages.append(tell_feed("gtft_done", run.epic_bead or "", reviewer, model.name))
    elif notify.verbosity == "loud":
        messages.append(nudge_people(notify.to, f"GTFT_DONE: {row.stage} of {run.id}: {text}"))
    change = Change("review", "done", None, reviewer, text, tuple(messages))
    done = ws.store.change(row.run_id, row.stage, change, model=model, reviewer=reviewer)
    deliver(ws)
    return done


def refuse_evidence(ws: Workspace, row: StageRow, text: str) -> StageRow:
    """review → ready: what was submitted does not hold any more; the stage must be done again."""
    check_move("review", "ready", "failed")
    run = _run(ws, row.run_id)
    messages = (
        tell_ledger("release", _bead(row), "gtft", failed=True),
        tell_ledger("note", _bead(row), "gtft", text=f"failed: {text}"),
        _tell(run, "GTFT_FAILED", row.stage, f"{text}\nNext: gtft runs resume {run.id}"),
    )
    change = Change("review", "ready", "failed", "gtft", text, messages)
    done = ws.store.change(row.run_id, row.stage, change)
    deliver(ws)
    return done


def finish_unfinished(
    ws: Workspace, run: Run, reason: Reason, actor: str, text: str
) -> list[StageRow]:
    """Every stage that is not done goes to done, as cancelled or rejected; the epic closes."""
    ended: list[StageRow] = []
    open_rows = [s for s in ws.store.list_stages(run.id) if s.state != "done"]
    for row in open_rows:
        check_move(row.state, "done", reason)  # type: ignore[arg-type]
        said = f"{reason} by {actor}: {text}"
        messages = [tell_ledger("close", _bead(row), actor, reason=said)]
        if row.stage == "eval":
            messages.insert(0, tell_ledger("answer", _bead(row), actor, reason=said))
        if row is open_rows[-1]:
            closing = f"run {run.id} {said}"
            messages.append(tell_ledger("close", run.epic_bead or "", actor, reason=closing))
            messages.append(tell_feed(f"gtft_{reason}", run.epic_bead or "", actor, text))
            if reason == "rejected":
                body = f"{actor}: {text}\nNext: gtft runs show {run.id}"
                messages.append(_tell(run, "GTFT_FAILED", "rejected eval", body))
        change = Change(row.state, "done", reason, actor, text, tuple(messages))
        try:
            done = ws.store.change(run.id, row.stage, change, token=row.token, reviewer=actor)
        except ConflictError:
            # Somebody else ends the run too, and was first here.
            done = ws.store.find_stage(run.id, row.stage)
            if done.state != "done":
                raise
        ended.append(done)
    deliver(ws)
    return ended


def reopen_held(ws: Workspace, run: Run, actor: str) -> list[StageRow]:
    """ready (paused, failed) → ready: what held it is cleared and it may be claimed again."""
    check_move("ready", "ready", None)
    cleared: list[StageRow] = []
    for row in ws.store.list_stages(run.id):
        if row.state == "ready" and row.reason is not None:
            change = Change("ready", "ready", None, actor, f"resumed, was {row.reason}")
            cleared.append(ws.store.change(run.id, row.stage, change))
    return cleared


def _ask_for_review(ws: Workspace, run: Run, row: StageRow, actor: str) -> list[Message]:
    """The witness gets a bead and mail; whoever the recipe names is told too."""
    recipe = read_recipe(run)
    who = tuple(find_address(ws, run, a) for a in recipe.review.approvers)
    told = recipe.notify.to if ws.home is None else (*who, *recipe.notify.to)
    body = (
        f"Waits for: {', '.join(recipe.review.approvers)}\nBead: {row.bead_id}\n"
        f"Next: gtft review show {row.bead_id}"
    )
    subject = _subject(run, "GTFT_REVIEW", row.stage)
    return [
        tell_ledger("ask", _bead(row), actor, assignee=who[0] if who else "", attempt=row.attempt),
        tell_people(tuple(dict.fromkeys(told)), subject, body),
        tell_feed("gtft_review", _bead(row), actor, f"waits for {', '.join(who)}"),
    ]


def find_address(ws: Workspace, run: Run, approver: str) -> str:
    """The mail address of an approver: a full name as it is, a role as that of the rig it is for, or of
    gtft's own rig when the town has no such rig (any more)."""
    if "/" in approver:
        return approver
    if approver in TOWN_ROLES:
        return f"{approver}/"
    rigs = [s.removeprefix("rig:") for s in run.recipe["recipe"]["scope"] if s.startswith("rig:")]
    if ws.home is not None:
        rigs = [r.name for r in ws.home.town.rigs if [r.name] == rigs] or [ws.home.rig.name]
    rig = rigs[0] if len(rigs) == 1 else ""
    return f"{rig}/{approver}" if rig else approver


def _make_model(ws: Workspace, run: Run, card: StageRow) -> ModelRow:
    made = {s.stage: s.artifact_id for s in ws.store.list_stages(run.id)}
    adapter = made["train"] or ""
    return ModelRow(
        id=adapter,
        name=f"{run.role}-{short_id(adapter)}",
        role=run.role,
        version=0,
        status="approved",
        run_id=run.id,
        corpus_id=made["harvest"] or "",
        adapter_id=adapter,
        eval_id=made["eval"] or "",
        card_id=card.artifact_id or "",
        created_us=ws.store.now_us(),
    )


def _run(ws: Workspace, run_id: str) -> Run:
    run = ws.store.find_run(run_id)
    if run is None:
        raise EvidenceError(f"the store has no run {run_id}", fix="gtft runs list")
    return run


def _bead(row: StageRow) -> str:
    if row.bead_id is None:
        raise EvidenceError(f"{row.stage} of {row.run_id} has no bead", fix="gtft doctor")
    return row.bead_id


def _tell(run: Run, what: str, detail: str, body: str) -> Message:
    return tell_people(
        tuple(run.recipe["recipe"]["notify"]["to"]), _subject(run, what, detail), body
    )


def _subject(run: Run, what: str, detail: str) -> str:
    return f"{what}: {detail} of {run.id} ({run.recipe_name}, {run.role})"
