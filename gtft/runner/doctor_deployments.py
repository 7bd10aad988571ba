"""Doctor of deployments: where the journals, the store, the routes and the town's files disagree, and mending it."""

from __future__ import annotations

from collections.abc import Iterator

from gtft.errors import ConflictError, GtftError
from gtft.runner.endpoint import find_endpoint
from gtft.runner.finding import Finding
from gtft.runner.rollback import list_faults, mend
from gtft.runner.switch import list_journals, lock_deploy
from gtft.runner.workspace import Workspace

FIX = "gtft doctor --fix"


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
    for j in journals:
        url = j.launch.health.removesuffix("/health") if j.launch is not None else ""
        if url and find_endpoint(ws.path, ws.environ, url) is None:
            text = f"{j.model} for {j.where}: {url} does not answer; agents start as before"
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
