"""The one view of runs that the CLI, and later the dashboard, read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from gtft.beads.ledger import Bead, map_state
from gtft.contract import EVENTS_FILE, Progress, parse_event
from gtft.records.rows import Run, StageRow
from gtft.runner.lease import may_take_over
from gtft.runner.waiting import read_waiting
from gtft.runner.workspace import Workspace

TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class StageView:
    stage: str
    state: str
    reason: str | None
    reason_text: str
    bead: str | None
    # The bead's state as the ledger has it; differs from ``state`` when somebody moved it by hand.
    bead_state: str
    worker: str | None
    reviewer: str | None
    attempt: int
    artifact: str | None
    progress: dict[str, Any] | None
    # An active stage whose runner is gone: anyone may take it over.
    orphaned: bool
    # What an active stage waits for: its turn on the device, or memory (`gtft.runner.waiting`).
    waiting: dict[str, Any] | None = None


@dataclass(frozen=True)
class RunView:
    id: str
    recipe: str
    role: str
    state: str
    waits_for: str
    next: str
    epic: str | None
    actor: str
    created_us: int
    stages: tuple[StageView, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def view_runs(ws: Workspace) -> list[RunView]:
    """Newest first."""
    rows = ws.store.list_stages()
    beads = _look(ws, rows)
    return [
        _view(ws, run, [s for s in rows if s.run_id == run.id], beads)
        for run in ws.store.list_runs()
    ]


def view_run(ws: Workspace, run: Run) -> RunView:
    rows = ws.store.list_stages(run.id)
    return _view(ws, run, rows, _look(ws, rows))


def _look(ws: Workspace, rows: list[StageRow]) -> dict[str, Bead]:
    return ws.ledger.look([s.bead_id for s in rows if s.bead_id], notes=False)


def _view(ws: Workspace, run: Run, rows: list[StageRow], beads: dict[str, Bead]) -> RunView:
    state, waits, step = judge_run(ws, run, rows)
    return RunView(
        id=run.id,
        recipe=run.recipe_name,
        role=run.role,
        state=state,
        waits_for=waits,
        next=step,
        epic=run.epic_bead,
        actor=run.actor,
        created_us=run.created_us,
        stages=tuple(_view_stage(ws, r, beads.get(r.bead_id or "")) for r in rows),
    )


def judge_run(ws: Workspace, run: Run, rows: list[StageRow]) -> tuple[str, str, str]:
    """(state in words, who is waited for, the next command)."""
    ended = next((s for s in rows if s.state == "done" and s.reason), None)
    if ended is not None:
        return f"done ({ended.reason})", "nobody", f"gtft runs show {run.id}"
    if all(s.state == "done" for s in rows):
        return "done", "nobody", "gtft model list"
    now = next(s for s in rows if s.state != "done")
    if now.state == "review":
        recipe = run.recipe["recipe"]
        who = " or ".join(recipe["review"]["approvers"]) if now.stage == "eval" else "gtft"
        return f"review ({now.stage})", who, f"gtft review show {now.bead_id}"
    if now.state == "active":
        if may_take_over(ws, now):
            return f"active ({now.stage}, runner gone)", "a worker", f"gtft run {run.id}"
        waiting = read_waiting(ws.job_dir(run.id, now.stage))
        if waiting is not None:
            return f"active ({now.stage} waits)", str(waiting), f"gtft runs show {run.id}"
        return f"active ({now.stage})", "nobody", f"gtft runs show {run.id}"
    if run.desired == "pause":
        return "ready (paused)", "the operator", f"gtft runs resume {run.id}"
    if now.reason:
        return f"ready ({now.reason})", "the operator", f"gtft runs resume {run.id}"
    return f"ready ({now.stage})", "a worker", f"gtft run {run.id}"


def _view_stage(ws: Workspace, row: StageRow, bead: Bead | None) -> StageView:
    absent = "gone" if row.bead_id else "not created"
    bead_state: str = absent if bead is None else map_state(bead)
    live = row.state == "active"
    orphaned = live and may_take_over(ws, row)
    waiting = read_waiting(ws.job_dir(row.run_id, row.stage)) if live and not orphaned else None
    return StageView(
        stage=row.stage,
        state=row.state,
        reason=row.reason,
        reason_text=row.reason_text,
        bead=row.bead_id,
        bead_state=bead_state,
        worker=row.worker,
        reviewer=row.reviewer,
        attempt=row.attempt,
        artifact=row.artifact_id,
        progress=_read_progress(ws, row) if live else None,
        orphaned=orphaned,
        waiting=waiting.as_dict() if waiting is not None else None,
    )


def _read_progress(ws: Workspace, row: StageRow) -> dict[str, Any] | None:
    """The worker's last progress event, from the end of its event file."""
    path = ws.job_dir(row.run_id, row.stage) / EVENTS_FILE
    if not path.exists():
        return None
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = f.read().splitlines()
    for line in reversed(lines):
        if b'"progress"' in line:
            try:
                event = parse_event(line)
            except ValueError:
                continue
            if isinstance(event, Progress):
                found: dict[str, Any] = json.loads(event.model_dump_json())
                return found
    return None
