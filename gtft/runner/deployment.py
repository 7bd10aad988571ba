"""A model put into service for a role of the town: the plan of it, and carrying it out with the store.

The town's side is `gtft.runner.switch`, which knows no store; the order of the steps is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.errors import ConflictError, GtftError, InputError, TownError, UsageError
from gtft.recipe.schema import Recipe
from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow, Message, ModelRow, Run
from gtft.runner.deployment_files import (
    Wanted,
    find_city,
    list_folders,
    make_launch,
    name_url,
    plan_city_file,
    plan_files,
    plan_program,
)
from gtft.runner.moves import read_recipe
from gtft.runner.outbox import tell_feed, tell_people
from gtft.runner.switch import (
    Edit,
    Journal,
    Removal,
    Step,
    apply,
    decode,
    hash_bytes,
    list_journals,
    no_step,
    read_journal,
)
from gtft.runner.workspace import Workspace
from gtft.service import MODES, SPOKEN, Fallback, Route
from gtft.town import city
from gtft.town.agents import HOME_URLS, Protocol
from gtft.town.install import Change
from gtft.town.locate import Town, find_root, read_town
from gtft.town.role import (
    RoleAgent,
    check_place,
    find_role_agent,
    name_agent,
)
from gtft.town.settings import swap_file

# A member of a JSON object whose key says that its value is nobody's business.
_SECRET = re.compile(
    r'("[^"\\\n]*(?:key|token|secret|passw|credential)[^"\\\n]*"\s*:\s*")(?:[^"\\\n]|\\.)+(")',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Plan:
    """What will be done: the store's row, the journal and the files. ``was``: what it takes the place of;
    ``program``: the file in the workspace that gt is to start."""

    model: ModelRow
    run: Run
    recipe: Recipe
    row: DeploymentRow
    journal: Journal
    edits: tuple[Edit, ...]
    agent: RoleAgent | None
    notes: tuple[str, ...] = ()
    city: city.CityPlan | None = None
    program: Edit | None = None

    def diff(self, root: Path) -> str:
        """A unified diff of the town's files, for people: values of keys that name a secret are not shown."""
        changes = (
            Change(e.path, "", "changed", e.found, e.new, e.mode)
            for e in self.edits
            if e.found != e.new
        )
        return _SECRET.sub(r"\1…\2", "".join(c.diff(root) for c in changes))


def find_town(ws: Workspace) -> Town | None:
    """The town that the workspace keeps its state in, or that it is in; None without one."""
    if ws.home is not None:
        return ws.home.town
    root = find_root(ws.path.parent, {})
    return read_town(root) if root is not None else None


def find_run(ws: Workspace, model: ModelRow) -> Run:
    run = ws.store.find_run(model.run_id)
    if run is None:
        raise InputError(
            f"the store has no run {model.run_id}, which made {model.name}", fix="gtft doctor"
        )
    return run


def plan_deployment(
    ws: Workspace, town: Town | None, wanted: Wanted, deployment_id: str, environ: Mapping[str, str]
) -> Plan:
    """Every byte that will change, before anything does. Raises TownError where the town cannot be edited,
    ConflictError where the place is taken."""
    was = read_journal(ws.path, wanted.role, wanted.rig)
    _check_was(was, wanted)
    run = find_run(ws, wanted.model)
    recipe = read_recipe(run)
    named = wanted.named or recipe.deploy.agent
    agent: RoleAgent | None = None
    gas_city = find_city(ws) if town is None else None
    if town is not None:
        check_place(town, wanted.role, wanted.rig)
        if wanted.mode == "live":
            entries = {
                (j.rig, j.role): e.previous
                for j in list_journals(ws.path)
                for e in j.files
                if e.kind == "settings"
            }
            agent = find_role_agent(town, wanted.role, wanted.rig, named, environ, entries)
    elif wanted.mode != "shadow" and not (gas_city is not None and wanted.mode == "live"):
        raise UsageError(
            f"there is no town whose {wanted.role} could run on {wanted.model.name}",
            why=f"{ws.path} is in no Gas Town"
            + (", and a Gas City has no directives" if gas_city is not None else ""),
            fix=f"--mode shadow, or serve it to anything else: gtft model serve {wanted.model.name}",
        )
    root = town.root if town is not None else gas_city or ws.path.parent
    found = plan_files(ws, root, wanted, was, agent)
    route = _make_route(wanted, recipe, deployment_id, agent)
    changed: city.CityPlan | None = None
    notes = agent.notes if agent is not None else ()
    if gas_city is not None:
        found, changed = plan_city_file(root, wanted, was, named)
        if wanted.mode == "live":
            protocol: Protocol = "openai" if named == "codex" else "anthropic"
            fallback = Fallback(protocol=protocol, url=HOME_URLS[protocol])
            route = route.model_copy(update={"fallback": fallback})
            if protocol == "openai":
                # gc knows it by OPENAI_BASE_URL alone.
                url = name_url(wanted, protocol)
                notes = (
                    f'codex of April 2026 or newer needs openai_base_url = "{url}" in its config.toml too',
                )
    edits = [edit for edit, _ in found]
    journal = Journal(
        state="applying",
        role=wanted.role,
        rig=wanted.rig,
        root=os.path.relpath(root, ws.path),
        deployment=deployment_id,
        model=wanted.model.name,
        model_id=wanted.model.id,
        mode=wanted.mode,
        agent=name_agent(wanted.role) if agent is not None else "",
        files=tuple(entry for _, entry in found),
        folders=list_folders(root, edits, was),
        route=route,
        launch=make_launch(wanted, agent) if agent is not None else None,
        was=was,
    )
    now = ws.store.now_us()
    row = DeploymentRow(
        id=deployment_id,
        model_id=wanted.model.id,
        role=wanted.role,
        rig=wanted.rig,
        mode=wanted.mode,
        state="preparing",
        reason=None,
        reason_text="",
        actor=wanted.actor,
        detail=_describe(wanted, journal, recipe, agent),
        figures={},
        created_us=now,
        updated_us=now,
    )
    return Plan(
        model=wanted.model,
        run=run,
        recipe=recipe,
        row=row,
        journal=journal,
        edits=tuple(edits),
        agent=agent,
        notes=notes,
        city=changed,
        program=plan_program(ws, wanted, agent) if agent is not None else None,
    )


