"""``gtft model``: list, show; the other verbs are in model_*.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gtft.artifact import short_id, verify_artifact
from gtft.cli import model_alias, model_compare, model_export, model_prune, model_serve, model_why
from gtft.cli.context import open_here
from gtft.cli.model_card import card_command
from gtft.cli.output import emit, json_option, print_table
from gtft.models.card_since import read_export
from gtft.models.freshness import Freshness, judge_freshness
from gtft.models.people import format_time
from gtft.models.registry import Lineage, find_model, find_pruned, list_models, trace_lineage
from gtft.records.ancestry import list_corpora
from gtft.records.deployments import Deployments
from gtft.records.governance import Governance
from gtft.records.rows import ArtifactRow, ModelRow
from gtft.runner.workspace import Workspace
from gtft.town.conventions import read_conventions


@click.group(
    invoke_without_command=True,
    epilog="Example: gtft model show witness --card",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Models: adapters that were measured, reviewed and have a card.

    A MODEL is a full name or adapter id, an alias, a role (its newest model), or the beginning of one name or id.
    """
    if ctx.invoked_subcommand is None:
        _list(open_here(ctx), None, as_json)


@command.command("list", epilog="Example: gtft model list --role witness")
@click.option("--role", metavar="ROLE", help="Only the models of one role.")
@json_option
@click.pass_context
def list_command(ctx: click.Context, role: str | None, as_json: bool) -> None:
    """Every model, newest first."""
    _list(open_here(ctx), role, as_json)


@command.command(
    epilog="Examples: gtft model show witness-1a2b3c4d5e6f    gtft model show witness@stable --card"
)
@click.argument("name")
@click.option("--card", is_flag=True, help="Print the model card itself (Markdown).")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, card: bool, as_json: bool) -> None:
    """One model: where it is, what it comes from, how it did.

    NAME is a name, an alias, a role (its newest model), or the beginning of a name or of the adapter's sha256.
    """
    ws = open_here(ctx)
    found = trace_lineage(ws.store, find_model(ws.store, name))
    text = _read_card(ws, found) if card else None
    data = _describe(ws, found) | ({"card_text": text} if text is not None else {})
    emit(data, as_json, lambda: _print(data, text))


def _list(ws: Workspace, role: str | None, as_json: bool) -> None:
    models = list_models(ws.store, role)
    touched = _list_touched(ws)
    conventions = _read_conventions(ws) if models else None
    aliases = Deployments(ws.store).list_aliases()
    data = []
    for m in models:
        fresh = _judge(ws, m, conventions)
        gone = find_pruned(ws.store, m, ws.path)
        data.append(
            _name(m)
            | {
                "withdrawn": not touched.isdisjoint(list_corpora(ws.store, m)),
                "aliases": [a.name for a in aliases if a.model_id == m.id],
                "expired": fresh.expired,
                "reasons": list(fresh.reasons),
                "pruned": format_time(gone) if gone is not None else None,
            }
        )
    rows = [
        (
            d["name"],
            d["role"],
            d["version"],
            _tell_state(d),
            ", ".join(d["aliases"]) or "-",
            d["run"],
            d["since"],
        )
        for d in data
    ]
    columns = ("model", "role", "version", "status", "aliases", "run", "since")
    empty = "No model yet. One is registered when a run's card is accepted: gtft status"
    emit(data, as_json, lambda: print_table(columns, rows, empty))


def _tell_state(d: dict[str, Any]) -> str:
    told = [d["status"]]
    if d["pruned"]:
        told.append(f"pruned on {d['pruned']}")
    elif d["expired"]:
        expired = "" if d["status"] == "expired" else "expired: "
        told.append(expired + "; ".join(d["reasons"]))
    if d["withdrawn"]:
        told.append("holds withdrawn data")
    return ", ".join(told)


def _read_conventions(ws: Workspace) -> dict[str, str] | None:
    """What the town works by now; None without a town."""
    return read_conventions(ws.home.town, ws.environ) if ws.home is not None else None


def _judge(ws: Workspace, m: ModelRow, conventions: dict[str, str] | None) -> Freshness:
    return judge_freshness(ws.store, m, now_us=ws.store.now_us(), conventions=conventions)


def _list_touched(ws: Workspace) -> set[str]:
    """The corpora that held something when it was withdrawn."""
    return {c for w in Governance(ws.store).list_withdrawals() for c in w.touched}


def _name(m: ModelRow) -> dict[str, Any]:
    return {
        "name": m.name,
        "role": m.role,
        "version": m.version,
        "status": m.status,
        "run": m.run_id,
        "since": format_time(m.created_us),
        "adapter": m.adapter_id,
    }


