"""Doctor of deployments: where the journals, the store, the routes and the town's files disagree, and mending it."""

from __future__ import annotations

from collections.abc import Iterator

from gtft.errors import ConflictError, GtftError
from gtft.records.deployments import Deployments
from gtft.runner.endpoint import find_endpoint
from gtft.runner.finding import Finding
from gtft.runner.rollback import list_faults, mend
from gtft.runner.switch import list_journals
from gtft.runner.switch_lock import lock_deploy
from gtft.runner.workspace import Workspace

FIX = "gtft doctor --fix"
# gc starts the agent as city.toml says: nothing of ours stands before it.
WITHOUT_IN_CITY = "agents of the city get no answer"


def check_deployments(ws: Workspace) -> Iterator[Finding]:
    """What is in service, and what is off about it. Nothing is changed."""
    try:
        with lock_deploy(ws.path):
            faults = list(list_faults(ws))
    except ConflictError as e:
        yield Finding("note", "deployments", e.what, "gtft doctor, in a moment")
        return
    except GtftError as e:
        yield Finding("wrong", "deployments", f"{e.what}: {e.why}", e.fix)
        return
    for fault in faults:
        yield Finding("wrong", "deployment", f"{fault.about}: {fault.text}", FIX)
    journals = [j for j in list_journals(ws.path) if j.state == "active"]
    rows = Deployments(ws.store)
    for j in journals:
        url, without = "", "agents start as before"
        if j.launch is not None:
            url = j.launch.health.removesuffix("/health")
        elif j.in_city and (row := rows.find(j.deployment)) is not None:
            url, without = str(row.detail.get("endpoint") or ""), WITHOUT_IN_CITY
        if url and find_endpoint(ws.path, ws.environ, url) is None:
            text = f"{j.model} for {j.where}: {url} does not answer; {without}"
            yield Finding("note", "deployment", text, "gtft model serve --deployed")
    if not faults:
        yield Finding("ok", "deployments", f"{len(journals)} in service, town and store agree")


def mend_deployments(ws: Workspace) -> Iterator[Finding]:
    """Bring it right; each thing that was mended, and what could not be put back to the byte."""
    with lock_deploy(ws.path):
        try:
            for fault, notes in mend(ws):
                text = f"mended: {fault.about}: {fault.text}"
                yield Finding("note" if notes else "ok", "deployment", "; ".join([text, *notes]))
        except GtftError as e:
            yield Finding("wrong", "deployment", f"not mended: {e.what}: {e.why}", e.fix)