def carry_out(
    ws: Workspace,
    plan: Plan,
    check: Callable[[], None],
    step: Step = no_step,
    ended_reason: str = "",
) -> Journal:
    """Deploy as planned, or leave everything as it was. ``check`` asks the endpoint, after the route is there."""
    rows = Deployments(ws.store)
    was = plan.journal.was
    text = f"{plan.model.name} is {SPOKEN[plan.journal.mode]} for {plan.journal.where}"
    if forced := plan.row.detail.get("forced"):
        text += f" (forced: {forced})"

    def start() -> None:
        if (p := plan.program) is not None:
            swap_file(p.path, p.found, p.new, p.mode)
        rows.start(plan.row, plan.model)

    def activate() -> None:
        if plan.city is not None and (refused := tuple(city.list_refusals(plan.city, ws.environ))):
            raise TownError(
                f"gc does not take the new {city.CITY}; it is as it was",
                why="; ".join(refused)[:600],
                fix="name the agent as gc does (gc config explain): --agent PACK.NAME",
            )
        ended: dict[str, str] = {}
        # As it is now: its status may have moved since the plan.
        statuses = _serve(ws, plan.model.id)
        if was is not None:
            same = was.model_id == plan.model.id
            up = MODES.index(plan.row.mode) > MODES.index(was.mode)
            ended[was.deployment] = ended_reason or ("promoted" if same and up else "superseded")
            if not same:
                statuses |= release(ws, was.model_id, was.deployment, "superseded")
        rows.activate(
            plan.row.id,
            detail=plan.row.detail,
            ended=ended,
            statuses=statuses,
            actor=plan.row.actor,
            text=text,
            messages=_tell(plan, f"GTFT_DEPLOYED: {text}", "gtft_deployed", text),
        )

    def is_active() -> bool:
        try:
            found = rows.find(plan.row.id)
        # Not known: what is taken back is brought to one state by doctor, whatever the store says later.
        except GtftError:
            return False
        return found is not None and found.state == "active"

    def fail(why: str) -> None:
        short = why.splitlines()[0][:500] if why else "stopped"
        tell_failed(ws, plan.row.id, plan.row.actor, short)

    return apply(
        ws.path,
        plan.journal,
        plan.edits,
        start=start,
        check=check,
        activate=activate,
        is_active=is_active,
        fail=forgive(fail),
        step=step,
    )


def forgive(fail: Callable[[str], None]) -> Callable[[str], None]:
    """The store may be what failed: a row that has no journal any more is ended by doctor and sweep."""

    def told(why: str) -> None:
        try:
            fail(why)
        except GtftError:
            return

    return told


def tell_failed(ws: Workspace, deployment: str, actor: str, text: str) -> None:
    """The store hears that a deployment came to nothing; nothing for one that ended, or that it never knew."""
    rows = Deployments(ws.store)
    row = rows.find(deployment)
    if row is not None and row.state != "ended":
        statuses = release(ws, row.model_id, row.id, "approved")
        rows.end(row.id, "failed", statuses=statuses, actor=actor, text=text)


