"""Carrying out ``gtft deploy``: gates, diff, question, switch."""

from __future__ import annotations

import os
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import click

from gtft.cli.context import get_actor
from gtft.cli.deploy_facts import gather_facts
from gtft.cli.output import emit
from gtft.errors import ConflictError, GtftError, UsageError
from gtft.models.registry import find_model
from gtft.records.deployments import Deployments
from gtft.records.rows import ModelRow
from gtft.runner.box import survey_box
from gtft.runner.comparison import end_comparison
from gtft.runner.deployment import (
    Plan,
    carry_out,
    find_run,
    find_town,
    plan_deployment,
)
from gtft.runner.deployment_files import Wanted, find_city, with_city_form, with_launcher
from gtft.runner.deployment_gates import (
    Gate,
    check_adapter,
    check_agent,
    check_memory,
    check_model,
    check_withdrawals,
    refuse_unmet,
)
from gtft.runner.endpoint import (
    check_address,
    find_endpoint,
    find_port,
    name_path,
    probe,
    start_server,
    stop_server,
    wait_for_server,
)
from gtft.runner.moves import read_recipe
from gtft.runner.outbox import deliver
from gtft.runner.rollback import mend
from gtft.runner.switch import (
    Journal,
    find_in_service,
    find_journal,
    hash_bytes,
    read_journal,
)
from gtft.runner.switch_lock import let_others, lock_deploy
from gtft.runner.workspace import Workspace
from gtft.service import MODES, SPOKEN, Mode
from gtft.tool import find_tool
from gtft.town.locate import Town
from gtft.town.role import say_restart


@dataclass(frozen=True)
class Asked:
    """The command line."""

    model: str
    role: str
    mode: Mode
    rig: str = ""
    named: str = ""
    endpoint: str = ""
    force: str = ""
    accept_withdrawn: str = ""
    actor: str | None = None
    dry_run: bool = False
    yes: bool = False
    as_json: bool = False
    # Why what is in service goes, where this is a rollback to an earlier model.
    ended_reason: str = ""
    # Of the beads, that stays with the previous agent; None = as the recipe has it.
    ab_share: float | None = None


def find_next(
    ws: Workspace, deployment: str, role: str, rig: str | None, mode: Mode | None
) -> tuple[Journal, Mode]:
    """What is in service, and the mode after its own. Raises UsageError."""
    found = find_in_service(ws.path, deployment, role, rig)
    at = MODES.index(found.mode) + 1
    if mode is None and at == len(MODES):
        raise UsageError(
            f"{found.model} is live for {found.where} already", fix="gtft deploy status"
        )
    advises = find_town(ws) is not None or find_city(ws) is None
    after: list[Mode] = [m for m in MODES[at:] if m != "advise" or advises]
    to = mode or after[0]
    if MODES.index(to) < at:
        raise UsageError(f"{found.model} is {SPOKEN[found.mode]} for {found.where} already")
    return found, to


def deploy(ws: Workspace, asked: Asked) -> None:
    """Check, show, ask, switch. Raises GateFailed with every gate that is not met."""
    # A blank is no reason.
    asked = replace(
        asked, force=asked.force.strip(), accept_withdrawn=asked.accept_withdrawn.strip()
    )
    if not asked.dry_run:
        with lock_deploy(ws.path):
            for fault, notes in mend(ws):
                click.echo("\n  ".join([f"mended: {fault.about} {fault.text}", *notes]), err=True)
    _deploy(ws, asked)
    if not asked.dry_run:
        deliver(ws)


