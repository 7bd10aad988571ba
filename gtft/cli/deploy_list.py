"""``gtft deploy list`` and ``gtft deploy status``: what is in service, and how it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gtft.cli.context import open_here
from gtft.cli.deploy_figures import word_figures
from gtft.cli.output import emit, json_option, print_table
from gtft.errors import UsageError

if TYPE_CHECKING:
    from gtft.records.rows import DeploymentRow, IncidentRow
    from gtft.runner.workspace import Workspace


@click.command("list", epilog="Example: gtft deploy list --all")
@click.option("--all", "every", is_flag=True, help="Those that ended, too.")
@json_option
@click.pass_context
def list_command(ctx: click.Context, every: bool, as_json: bool) -> None:
    """What is in service."""
    show_list(ctx, as_json, every=every)


def show_list(ctx: click.Context, as_json: bool, *, every: bool = False) -> None:
    from gtft.models.people import format_time
    from gtft.records.deployments import Deployments

    ws = open_here(ctx)
    names = {m.id: m.name for m in ws.store.list_models()}
    found = Deployments(ws.store).list_deployments()
    rows = [d for d in found if every or d.state != "ended"]
    data = [_describe(d, names) for d in rows]
    table = [
        (
            d.id,
            names.get(d.model_id, d.model_id),
            f"{d.rig}/{d.role}" if d.rig else d.role,
            d.mode,
            d.state if d.reason is None else f"{d.state}: {d.reason}",
            format_time(d.created_us),
        )
        for d in reversed(rows)
    ]
    columns = ("deployment", "model", "for", "mode", "state", "since")
    empty = "Nothing is in service. Begin with: gtft deploy MODEL --role ROLE"
    emit(data, as_json, lambda: print_table(columns, table, empty))


@click.command("status", epilog="Examples: gtft deploy status    gtft deploy status dep-1a2b3c4d5e")
@click.argument("deployment", required=False, default="")
@json_option
@click.pass_context
def status(ctx: click.Context, deployment: str, as_json: bool) -> None:
    """Each deployment: its figures since, its server, and how the town's files stand."""
    from gtft.records.deployments import Deployments

    ws = open_here(ctx)
    rows = Deployments(ws.store).list_deployments()
    names = {m.id: m.name for m in ws.store.list_models()}
    wanted = [
        d
        for d in rows
        if (deployment in (d.id, names.get(d.model_id)) if deployment else d.state != "ended")
    ]
    if deployment and not wanted:
        raise UsageError(f"there is no deployment {deployment}", fix="gtft deploy list --all")
    harm = Deployments(ws.store).list_incidents()
    data = [
        _describe(d, names)
        | _look(ws, d)
        | {"incidents": [_describe_incident(i) for i in harm if i.deployment_id == d.id]}
        for d in wanted
    ]

    def render() -> None:
        if not data:
            click.echo("Nothing is in service. Begin with: gtft deploy MODEL --role ROLE")
        for d in data:
            _print(d)

    emit(data, as_json, render)


def _describe(d: DeploymentRow, names: dict[str, str]) -> dict[str, Any]:
    return {
        "id": d.id,
        "model": names.get(d.model_id, d.model_id),
        "role": d.role,
        "rig": d.rig,
        "mode": d.mode,
        "state": d.state,
        "reason": d.reason,
        "reason_text": d.reason_text,
        "actor": d.actor,
        "detail": d.detail,
        "figures": d.figures,
        "created_us": d.created_us,
        "ended_us": d.ended_us,
    }


def _describe_incident(i: IncidentRow) -> dict[str, Any]:
    item = i.item["id"] if i.item else None
    return {"id": i.id, "title": i.title, "bead": i.bead_id, "item": item}


def _look(ws: Workspace, d: DeploymentRow) -> dict[str, Any]:
    """How it stands outside the store."""
    from gtft.runner.doctor_deployments import WITHOUT_IN_CITY
    from gtft.runner.endpoint import find_endpoint
    from gtft.runner.switch import check_files, read_journal

    journal = read_journal(ws.path, d.role, d.rig)
    if d.state == "ended" or journal is None or journal.deployment != d.id:
        return {"files": [], "endpoint_answers": None, "without_server": ""}
    files = [{"path": str(p), "state": s} for p, s in check_files(ws.path, journal)]
    url = str(d.detail.get("endpoint") or "")
    answers = find_endpoint(ws.path, ws.environ, url) is not None if url else None
    without = "nobody is advised"
    if d.mode == "live":
        without = WITHOUT_IN_CITY if journal.in_city else "agents start as before"
    return {"files": files, "endpoint_answers": answers, "without_server": without}


def _print(d: dict[str, Any]) -> None:
    where = f"{d['rig']}/{d['role']}" if d["rig"] else d["role"]
    click.echo(f"{d['id']}  {d['model']} {d['mode']} for {where}, {d['state']} (by {d['actor']})")
    if d["reason"]:
        click.echo(f"  ended     {d['reason']}: {d['reason_text']}")
    if d["detail"].get("forced"):
        click.echo(f"  forced    {d['detail']['forced']}")
    if d["endpoint_answers"] is not None:
        url = d["detail"]["endpoint"]
        said = "answers" if d["endpoint_answers"] else f"does not answer: {d['without_server']}"
        click.echo(f"  endpoint  {url} {said}")
        if not d["endpoint_answers"]:
            click.echo("            next: gtft model serve --deployed")
    for f in d["files"]:
        click.echo(f"  file      {f['path']}: {f['state']}")
    if not d["figures"] and d["state"] == "active":
        click.echo("  figures   none yet: gtft sweep takes them")
    for what, text in word_figures(d["figures"]):
        click.echo(f"  {what}: {text}")
    for i in d["incidents"]:
        asked = "every eval asks it" if i["item"] else "no item could be made of it"
        click.echo(f"  incident {i['id']}: {i['title']} (bead {i['bead']}; {asked})")