def tell_end(
    ws: Workspace, journal: Journal, removal: Removal, messages: tuple[Message, ...] = ()
) -> None:
    """The store hears that a deployment ended; again when it has heard it already. Raises TownError.

    ``messages`` stand in place of the mail that says so.
    """
    rows = Deployments(ws.store)
    if rows.find(journal.deployment) is None:
        return
    model = next((m for m in ws.store.list_models() if m.id == journal.model_id), None)
    to: tuple[str, ...] = ()
    bead = ""
    if model is not None and (run := ws.store.find_run(model.run_id)) is not None:
        to, bead = read_recipe(run).notify.to, run.epic_bead or ""
    text = f"{journal.model} is out of service for {journal.where}: {removal.text}"
    word = "GTFT_ROLLBACK" if removal.reason == "rolled-back" else "GTFT_UNDEPLOYED"
    body = f"Deployment: {journal.deployment} ({journal.mode})\nBy: {removal.actor}\nNext: gtft deploy list"
    rows.end(
        journal.deployment,
        removal.reason,
        statuses=release(ws, journal.model_id, journal.deployment, "approved"),
        actor=removal.actor,
        text=removal.text,
        messages=(
            *(messages or (tell_people(to, f"{word}: {text}", body),)),
            tell_feed("gtft_undeployed", bead, removal.actor, text),
        ),
    )


def _tell(plan: Plan, subject: str, kind: str, text: str) -> tuple[Message, ...]:
    j = plan.journal
    lines = [
        f"Deployment: {j.deployment}",
        f"Model: {j.model}",
        f"Place: {j.where}, mode {j.mode}",
        f"By: {plan.row.actor}",
        f"Figures: gtft deploy status {j.deployment}",
        f"Back: gtft rollback --role {j.role}{' --rig ' + j.rig if j.rig else ''}",
    ]
    return (
        tell_people(plan.recipe.notify.to, subject, "\n".join(lines)),
        tell_feed(kind, plan.run.epic_bead or "", plan.row.actor, text),
    )


def _serve(ws: Workspace, model_id: str) -> dict[str, str]:
    model = next(m for m in ws.store.list_models() if m.id == model_id)
    return {model_id: "deployed"} if model.status in ("approved", "superseded") else {}


def release(ws: Workspace, model_id: str, but: str, to: str) -> dict[str, str]:
    """The status of a model that is not deployed any more; nothing when another deployment of it goes on."""
    model = next((m for m in ws.store.list_models() if m.id == model_id), None)
    if model is None or model.status != "deployed":
        return {}
    others = Deployments(ws.store).list_deployments(state="active")
    return {} if any(d.model_id == model_id and d.id != but for d in others) else {model_id: to}


def _check_was(was: Journal | None, wanted: Wanted) -> None:
    if was is None:
        return
    if was.state != "active":
        raise ConflictError(
            f"a deployment for {was.where} is half done",
            why="another gtft deploy is at work on it, or was cut off",
            fix="gtft doctor --fix, then the same command again",
        )
    same = was.model_id == wanted.model.id
    if same and was.mode == wanted.mode:
        raise ConflictError(
            f"{was.model} is {SPOKEN[was.mode]} for {was.where} already",
            why=f"since deployment {was.deployment}",
            fix=f"gtft deploy status {was.deployment}",
        )
    if not same and MODES.index(wanted.mode) < MODES.index(was.mode):
        raise ConflictError(
            f"{was.where} is served by {was.model} ({was.mode})",
            why=f"{wanted.mode} of another model would take it out of service",
            fix=f"gtft rollback --role {was.role}{' --rig ' + was.rig if was.rig else ''}, then again",
        )


def _make_route(
    wanted: Wanted, recipe: Recipe, deployment_id: str, agent: RoleAgent | None
) -> Route:
    fallback = None
    if agent is not None and (protocol := agent.model_agent.protocol) is not None:
        fallback = Fallback(protocol=protocol, url=agent.model_agent.upstream)
    return Route(
        role=wanted.role,
        rig=wanted.rig,
        deployment=deployment_id,
        model=wanted.model.name,
        adapter=wanted.model.adapter_id,
        mode=wanted.mode,
        seconds=recipe.deploy.answer_seconds,
        max_new_tokens=recipe.deploy.max_new_tokens,
        fallback=fallback,
        ab_share=recipe.deploy.ab_share if wanted.mode == "live" else 0.0,
    )


def _describe(
    wanted: Wanted, journal: Journal, recipe: Recipe, agent: RoleAgent | None
) -> dict[str, Any]:
    return {
        "endpoint": wanted.url,
        "agent": journal.agent,
        "previous": agent.agent.name if agent is not None else "",
        "files": [
            {"path": e.path, "before": hash_bytes(decode(e.before)), "after": e.left}
            for e in journal.files
        ],
        "limits": recipe.deploy.limits.model_dump(),
        "answer_seconds": recipe.deploy.answer_seconds,
        "ab_share": journal.route.ab_share,
        "forced": wanted.force,
        "accepted_withdrawn": wanted.accepted,
    }
