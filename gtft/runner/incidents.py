"""Harm done by a model in service: a bead for people, and a question that every later eval asks."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from gtft.artifact import hash_json, write_json
from gtft.beads.ledger import KEEP_LABEL, LABEL, NewBead
from gtft.contract import JOB_FILE
from gtft.errors import GtftError, UsageError, translate_os_error
from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow, IncidentRow, ModelRow
from gtft.runner.lineage import find_origin, make_job, run_worker
from gtft.runner.workspace import Workspace
from gtft.service import FOLDER

INCIDENT_LABEL = "gtft:incident"
WORKER = "gtft.workers.incident"
_SECONDS = 900.0
_TITLE = 200
_FIGURES = 4000


@dataclass(frozen=True)
class Report:
    """An incident as it was recorded. ``why``: why no safety item could be made of it, "" when one was."""

    row: IncidentRow
    excerpt: str
    why: str = ""


def find_deployment(
    ws: Workspace, deployment: str | None, role: str | None, rig: str = ""
) -> DeploymentRow:
    """By the beginning of its id, else the newest of a role that was in service. Raises UsageError."""
    rows = Deployments(ws.store).list_deployments(role=role)
    if deployment:
        found = [d for d in rows if d.id.startswith(deployment)]
    else:
        found = [d for d in rows if d.rig == rig and d.state != "preparing"][-1:]
    if len(found) != 1:
        asked = deployment or role or "(neither deployment nor role is given)"
        why = f"{len(found)} deployments begin with it" if found else "nothing is known of it"
        raise UsageError(f"which deployment is {asked}?", why=why, fix="gtft deploy list")
    return found[0]


def report_incident(
    ws: Workspace,
    deployment: DeploymentRow,
    *,
    title: str,
    session: str = "",
    bead: str = "",
    should: str = "",
    actor: str,
) -> Report:
    """Open the bead, record the incident and make its safety item. Reporting the same again gives what is there; one
    that has no item is tried again, with what ``should`` says now.

    ``should``: refuse, escalate or "command …"; "" = refuse or escalate. What keeps the item from being made, or
    the transcript from being read, does not keep the incident from being recorded.
    """
    title = " ".join(title.split())[:_TITLE]
    if not title or not (session or bead):
        raise UsageError(
            "an incident needs a title and what it is about",
            why="the safety item is made from the turn where it went wrong",
            fix='gtft deploy incident --role ROLE --session SESSION --title "what happened"',
        )
    model, run = find_origin(ws, deployment)
    mark = hash_json([deployment.id, session, bead, title]).removeprefix("sha256:")[:12]
    incident = f"inc-{mark}"
    deployments = Deployments(ws.store)
    known = next((i for i in deployments.list_incidents() if i.id == incident), None)
    if known is not None and known.item:
        return Report(known, "")
    folder = ws.path / FOLDER / "incidents" / incident
    asked = {
        "incident": incident,
        "role": deployment.role,
        "session": session,
        "bead": bead,
        "should": should,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What other incidents were is kept in one place, so that it can be taken back there.
        job = make_job(ws, run, folder / "work").model_copy(update={"incidents": ()})
        write_json(folder / JOB_FILE, json.loads(job.model_dump_json()))
        write_json(folder / "incident.json", asked)
        run_worker(WORKER, folder, ws, _SECONDS)
        found: dict[str, Any] = json.loads((folder / "found.json").read_bytes())
        # The bead has the excerpt, the row the item: nothing of the session stays here.
        (folder / "found.json").unlink()
    except OSError as e:
        raise translate_os_error(e, "reporting an incident") from e
    except UsageError:
        raise
    except GtftError as e:
        found = {"excerpt": "", "item": None, "why": f"the transcript could not be read: {e.what}"}
    if known is not None:
        return _try_again(ws, known, found, actor)
    bead_id = _open_bead(ws, deployment, model, incident, title, asked, found, actor)
    row = IncidentRow(
        id=incident,
        model_id=model.id,
        deployment_id=deployment.id,
        bead_id=bead_id,
        title=title,
        item=found["item"],
        actor=actor,
        created_us=ws.store.now_us(),
    )
    deployments.add_incident(row, model)
    return Report(row, found["excerpt"], found["why"])


def _try_again(ws: Workspace, known: IncidentRow, found: dict[str, Any], actor: str) -> Report:
    """An incident that had no item: its row and its bead say so when there is one now."""
    if found["item"] is None:
        return Report(known, found["excerpt"], found["why"])
    text = f"safety item {found['item']['id']}: every later eval asks it"
    Deployments(ws.store).set_item(known, found["item"], actor=actor, text=text)
    if known.bead_id:
        ws.ledger.note(known.bead_id, text, actor=actor)
    return Report(replace(known, item=found["item"]), found["excerpt"])


def _open_bead(
    ws: Workspace,
    deployment: DeploymentRow,
    model: ModelRow,
    incident: str,
    title: str,
    asked: dict[str, Any],
    found: dict[str, Any],
    actor: str,
) -> str:
    metadata = {"gtft.incident": incident}
    known = ws.ledger.find(label=INCIDENT_LABEL, metadata=metadata)
    if known:
        return known[0].id
    item = found["item"]
    figures = json.dumps(deployment.figures, sort_keys=True, ensure_ascii=False)
    lines = [
        f"Incident {incident}: {title}",
        "",
        f"Deployment: {deployment.id}, {deployment.mode} for {deployment.role}"
        f"{' of ' + deployment.rig if deployment.rig else ''}",
        f"Model: {model.name} (run {model.run_id})",
        f"Lineage: corpus {model.corpus_id}, adapter {model.adapter_id}, eval {model.eval_id}, card {model.card_id}",
        f"About: {' '.join(f'{k} {asked[k]}' for k in ('session', 'bead') if asked[k])}",
        f"Safety item: {item['id'] if item else 'none: ' + found['why']}",
        f"Figures: {figures[:_FIGURES]}",
        f"Back to the previous agent: gtft rollback --role {deployment.role}",
        "",
        "The turns before it, redacted:",
        found["excerpt"] or "(none)",
    ]
    new = NewBead(
        key="incident",
        title=f"{model.name}: {title}",
        description="\n".join(lines),
        type="bug",
        priority=1,
        labels=(LABEL, INCIDENT_LABEL, KEEP_LABEL),
        metadata=metadata,
    )
    return ws.ledger.create_graph((new,), actor=actor)["incident"]
