"""``gtft model``: list, show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gtft.artifact import short_id, verify_artifact
from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option, print_table
from gtft.models.people import format_time
from gtft.models.registry import Lineage, find_model, list_models, trace_lineage
from gtft.records.governance import Governance
from gtft.records.rows import ModelRow
from gtft.runner.workspace import Workspace


@click.group(
    invoke_without_command=True,
    epilog="Example: gtft model show witness --card",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Models: adapters that were measured, reviewed and have a card."""
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
    epilog="Examples: gtft model show witness-1a2b3c4d5e6f    gtft model show witness --card"
)
@click.argument("name")
@click.option("--card", is_flag=True, help="Print the model card itself (Markdown).")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, card: bool, as_json: bool) -> None:
    """One model: where it is, what it comes from, how it did.

    NAME is a name, the beginning of one or of the adapter's sha256, or a role (its newest model).
    """
    ws = open_here(ctx)
    found = trace_lineage(ws.store, find_model(ws.store, name))
    text = _read_card(ws, found) if card else None
    data = _describe(ws, found) | ({"card_text": text} if text is not None else {})
    emit(data, as_json, lambda: _print(data, text))


def _list(ws: Workspace, role: str | None, as_json: bool) -> None:
    models = list_models(ws.store, role)
    touched = _list_touched(ws)
    rows = [
        (
            m.name,
            m.role,
            m.version,
            f"{m.status}, holds withdrawn data" if m.corpus_id in touched else m.status,
            m.run_id,
            format_time(m.created_us),
        )
        for m in models
    ]
    columns = ("model", "role", "version", "status", "run", "since")
    empty = "No model yet. One is registered when a run's card is accepted: gtft status"
    data = [_name(m) | {"withdrawn": m.corpus_id in touched} for m in models]
    emit(data, as_json, lambda: print_table(columns, rows, empty))


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
    return {
        **_name(found.model),
        "withdrawn": found.corpus.id in _list_touched(ws),
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
    }


def _print(data: dict[str, Any], card: str | None) -> None:
    if card is None:
        _print_model(data)
    else:
        click.echo(card, nl=False)


def _print_model(data: dict[str, Any]) -> None:
    own = " (who also worked on the run)" if data["self_approved"] else ""
    click.echo(f"{data['name']}  version {data['version']}, {data['status']}")
    click.echo(f"  role      {data['role']}")
    click.echo(f"  base      {data['base'] or 'not recorded'}")
    click.echo(f"  run       {data['run']}, recipe {data['recipe']['name']}")
    click.echo(f"  reviewed  by {data['reviewer'] or 'not recorded'}{own}")
    for n, line in enumerate(data["headline"]):
        click.echo(f"  {'results' if n == 0 else '       '}   {line}")
    click.echo(f"  limits    {len(data['limits'])}, on the card")
    if data["withdrawn"]:
        click.echo("  withdrawn some of what it was trained on, and not unlearned:")
        click.echo("            gtft corpus withdrawals, then train it again without")
    click.echo()
    rows = [(a["kind"], short_id(a["id"]), _shorten(Path(a["path"]))) for a in data["artifacts"]]
    print_table(("artifact", "id", "path"), rows, "")
    click.echo(f"\nNext: gtft model show {data['name']} --card")


def _shorten(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _read_card(ws: Workspace, found: Lineage) -> str:
    path = ws.artifact_path(found.card.path)
    card = verify_artifact(path, kind="card", expect=found.card.id)
    return card.file("README.md").read_text("utf-8")
