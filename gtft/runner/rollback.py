"""Out of service, and mending: what a crash or a store that was away left is brought to one state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gtft.errors import ConflictError, GtftError
from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow, Message, ModelRow
from gtft.runner.deployment import tell_end, tell_failed
from gtft.runner.switch import (
    Journal,
    Removal,
    Step,
    check_files,
    derive_routes,
    drop_journal,
    find_journal,
    list_journals,
    no_step,
    put_routes,
    read_journal,
    remove,
    settle,
    take_back,
)
from gtft.runner.switch_lock import is_awaited, lock_deploy
from gtft.runner.workspace import Workspace
from gtft.service import Routes, read_routes

ACTOR = "gtft/doctor"


@dataclass(frozen=True)
class Fault:
    """Something that does not agree. ``mend`` brings it right and returns what it could not put back to the byte."""

    about: str
    text: str
    mend: Callable[[], list[str]]


def finish_removal(
    ws: Workspace, journal: Journal, step: Step = no_step, messages: tuple[Message, ...] = ()
) -> None:
    """Tell the store what the journal says, then forget it. Raises TownError when the store is away."""
    step("store")
    if journal.removal is not None:
        tell_end(ws, journal, journal.removal, messages)
        # Cut off before it took the place of another one: both are out now.
        if journal.was is not None:
            tell_end(ws, journal.was, journal.removal)
    step("forget")
    drop_journal(ws.path, journal)


def take_back_breached(
    ws: Workspace, row: DeploymentRow, text: str, messages: tuple[Message, ...]
) -> None:
    """A limit of its recipe is breached: out of service, with ``messages``. Raises ConflictError while a switch is made."""
    removal = Removal(reason="rolled-back", text=text, actor="gtft/watch", at_us=ws.store.now_us())
    with lock_deploy(ws.path):
        journal = read_journal(ws.path, row.role, row.rig)
        if journal is not None and journal.deployment == row.id:
            off, _ = remove(ws.path, journal, removal)
            finish_removal(ws, off, messages=messages)


def list_faults(ws: Workspace) -> Iterator[Fault]:
    """Where journals, store, routes and the town's files disagree."""
    rows = Deployments(ws.store)
    journals = list_journals(ws.path)
    for j in journals:
        yield from _judge(ws, rows, j)
    held = {d for j in journals for d in (j.deployment, j.was.deployment if j.was else "")}
    for row in rows.list_deployments():
        if row.state != "ended" and row.id not in held:
            yield Fault(
                row.id,
                f"{row.state} in the store, and nothing of it is in the town",
                _end(ws, row),
            )
    serving = {d.model_id for d in rows.list_deployments() if d.state != "ended"}
    for model in ws.store.list_models():
        if model.status == "deployed" and model.id not in serving:
            text = "is deployed in the store, and no deployment of it is"
            yield Fault(model.name, text, _release(ws, model))
    between = any(j.state in ("applying", "removing") for j in journals)
    if not between and _read_routes(ws.path) != derive_routes(ws.path):
        text = "the server's routes are not those of the deployments"
        yield Fault("routes", text, lambda: _routes(ws.path))


def _judge(ws: Workspace, rows: Deployments, j: Journal) -> Iterator[Fault]:
    where = f"{j.model} for {j.where}"
    row = rows.find(j.deployment)
    if j.state == "applying":
        if is_awaited(find_journal(ws.path, j.role, j.rig)):
            return
        done = row is not None and row.state == "active"
        text = "was put in, and not noted so" if done else "was left half put in"
        yield Fault(where, text, lambda: _finish_applying(ws, j, done))
    elif j.state == "removing":
        yield Fault(where, "was left half taken out", lambda: _finish_removing(ws, j))
    elif j.state == "off":
        yield Fault(where, "is out of service, and the store was not told", lambda: _forget(ws, j))
    elif row is None or row.state != "active":
        said = "does not know it" if row is None else f"says {row.state}"
        removal = Removal(
            reason="failed", text=f"the store {said}", actor=ACTOR, at_us=ws.store.now_us()
        )
        yield Fault(where, f"is in service, and the store {said}", lambda: _out(ws, j, removal))
    else:
        for path, state in check_files(ws.path, j):
            if state == "gone":
                text = f"its part of {path.name} is gone: somebody wrote over it"
                removal = Removal(reason="undone", text=text, actor=ACTOR, at_us=ws.store.now_us())
                yield Fault(where, text, lambda r=removal: _out(ws, j, r))  # type: ignore[misc]
                return


def _finish_applying(ws: Workspace, j: Journal, done: bool) -> list[str]:
    if done:
        settle(ws.path, j)
        return []

    def fail(why: str) -> None:
        tell_failed(ws, j.deployment, ACTOR, why)

    return take_back(ws.path, j, fail, "cut off before it was in service")


def _finish_removing(ws: Workspace, j: Journal) -> list[str]:
    assert j.removal is not None
    return _out(ws, j, j.removal)


def _out(ws: Workspace, j: Journal, removal: Removal) -> list[str]:
    off, notes = remove(ws.path, j, removal)
    finish_removal(ws, off)
    return notes


def _forget(ws: Workspace, j: Journal) -> list[str]:
    finish_removal(ws, j)
    return []


def _end(ws: Workspace, row: DeploymentRow) -> Callable[[], list[str]]:
    def mend() -> list[str]:
        tell_failed(ws, row.id, ACTOR, "cut off, or its journal is gone")
        return []

    return mend


def _release(ws: Workspace, model: ModelRow) -> Callable[[], list[str]]:
    def mend() -> list[str]:
        text = "no deployment of it is in service"
        Deployments(ws.store).set_status(model, "approved", actor=ACTOR, text=text)
        return []

    return mend


def _routes(workspace: Path) -> list[str]:
    put_routes(workspace)
    return []


def _read_routes(workspace: Path) -> Routes | None:
    try:
        return read_routes(workspace)
    except GtftError:
        return None


def mend(ws: Workspace) -> Iterator[tuple[Fault, list[str]]]:
    """Mend every fault, one after the other, each from a fresh look. The caller holds the lock.

    Raises the first trouble after the others are mended; ConflictError when mending does not come to an end.
    """
    troubles: dict[str, GtftError] = {}
    for _ in range(100):
        fault = next((f for f in list_faults(ws) if f.about not in troubles), None)
        if fault is None:
            for trouble in troubles.values():
                raise trouble
            return
        try:
            notes = fault.mend()
        except GtftError as e:
            troubles[fault.about] = e
            continue
        yield fault, notes
    raise ConflictError("deployments do not agree, whatever is done", fix="gtft deploy list")
