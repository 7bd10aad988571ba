"""The sweep: seconds of housekeeping for a dog or a cron job. It never trains in its own process.

It delivers what waits, starts a runner for one run that lost its own, reminds of what waits too long, starts a
look after what is deployed, and dispatches a recipe again when its ``[gtft.retrain]`` says so.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gtft.beads.lifecycle import HELD
from gtft.errors import GtftError
from gtft.recipe.resolve import Resolved
from gtft.records.rows import EventRow, Run, StageRow
from gtft.runner.box import LEAST_MEMORY, Box, say_size
from gtft.runner.dispatch import dispatch
from gtft.runner.execution import catch_up
from gtft.runner.lease import find_lapsed
from gtft.runner.moves import finish_unfinished, read_recipe
from gtft.runner.outbox import tell_people
from gtft.runner.process import is_locked
from gtft.runner.rollback import list_faults, mend
from gtft.runner.switch_lock import lock_deploy
from gtft.runner.watching import list_due, lock_watch, start_watch
from gtft.runner.workspace import Workspace
from gtft.town.hooks import QUEUE

ACTOR = "gtft/sweep"
LOCK_FILE = "sweep.lock"
DAY_US = 86_400 * 1_000_000
BUDGET_DAYS = 7
# A runner that was started this often, and whose run made no progress, is not started again.
MOST_RESUMES = 5
PROGRESS = ("review", "done", "ready", "asked:run")

# Starts a detached runner of a run, as an actor; returns its pid.
Start = Callable[[Workspace, str, str], int]
What = Literal[
    "mended",
    "delivered",
    "undelivered",
    "resumed",
    "waits",
    "reminded",
    "superseded",
    "retrained",
    "watched",
    "expired",
    "approved",
]


@dataclass(frozen=True)
class Action:
    """One thing that the sweep did, or in a dry run would do."""

    what: What
    run: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def lock_sweep(path: Path) -> Iterator[bool]:
    """True while we are the only sweep of the workspace at ``path``; the kernel drops the lock with us."""
    with (path / LOCK_FILE).open("a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def sweep(
    ws: Workspace,
    box: Box,
    start: Start,
    *,
    watch: Callable[[Workspace], int] = start_watch,
    dry_run: bool = False,
) -> list[Action]:
    """Everything once, in order: mend deployments, deliver, resume, stale runs, deployments, retraining.

    ``watch`` starts a look after deployments in a process of its own and returns its pid.
    """
    return [
        *_mend(ws, dry_run),
        *_deliver(ws, dry_run),
        *_resume_one(ws, box, start, dry_run),
        *_look_after_stale(ws, dry_run),
        *_look_after_deployed(ws, watch, dry_run),
        *_retrain(ws, dry_run),
    ]


def _mend(ws: Workspace, dry_run: bool) -> Iterator[Action]:
    """What a crash, or a store that was away, left of a deployment or rollback."""
    try:
        with lock_deploy(ws.path):
            done = ((f, list[str]()) for f in list_faults(ws)) if dry_run else mend(ws)
            for fault, notes in done:
                yield Action("mended", "", "; ".join([f"{fault.about}: {fault.text}", *notes]))
    except GtftError as e:
        # The rest of the sweep goes on.
        yield Action("waits", "", f"deployments: {e.what}")


def _deliver(ws: Workspace, dry_run: bool) -> Iterator[Action]:
    before = ws.store.list_messages(pending=True)
    if dry_run:
        if before:
            yield Action("delivered", "", f"{len(before)} messages")
        return
    catch_up(ws)
    left = {(m.run_id, m.seq): m for m in ws.store.list_messages(pending=True)}
    gone = sum((m.run_id, m.seq) not in left for m in before)
    if gone:
        yield Action("delivered", "", f"{gone} messages")
    for m in left.values():
        if m.last_error:
            yield Action("undelivered", m.run_id, m.last_error.splitlines()[0])


def _resume_one(ws: Workspace, box: Box, start: Start, dry_run: bool) -> Iterator[Action]:
    """A runner for the first run that lost its own; the others wait for the next sweep."""
    started = ""
    for row in _find_orphans(ws):
        alive = row.state == "active" and is_locked(ws.job_dir(row.run_id, row.stage))
        if started:
            why = f"one start per sweep, {started} came first"
        elif not alive and box.free < LEAST_MEMORY:
            why = f"{say_size(box.free)} of memory free, {say_size(LEAST_MEMORY)} needed"
        else:
            why = _find_doubt(ws, row)
        if why:
            yield Action("waits", row.run_id, f"{row.stage}: {why}")
            continue
        started = row.run_id
        text = f"{row.stage}: its runner is gone; its worker {'lives' if alive else 'is gone too'}"
        if not dry_run:
            pid = start(ws, row.run_id, ACTOR)
            text += f"; started a runner, process {pid}"
            ws.store.add_event(row.run_id, row.stage, "resumed", ACTOR, text)
        yield Action("resumed", row.run_id, text)


def _find_doubt(ws: Workspace, row: StageRow) -> str:
    """Why a runner for ``row`` is not started, from what earlier sweeps did; empty when it may be."""
    events = ws.store.list_events(row.run_id)
    moved = max((e.seq for e in events if e.kind in PROGRESS), default=0)
    resumed = [e for e in events if e.kind == "resumed" and e.seq > moved]
    if not resumed:
        return ""
    ago = (ws.store.now_us() - resumed[-1].created_us) / 1e6
    if ago < ws.config.lease_seconds:
        return f"a runner was started {ago:.0f} s ago"
    if len(resumed) >= MOST_RESUMES:
        return f"started {len(resumed)} times and did not get on: gtft runs logs {row.run_id}"
    return ""


def _find_orphans(ws: Workspace) -> list[StageRow]:
    """One stage per run: its lease lapsed, or it is the next of a run that was begun and then left."""
    found = {row.run_id: row for row in find_lapsed(ws)}
    recent = ws.store.now_us() - int(ws.config.lease_seconds * 1_000_000)
    for row in ws.store.list_claimable():
        stages = ws.store.list_stages(row.run_id)
        begun = any(s.attempt for s in stages)
        # A living runner claims the next stage at once.
        if begun and max(s.updated_us for s in stages) < recent:
            found.setdefault(row.run_id, row)
    return list(found.values())


def _look_after_stale(ws: Workspace, dry_run: bool) -> Iterator[Action]:
    """What waits for somebody longer than ``stale_days``: superseded by a newer model, or a reminder a day."""
    runs = ws.store.list_runs()
    stages = _stages_by_run(ws)
    for run in runs:
        rows = stages[run.id]
        now = next((s for s in rows if s.state != "done"), None)
        if now is None or now.state == "active" or run.desired == "cancel":
            continue
        since = max(run.created_us, *(s.updated_us for s in rows))
        days = (ws.store.now_us() - since) / DAY_US
        if days < ws.config.stale_days:
            continue
        newer = next((r for r in runs if _replaces(r, run) and _is_good(stages[r.id])), None)
        if now.state == "ready" and newer is not None:
            text = f"{now.stage} waited {days:.0f} days, and {newer.id} of the same recipe is done"
            if not dry_run:
                finish_unfinished(ws, run, "superseded", ACTOR, text)
            yield Action("superseded", run.id, text)
            continue
        text = f"{now.stage} waits since {days:.0f} days{_say_why(run, now)}"
        if _may_remind(ws, run, now):
            if not dry_run:
                _remind(ws, run, now, text)
            yield Action("reminded", run.id, text)


def _look_after_deployed(
    ws: Workspace, watch: Callable[[Workspace], int], dry_run: bool
) -> Iterator[Action]:
    """One look after all that is in service, when one is due and nobody is at it."""
    due = list_due(ws)
    if not due:
        return
    with lock_watch(ws) as free:
        if not free:
            return
    text = ", ".join(f"{d.mode} for {d.role}" for d in due)
    if not dry_run:
        text += f"; started a look, process {watch(ws)}"
    yield Action("watched", "", text)


def _replaces(newer: Run, old: Run) -> bool:
    return _kind(newer) == _kind(old) and newer.created_us > old.created_us


def _kind(run: Run) -> tuple[str, str]:
    return run.recipe_name, run.role


def _say_why(run: Run, row: StageRow) -> str:
    if row.state == "review":
        return " for a review"
    if row.reason in HELD:
        return f", {row.reason}"
    return ", paused" if run.desired == "pause" else " for a worker"


def _may_remind(ws: Workspace, run: Run, row: StageRow) -> bool:
    if row.state != "review" and read_recipe(run).notify.verbosity == "quiet":
        return False
    told = [e for e in ws.store.list_events(run.id) if e.kind == "reminded"]
    return not told or ws.store.now_us() - told[-1].created_us >= DAY_US


def _remind(ws: Workspace, run: Run, row: StageRow, text: str) -> None:
    recipe = read_recipe(run)
    review = row.state == "review"
    step = f"gtft review show {row.bead_id}" if review else f"gtft runs show {run.id}"
    subject = f"{'GTFT_REVIEW' if review else 'GTFT_FAILED'}: {text}: {run.id} ({run.role})"
    body = f"Bead: {row.bead_id}\nNext: {step}\nOr: gtft runs cancel {run.id}"
    # The event and the message are one transaction: a reminder goes out once a day, also after a crash.
    message = tell_people(recipe.notify.to, subject, body)
    ws.store.add_event(run.id, row.stage, "reminded", ACTOR, text, messages=(message,))


def _retrain(ws: Workspace, dry_run: bool) -> Iterator[Action]:
    """Dispatch a recipe again whose newest good run says that it is time."""
    runs = ws.store.list_runs()
    stages = _stages_by_run(ws)
    seen: set[tuple[str, str]] = set()
    for run in runs:
        if _kind(run) in seen or not _is_good(stages[run.id]):
            continue
        seen.add(_kind(run))
        alike = [r for r in runs if _kind(r) == _kind(run)]
        if any(s.state != "done" for r in alike for s in stages[r.id]):
            continue
        retrain = read_recipe(run).retrain
        why = _find_trigger(ws, run, alike) if retrain.enabled else ""
        if not why:
            continue
        week = ws.store.now_us() - BUDGET_DAYS * DAY_US
        spent = sum(r.actor == ACTOR and r.created_us > week for r in alike)
        if spent >= retrain.budget_runs:
            text = f"{why}; the budget of {retrain.budget_runs} in {BUDGET_DAYS} days is spent"
            yield Action("waits", run.id, text)
            continue
        text = f"retrain: {why}"
        made = run.id
        if not dry_run:
            made = dispatch(ws, restore_recipe(run), ACTOR, Path(run.root))
            ws.store.add_event(made, None, "retrain", ACTOR, f"{text} ({run.id})")
        yield Action("retrained", made, text)


def _find_trigger(ws: Workspace, run: Run, alike: list[Run]) -> str:
    """Why it is time for a new model, in words; empty when it is not."""
    retrain = read_recipe(run).retrain
    newest = max(alike, key=lambda r: r.created_us)
    harvested = _find_harvest(ws.store.list_events(newest.id), newest)
    new = count_queued(ws, run, harvested / 1e6)
    if retrain.min_new_sessions and new >= retrain.min_new_sessions:
        return f"{new} beads closed since the harvest of {newest.id}"
    made = [m.created_us for m in ws.store.list_models() if m.role == run.role]
    days = (ws.store.now_us() - max(made)) / DAY_US if made else 0.0
    if retrain.max_age_days and days >= retrain.max_age_days:
        return f"the newest {run.role} model is {days:.0f} days old"
    return ""


def _find_harvest(events: list[EventRow], run: Run) -> int:
    """When the harvest of a run began to read, microseconds since the epoch."""
    claims = [e for e in events if e.stage == "harvest" and e.kind in ("claimed", "taken-over")]
    return claims[-1].created_us if claims else run.created_us


def count_queued(ws: Workspace, run: Run, since: float) -> int:
    """Beads queued after ``since`` (seconds since the epoch) that a harvest of ``run`` would read."""
    own = {s.bead_id for s in ws.store.list_stages()} | {r.epic_bead for r in ws.store.list_runs()}
    rigs = {s.removeprefix("rig:") for s in read_recipe(run).scope}
    return sum(
        p.stem not in own
        and p.stat().st_mtime > since
        and (not rigs or _find_rig(ws, p.stem) in rigs)
        for p in (ws.path / QUEUE).glob("*.json")
    )


def _find_rig(ws: Workspace, bead: str) -> str | None:
    """The rig of a bead, by the longest prefix that fits: a prefix may hold dashes."""
    rigs = ws.home.town.rigs if ws.home is not None else ()
    fits = [r for r in rigs if bead.startswith(f"{r.prefix}-")]
    return max(fits, key=lambda r: len(r.prefix)).name if fits else None


def restore_recipe(run: Run) -> Resolved:
    """The recipe that a run stores, as it was resolved then."""
    doc = run.recipe
    return Resolved(
        recipe=read_recipe(run),
        formula=run.recipe_name,
        version=int(doc["version"]),
        source=Path(doc["formula_file"]),
        variables=doc["variables"],
        origins={},
        overlays=(),
        sets=tuple(doc["sets"]),
        hash=run.recipe_hash,
        document=doc,
    )


def _stages_by_run(ws: Workspace) -> dict[str, list[StageRow]]:
    found: dict[str, list[StageRow]] = {r.id: [] for r in ws.store.list_runs()}
    for row in ws.store.list_stages():
        found.setdefault(row.run_id, []).append(row)
    return found


def _is_good(rows: list[StageRow]) -> bool:
    """Done, and for no other reason than that it was finished."""
    return bool(rows) and all(s.state == "done" and s.reason is None for s in rows)