def _describe(ws: Workspace, found: Lineage) -> dict[str, Any]:
    summary = found.card.summary
    fresh = _judge(ws, found.model, _read_conventions(ws))
    gone = find_pruned(ws.store, found.model, ws.path)
    drift = fresh.drift
    return {
        **_name(found.model),
        "aliases": [
            {"alias": a.name, "pin": a.pin}
            for a in Deployments(ws.store).list_aliases()
            if a.model_id == found.model.id
        ],
        "pruned": format_time(gone) if gone is not None else None,
        "freshness": {
            "expired": fresh.expired,
            "reasons": list(fresh.reasons),
            "age_days": round(fresh.age_days, 1),
            "max_age_days": fresh.max_age_days,
            "drift": None if drift is None else round(drift.share, 4),
            "max_drift": fresh.max_drift,
            "changed": [] if drift is None else list(drift.changed),
            "unknown": fresh.unknown or None,
        },
        "withdrawn": not _list_touched(ws).isdisjoint(list_corpora(ws.store, found.model)),
        "recipe": {"name": found.run.recipe_name, "hash": found.run.recipe_hash},
        "base": summary.get("base"),
        "headline": summary.get("headline", []),
        "limits": summary.get("limits", []),
        "reviewer": summary.get("reviewer"),
        "self_approved": summary.get("self_approved"),
        "artifacts": [
            {"kind": a.kind, "id": a.id, "path": str(ws.artifact_path(a.path))}
            for a in found.artifacts
        ],
        "exports": [
            _describe_export(ws, row)
            for row in Deployments(ws.store).list_children(found.adapter.id, "export")
        ],
    }


def _describe_export(ws: Workspace, row: ArtifactRow) -> dict[str, Any]:
    path, read = ws.artifact_path(row.path), read_export(row)
    return {
        "id": row.id,
        "format": read.format,
        "kl_mean": read.kl_mean,
        "verified": read.verified,
        "path": str(path),
        "here": path.is_dir(),
    }


def _print(data: dict[str, Any], card: str | None) -> None:
    if card is None:
        _print_model(data)
    else:
        click.echo(card, nl=False)


def _print_model(data: dict[str, Any]) -> None:
    own = " (who also worked on the run)" if data["self_approved"] else ""
    pruned = f", pruned on {data['pruned']}" if data["pruned"] else ""
    click.echo(f"{data['name']}  version {data['version']}, {data['status']}{pruned}")
    click.echo(f"  role      {data['role']}")
    click.echo(f"  base      {data['base'] or 'not recorded'}")
    click.echo(f"  run       {data['run']}, recipe {data['recipe']['name']}")
    click.echo(f"  reviewed  by {data['reviewer'] or 'not recorded'}{own}")
    for n, line in enumerate(data["headline"]):
        click.echo(f"  {'results' if n == 0 else '       '}   {line}")
    click.echo(f"  limits    {len(data['limits'])}, on the card")
    for a in data["aliases"]:
        click.echo(f"  alias     {a['alias']}{', pinned: ' + a['pin'] if a['pin'] else ''}")
    click.echo(f"  fresh     {_tell_freshness(data['freshness'])}")
    for e in data["exports"]:
        kl = "" if e["kl_mean"] is None else f", KL {e['kl_mean']:.2g} nats per token"
        proof = "verified" if e["verified"] else "not verified"
        click.echo(f"  export    {e['format']} ({short_id(e['id'])}), {proof}{kl}")
    if data["withdrawn"]:
        click.echo("  withdrawn some of what it was trained on, and not unlearned:")
        click.echo("            gtft corpus withdrawals, then train it again without")
    click.echo()
    rows = [(a["kind"], short_id(a["id"]), _shorten(Path(a["path"]))) for a in data["artifacts"]]
    rows += [
        ("export", short_id(e["id"]), _shorten(Path(e["path"])) if e["here"] else "removed")
        for e in data["exports"]
    ]
    print_table(("artifact", "id", "path"), rows, "")
    click.echo(f"\nNext: gtft model show {data['name']} --card")


def _tell_freshness(f: dict[str, Any]) -> str:
    if f["expired"]:
        return "no, expired: " + "; ".join(f["reasons"])
    limit = f"of {f['max_age_days']:g} " if f["max_age_days"] else ""
    told = f"yes, {f['age_days']:.0f} {limit}days old; "
    if f["drift"] is None:
        return told + f"drift is not known: {f['unknown']}"
    return told + f"{f['drift']:.0%} of what the town works by changed since"


def _shorten(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _read_card(ws: Workspace, found: Lineage) -> str:
    path = ws.artifact_path(found.card.path)
    card = verify_artifact(path, kind="card", expect=found.card.id)
    return card.file("README.md").read_text("utf-8")


for verb in (
    *model_alias.COMMANDS,
    *model_compare.COMMANDS,
    *model_prune.COMMANDS,
    *model_serve.COMMANDS,
    *model_why.COMMANDS,
):
    command.add_command(verb)


command.add_command(card_command)
command.add_command(model_export.command)