def _deploy(ws: Workspace, asked: Asked) -> None:
    model = find_model(ws.store, asked.model)
    town = find_town(ws)
    if asked.endpoint:
        check_address(asked.endpoint)
    url = _find_server(ws, asked)
    # Shadow asks the model in a process of its own.
    port = 0
    if asked.mode != "shadow" and not url and not asked.endpoint:
        port = find_port()
    wanted = Wanted(
        model=model,
        mode=asked.mode,
        role=asked.role,
        rig=asked.rig,
        url=url or (f"http://127.0.0.1:{port}" if port else asked.endpoint.rstrip("/")),
        actor=get_actor(asked.actor),
        named=asked.named,
        force=asked.force,
        accepted=asked.accept_withdrawn,
    )
    wanted = with_city_form(ws, with_launcher(ws, wanted, _find_program(ws)))
    plan = plan_deployment(ws, town, wanted, f"dep-{uuid.uuid4().hex[:10]}", ws.environ)
    plan = _with_asked(plan, asked)
    gates = list_gates(ws, town, model, plan, asked, url, port)
    data = _describe(plan, gates, ws)
    if not asked.as_json:
        _show_gates(plan, gates)
    if not asked.dry_run:
        refuse_unmet(gates, asked.force)
    if not asked.as_json:
        click.echo(data["diff"] or "No file of the town changes.\n", nl=False)
    if asked.dry_run:
        emit({**data, "dry_run": True}, asked.as_json, lambda: None)
        return
    _confirm(
        f"Put {plan.model.name} into service for {plan.journal.where} ({plan.row.mode})?", asked
    )
    started: list[int] = []

    def check(lock: IO[str]) -> None:
        if wanted.mode == "shadow":
            return
        # A server that answers late keeps nobody from a rollback.
        with let_others(lock, find_journal(ws.path, asked.role, asked.rig)):
            found = probe(wanted.url, plan.journal.route, environ=ws.environ)
        click.echo(f"{plan.model.name} answered in {found.seconds:.1f} s", err=True)

    try:
        # Before the lock, as the question is: what waits must not keep a rollback from being made.
        if port:
            started.append(start_server(ws.path, port, model.name, ws.environ))
            _wait(ws, started[0], asked)
        with lock_deploy(ws.path) as lock:
            _check_same(ws, plan)
            journal = carry_out(ws, plan, lambda: check(lock), ended_reason=asked.ended_reason)
    # Nothing of a deployment that failed stays behind, whatever ended it: not its server either.
    except BaseException:
        try:
            now = read_journal(ws.path, asked.role, asked.rig)
        except GtftError:
            now = None
        if now is None or (now.deployment, now.state) != (plan.row.id, "active"):
            for pid in started:
                stop_server(pid)
        raise
    done = {**data, "dry_run": False, "state": journal.state}
    emit(done, asked.as_json, lambda: _tell(plan, town))


def _with_asked(plan: Plan, asked: Asked) -> Plan:
    """With what the row and the route get from the command line. Raises UsageError."""
    detail = {**plan.row.detail, "named": asked.named or plan.recipe.deploy.agent}
    journal = plan.journal
    if asked.ab_share is not None:
        if asked.mode != "live" and asked.ab_share:
            raise UsageError(
                f"--ab-share {asked.ab_share:g} with mode {asked.mode}",
                why="beads are shared between the model and the previous agent in live only",
                fix=f"--mode live (promote: --to live) --ab-share {asked.ab_share:g}",
            )
        route = journal.route.model_copy(update={"ab_share": asked.ab_share})
        journal = journal.model_copy(update={"route": route})
        detail["ab_share"] = asked.ab_share
    return replace(plan, row=replace(plan.row, detail=detail), journal=journal)


def stop_comparison(ws: Workspace, journal: Journal, asked: Asked) -> None:
    """``gtft deploy promote --ab-share 0`` of what is live: its comparison by beads ends. Raises ConflictError."""
    where = f"--role {journal.role}{' --rig ' + journal.rig if journal.rig else ''}"
    if asked.ab_share:
        raise ConflictError(
            f"{journal.model} is live for {journal.where}: a comparison begins with a deployment",
            why="what the model answered before would count for it",
            fix=f"gtft deploy undo {journal.deployment}, then gtft deploy {journal.model} {where} --mode live "
            f"--ab-share {asked.ab_share:g}",
        )
    data = {"deployment": journal.deployment, "model": journal.model, "ab_share": 0.0}
    if asked.dry_run:
        text = f"every bead would go to {journal.model}; now {journal.route.ab_share:g} do not"
        emit({**data, "dry_run": True}, asked.as_json, lambda: click.echo(text))
        return
    _confirm(f"Give every bead of {journal.where} to {journal.model}?", asked)
    row = Deployments(ws.store).find(journal.deployment)
    if row is None or not end_comparison(ws, row, actor=get_actor(asked.actor), why="by hand"):
        raise ConflictError(f"{journal.deployment} is not in service now", fix="gtft deploy list")
    text = f"every bead of {journal.where} goes to {journal.model} from now on. Back: gtft rollback {where}"
    emit({**data, "dry_run": False}, asked.as_json, lambda: click.echo(text))


def _find_server(ws: Workspace, asked: Asked) -> str:
    """The one that was named; else the one that the place has now, then the workspace's own. "" when none answers."""
    named = [asked.endpoint]
    if not asked.endpoint and (was := read_journal(ws.path, asked.role, asked.rig)) is not None:
        row = Deployments(ws.store).find(was.deployment)
        former = str(row.detail.get("endpoint") or "") if row is not None else ""
        named = [former, ""] if former else named
    return next((u for n in named if (u := find_endpoint(ws.path, ws.environ, n))), "")


def _check_same(ws: Workspace, plan: Plan) -> None:
    """The files are compared byte by byte when they are written; this is about what is in service."""
    if read_journal(ws.path, plan.journal.role, plan.journal.rig) != plan.journal.was:
        raise ConflictError(
            f"what is in service for {plan.journal.where} changed in the meantime",
            why="somebody deployed or rolled back there; nothing was changed",
            fix="gtft deploy list, then the same command again",
        )


