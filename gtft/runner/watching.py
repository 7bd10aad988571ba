"""Looking after what is deployed: answers beside the town's agents, figures, and the way back when a limit is breached.

A look is a worker of its own (`gtft.workers.shadow`); the sweep starts this in a process of its own and never waits.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gtft.artifact import write_json
from gtft.contract import JOB_FILE
from gtft.errors import EvidenceError, GtftError, translate_os_error
from gtft.recipe.schema import Recipe
from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow, ModelRow, Run
from gtft.runner.box import LEAST_MEMORY, survey_box
from gtft.runner.comparison import end_comparison
from gtft.runner.deployment_gates import check_memory
from gtft.runner.detached import start_alone
from gtft.runner.lineage import find_origin, make_job, run_worker
from gtft.runner.moves import read_recipe
from gtft.runner.outbox import tell_people
from gtft.runner.rollback import take_back_breached
from gtft.runner.workspace import Workspace
from gtft.service import FOLDER, read_address

ACTOR = "gtft/watch"
LOCK_FILE, LOG = "watch.lock", "watch.log"
# Bytes of the log; a longer one is kept as watch.log.1, in place of the one before.
MOST_LOG = 1 << 20
# A deployment is looked after this often by the sweep, seconds.
EVERY_S = 600.0
# One look of one deployment may ask for so long, seconds, and so many questions.
LOOK_S, MOST_QUESTIONS = 300.0, 200
# Verdicts that end a comparison by beads; "worse" is a limit.
_ENDS = ("better", "no difference")
# The server's token, where it has one (gtft model serve --help).
TOKEN_VARIABLE = "GTFT_SERVE_TOKEN"  # noqa: S105 - the name of a variable


@dataclass(frozen=True)
class Looked:
    """One look. ``breach``: the limit and the figure in words; ``error``: why there are no new figures."""

    deployment: DeploymentRow
    figures: dict[str, Any]
    breach: tuple[str, str] | None = None
    rolled_back: bool = False
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "deployment": self.deployment.id,
            "role": self.deployment.role,
            "rig": self.deployment.rig,
            "mode": self.deployment.mode,
            "figures": self.figures,
            "breach": self.breach and {"limit": self.breach[0], "text": self.breach[1]},
            "rolled_back": self.rolled_back,
            "error": self.error,
        }


@contextmanager
def lock_watch(ws: Workspace) -> Iterator[bool]:
    """True while we are the only one who looks after deployments; the kernel drops the lock with us."""
    folder = ws.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def list_active(ws: Workspace, role: str | None = None) -> list[DeploymentRow]:
    """What is in service now, oldest first."""
    return Deployments(ws.store).list_deployments(role=role, state="active")


def list_due(ws: Workspace) -> list[DeploymentRow]:
    """Those that nobody looked after for `EVERY_S`."""
    recent = ws.store.now_us() - int(EVERY_S * 1_000_000)
    return [d for d in list_active(ws) if int(d.figures.get("at_us", 0)) < recent]


def start_watch(ws: Workspace) -> int:
    """``gtft deploy watch --once`` in a session of its own; returns its pid."""
    argv = ("deploy", "watch", "--once", "--json")
    log = ws.path / FOLDER / LOG
    if log.is_file() and log.stat().st_size > MOST_LOG:
        log.replace(log.with_name(f"{LOG}.1"))
    return start_alone(ws.path, argv, log, ws.environ)


def look_after(ws: Workspace, row: DeploymentRow, *, seconds: float = LOOK_S) -> Looked:
    """One look: ask what is new, note the figures, and take the deployment back when it is beyond a limit."""
    deployments = Deployments(ws.store)
    try:
        model, run = find_origin(ws, row)
        found = _ask_worker(ws, row, model, run, seconds)
    except GtftError as e:
        figures = {**row.figures, "at_us": ws.store.now_us(), "error": e.what}
        deployments.note_figures(row.id, figures)
        return Looked(row, figures, error=e.what)
    figures = _keep_verdict(found["figures"], deployments.find(row.id) or row)
    breach = found["breach"] and (str(found["breach"][0]), str(found["breach"][1]))
    deployments.note_figures(row.id, figures)
    if not breach:
        try:
            _end_comparison(ws, row, model, read_recipe(run), figures)
        except GtftError as e:
            return Looked(row, figures, error=e.what)
        return Looked(row, figures)
    try:
        gone = _take_back(ws, row, model, run, f"{breach[0]}: {breach[1]}")
    except GtftError as e:
        # Such as another switch at work: the next look finds the same figures.
        return Looked(row, figures, breach, error=e.what)
    return Looked(row, figures, breach, rolled_back=gone)


def _take_back(ws: Workspace, row: DeploymentRow, model: ModelRow, run: Run, text: str) -> bool:
    """Out of service, in whatever mode it is; False when somebody was faster. Raises ConflictError while another
    switch is at work."""
    deployments = Deployments(ws.store)
    now = deployments.find(row.id)
    if now is None or now.state != "active":
        return False
    where = f"{row.role}{' of ' + row.rig if row.rig else ''}"
    subject = f"GTFT_ROLLBACK: {model.name} no longer serves {where} ({row.mode}): {text}"
    body = f"Deployment: {row.id}\nFigures: gtft deploy status\nModel: gtft model show {model.name}"
    message = tell_people(read_recipe(run).notify.to, subject, body)
    take_back_breached(ws, now, text, (message,))
    # A row without anything in the town is the sweep's to mend.
    now = deployments.find(row.id)
    return now is not None and now.state == "ended"


def _ask_worker(
    ws: Workspace, row: DeploymentRow, model: ModelRow, run: Run, seconds: float
) -> dict[str, Any]:
    folder = ws.path / FOLDER / "watch" / row.id
    try:
        folder.mkdir(parents=True, exist_ok=True)
        job = make_job(ws, run, folder / "work")
        write_json(folder / JOB_FILE, json.loads(job.model_dump_json()))
        write_json(folder / "watch.json", _word_watch(ws, row, model, read_recipe(run), seconds))
        (folder / "figures.json").unlink(missing_ok=True)
        # Reading comes before asking, and an answer that has begun is waited for.
        run_worker("gtft.workers.shadow", folder, ws, seconds + 1800)
        found: dict[str, Any] = json.loads((folder / "figures.json").read_bytes())
    except OSError as e:
        raise translate_os_error(e, f"looking after {row.id}") from e
    return found


def _word_watch(
    ws: Workspace, row: DeploymentRow, model: ModelRow, recipe: Recipe, seconds: float
) -> dict[str, Any]:
    adapter = ws.store.find_artifact(model.adapter_id)
    if adapter is None:
        raise EvidenceError(f"the store has no adapter of {model.name}", fix="gtft doctor")
    address = read_address(ws.path)
    served = address is not None and model.name in address.models
    box = survey_box(ws.path)
    memory = check_memory(ws, model, recipe, None, box)
    # Beside what else works here nothing is loaded that does not fit.
    roomy = served or (memory.met and box.free >= LEAST_MEMORY)
    return {
        "deployment": row.id,
        "model": model.name,
        "adapter": str(ws.artifact_path(adapter.path)),
        "role": row.role,
        "rig": row.rig,
        "mode": row.mode,
        "since": row.created_us / 1e6,
        "url": address.url if address and served else "",
        "key_env": TOKEN_VARIABLE if address and served and address.token else "",
        "seconds": seconds,
        "most": MOST_QUESTIONS if roomy else 0,
        "kept": "" if roomy else f"the model is not served, and not loaded: {memory.told}",
        "ab_share": find_share(row, recipe),
        "limits": read_limits(row, recipe),
        "max_new_tokens": recipe.deploy.max_new_tokens,
        "answer_seconds": recipe.deploy.answer_seconds,
    }


def find_share(row: DeploymentRow, recipe: Recipe) -> float:
    """Of the beads, that stays with the previous agent now."""
    return float(row.detail.get("ab_share", recipe.deploy.ab_share))


def read_limits(row: DeploymentRow, recipe: Recipe) -> dict[str, float]:
    """Those that the deployment was made with, else the recipe's."""
    given: Mapping[str, Any] = row.detail.get("limits") or {}
    known = recipe.deploy.limits.model_dump()
    return {k: float(v) for k, v in {**known, **{k: given[k] for k in known if k in given}}.items()}


