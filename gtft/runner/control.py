"""What an operator can ask of a run: pause, resume, cancel."""

from __future__ import annotations

from gtft.errors import ConflictError, UsageError
from gtft.records.rows import Run, StageRow
from gtft.runner.lease import may_take_over
from gtft.runner.moves import finish_unfinished, reopen_held
from gtft.runner.process import attach_worker, is_locked
from gtft.runner.workspace import Workspace


def get_run(ws: Workspace, run_id: str) -> Run:
    """The run of an id, of the beginning of one, or of one of its beads. Raises UsageError."""
    run = ws.store.find_run(run_id)
    if run is None:
        row = ws.store.find_bead(run_id)
        found = [r for r in ws.store.list_runs() if r.epic_bead == run_id]
        run = ws.store.find_run(row.run_id) if row else (found[0] if found else None)
    if run is None:
        raise UsageError(
            f"there is no run {run_id}", why=f"looked in {ws.path}", fix="gtft runs list"
        )
    return run


def pause(ws: Workspace, run: Run, actor: str) -> str:
    """Ask the run to save and stop. Its supervisor asks the worker; without one, we do."""
    _refuse_finished(ws, run, "paused")
    ws.store.set_desired(run.id, "pause", actor)
    _signal_orphans(ws, run)
    return "it saves a checkpoint and stops; resume with: gtft runs resume " + run.id


def resume(ws: Workspace, run: Run, actor: str) -> list[StageRow]:
    """Let a paused or failed run go on; somebody must then work on it."""
    _refuse_finished(ws, run, "resumed")
    if run.desired != "run":
        ws.store.set_desired(run.id, "run", actor)
    return reopen_held(ws, run, actor)


def cancel(ws: Workspace, run: Run, actor: str, text: str) -> list[StageRow]:
    """End the run; what it made and its last checkpoint stay. A live worker is asked to stop first."""
    _refuse_finished(ws, run, "cancelled")
    ws.store.set_desired(run.id, "cancel", actor, text)
    supervised = [
        s for s in ws.store.list_stages(run.id, state="active") if not may_take_over(ws, s)
    ]
    if supervised:
        # Its supervisor ends the worker and then the run.
        return []
    _signal_orphans(ws, run)
    return finish_unfinished(ws, run, "cancelled", actor, text)


def is_finished(ws: Workspace, run: Run) -> bool:
    """Every stage is done, whatever the reason."""
    return all(s.state == "done" for s in ws.store.list_stages(run.id))


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