def list_gates(
    ws: Workspace,
    town: Town | None,
    model: ModelRow,
    plan: Plan,
    asked: Asked,
    url: str,
    port: int,
) -> list[Gate]:
    """Every gate, met or not."""
    place = (asked.role, asked.rig, asked.mode)
    facts = gather_facts(ws, town, model, plan.recipe, place)
    gates = list(check_model(model, asked.role, asked.mode, facts))
    gates.append(check_withdrawals(ws, model, asked.accept_withdrawn))
    gate, adapter = check_adapter(ws, model)
    gates.append(gate)
    if asked.mode == "shadow" or port:
        gates.append(check_memory(ws, model, plan.recipe, adapter, survey_box(ws.path)))
    if asked.mode != "shadow":
        gates.append(_judge_endpoint(asked, url, port))
    if plan.agent is not None:
        gates.append(check_agent(plan.agent.model_agent, ws.environ))
    return gates


def _judge_endpoint(asked: Asked, url: str, port: int) -> Gate:
    if url:
        return Gate("endpoint", True, f"{url} is up; it is asked before anything is changed")
    if port:
        return Gate("endpoint", True, f"none runs: one is started at http://127.0.0.1:{port}")
    return Gate(
        "endpoint", False, f"{asked.endpoint} does not answer", f"curl {asked.endpoint}/health"
    )


def _find_program(ws: Workspace) -> tuple[str, ...]:
    """How gtft is called when gt starts an agent, from whatever PATH it has then: this very install."""
    own = Path(sys.executable).parent / "gtft"
    found = own if own.is_file() else find_tool("gtft", ws.environ)
    if found is not None:
        return (str(found.absolute()),)
    return (sys.executable, "-P", "-m", "gtft.cli.main")


def _wait(ws: Workspace, pid: int, asked: Asked) -> None:
    told: list[str] = []

    def tell(text: str) -> None:
        if not told and not asked.as_json:
            click.echo(f"{text} …", err=True)
            told.append(text)

    wait_for_server(ws.path, pid, ws.environ, tell)


def _confirm(question: str, asked: Asked) -> None:
    if asked.yes:
        return
    if asked.as_json:
        raise click.UsageError("--json asks nothing: give --yes or --dry-run.")
    try:
        agreed = click.confirm(question)
    except click.Abort as e:
        click.echo()
        raise UsageError(
            "nothing was changed: nobody answered", fix="add --yes, or --dry-run for the diff only"
        ) from e
    if not agreed:
        raise click.Abort()


def _show_gates(plan: Plan, gates: list[Gate]) -> None:
    for g in gates:
        mark = "met" if g.met else "warning" if g.warning else "NOT MET"
        click.echo(f"{mark:<8} {g.name:<23} {g.told}")
        if not g.met:
            click.echo(f"{'':<32} next: {g.fix}")
    for note in plan.notes:
        click.echo(f"note     {note}")
    if plan.journal.was is not None:
        was = plan.journal.was
        click.echo(f"instead  of {was.model} ({was.mode}, {was.deployment})")


def _tell(plan: Plan, town: Town | None) -> None:
    j = plan.journal
    click.echo(f"{j.model} is {SPOKEN[j.mode]} for {j.where}: {j.deployment}")
    if j.mode == "live":
        # How an agent of a city is started anew is gc's affair.
        again = say_restart(j.role, j.rig, town) if town is not None else ""
        click.echo(f"It takes effect for agents that start from now on. {again}".rstrip())
    where = f"--role {j.role}{' --rig ' + j.rig if j.rig else ''}"
    click.echo(f"Figures: gtft deploy status    Back: gtft rollback {where}")


def _describe(plan: Plan, gates: list[Gate], ws: Workspace) -> dict[str, Any]:
    j = plan.journal
    return {
        "deployment": j.deployment,
        "model": j.model,
        "role": j.role,
        "rig": j.rig,
        "mode": j.mode,
        "endpoint": plan.row.detail["endpoint"],
        "path": name_path(j.role, j.rig),
        "agent": j.agent,
        "gates": [g.as_dict() for g in gates],
        "instead": j.was.deployment if j.was is not None else None,
        "files": [
            {"path": e.path, "before": hash_bytes(edit.found), "after": e.left}
            for e, edit in zip(j.files, plan.edits, strict=True)
        ],
        "diff": plan.diff(Path(os.path.normpath(ws.path / j.root))),
    }


def deploy_earlier(ws: Workspace, name: str, journal: Journal, asked: Asked) -> None:
    """``gtft rollback --to``: an earlier model of the role, in the mode that is there now. Raises ConflictError."""
    model = find_model(ws.store, name)
    if model.role != journal.role:
        raise ConflictError(
            f"{model.name} was trained for {model.role}, not {journal.role}", fix="gtft model list"
        )
    run = find_run(ws, model)
    row = Deployments(ws.store).find(journal.deployment)
    now = str(row.detail.get("named") or "") if row is not None else ""
    named = asked.named or now or read_recipe(run).deploy.agent
    deploy(ws, replace(asked, model=model.name, named=named, ended_reason="rolled-back"))