def _keep_verdict(figures: dict[str, Any], row: DeploymentRow) -> dict[str, Any]:
    """With the first verdict that ended the comparison: a later look at the same beads is no second test."""
    ab = figures.get("ab") or {}
    ended = row.figures.get("ab_end") or (ab if ab.get("verdict") in _ENDS else None)
    return {**figures, "ab_end": ended} if ended else figures


def _end_comparison(
    ws: Workspace, row: DeploymentRow, model: ModelRow, recipe: Recipe, figures: Mapping[str, Any]
) -> None:
    """Once a verdict stands in the row: every bead to the model, and mail about it in the same transaction. Raises
    ConflictError while another switch is at work."""
    ended = figures.get("ab_end")
    now = Deployments(ws.store).find(row.id)
    if not ended or now is None or not find_share(now, recipe):
        return
    where = f"--role {row.role}{' --rig ' + row.rig if row.rig else ''}"
    subject = f"GTFT_AB: {model.name} against the previous {row.role}: {ended['verdict']}"
    lines = (
        f"Deployment: {row.id}",
        f"Figures: {json.dumps(ended)}",
        "The comparison has ended: every bead goes to the model from now on.",
        f"Next: gtft deploy status {row.id}",
        f"Back to the previous agent: gtft rollback {where}",
    )
    message = tell_people(recipe.notify.to, subject, "\n".join(lines))
    end_comparison(ws, now, actor=ACTOR, why=ended["verdict"], messages=(message,))
