"""What an operator can ask of a run: pause, resume, cancel."""

from __future__ import annotations

from gtft.errors import ConflictError, UsageError
from gtft.records.rows import Run, StageRow
from gtft.runner.dispatch import finish_dispatch
from gtft.runner.lease import may_take_over
from gtft.runner.moves import finish_unfinished, reopen_held
from gtft.runner.process import attach_worker, is_locked
from gtft.runner.workspace import Workspace


def get_run(ws: Workspace, run_id: str) -> Run:
    """The run of an id, of the beginning of one, or of one of its beads. Raises UsageError."""
    run = find_run(ws, run_id)
    if run is not None:
        return run
    several = [r.id for r in ws.store.list_runs() if r.id.startswith(run_id)]
    if several:
        raise UsageError(
            f"{len(several)} runs begin with {run_id}: {', '.join(several)}", fix="gtft runs list"
        )
    raise UsageError(
        f"there is no run or bead {run_id}", why=f"looked in {ws.path}", fix="gtft runs list"
    )


def find_run(ws: Workspace, name: str) -> Run | None:
    """The run of an id, of the beginning of one, or of a bead: of a stage, the epic, a review."""
    row = ws.store.find_bead(name)
    run = ws.store.find_run(row.run_id if row else name)
    if run is not None:
        return run
    bead = ws.ledger.look([name]).get(name)
    # A bead that is none of ours names no run.
    own = bead.metadata.get("gtft.run") if bead is not None else None
    return ws.store.find_run(own) if own else None


def pause(ws: Workspace, run: Run, actor: str) -> str:
    """Ask the run to save and stop. Its supervisor asks the worker; without one, we do."""
    _refuse_finished(ws, run, "paused")
    ws.store.set_desired(run.id, "pause", actor)
    _signal_orphans(ws, run)
    return "it saves a checkpoint and stops; resume with: gtft runs resume " + run.id


def resume(ws: Workspace, run: Run, actor: str) -> list[StageRow]:
    """Let a paused or failed run go on; somebody must then work on it.

    Raises ConflictError while its worker still saves and stops: it would pause all the same.
    """
    _refuse_finished(ws, run, "resumed")
    if run.desired != "run":
        if _is_supervised(ws, run):
            raise ConflictError(
                f"{run.id} is still stopping (asked to {run.desired})",
                why="its worker saves a checkpoint first",
                fix=f"gtft runs show {run.id}, and when it has stopped the command again",
            )
        ws.store.set_desired(run.id, "run", actor)
    return reopen_held(ws, run, actor)


def cancel(ws: Workspace, run: Run, actor: str, text: str) -> list[StageRow]:
    """End the run; what it made and its last checkpoint stay. A live worker is asked to stop first."""
    _refuse_finished(ws, run, "cancelled")
    if run.epic_bead is None:
        # Its dispatch was cut off: the beads that are closed now must be there.
        finish_dispatch(ws, run)
        run = get_run(ws, run.id)
    ws.store.set_desired(run.id, "cancel", actor, text)
    if _is_supervised(ws, run):
        # Its supervisor ends the worker and then the run.
        return []
    _signal_orphans(ws, run)
    return finish_unfinished(ws, run, "cancelled", actor, text)


def is_finished(ws: Workspace, run: Run) -> bool:
    """Every stage is done, whatever the reason."""
    return all(s.state == "done" for s in ws.store.list_stages(run.id))


def _is_supervised(ws: Workspace, run: Run) -> bool:
    """A runner that lives works on it."""
    return any(not may_take_over(ws, s) for s in ws.store.list_stages(run.id, state="active"))


def _refuse_finished(ws: Workspace, run: Run, what: str) -> None:
    if is_finished(ws, run):
        raise ConflictError(
            f"{run.id} is finished and cannot be {what}", fix=f"gtft runs show {run.id}"
        )


def _signal_orphans(ws: Workspace, run: Run) -> None:
    for row in ws.store.list_stages(run.id, state="active"):
        job_dir = ws.job_dir(run.id, row.stage)
        if may_take_over(ws, row) and is_locked(job_dir):
            attach_worker(job_dir).stop()
