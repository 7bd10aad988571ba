"""``gtft model alias | archive``: names that move from model to model, and models out of the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import emit, json_option, print_table
from gtft.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from gtft.runner.workspace import Workspace


@click.command()
@click.argument("name", required=False)
@click.argument("model", required=False)
@click.option(
    "--pin", metavar="REASON", default="", help="Keep the model from being pruned, and say why."
)
@click.option("--drop", is_flag=True, help="Forget the alias; the model stays as it is.")
@as_option
@json_option
@click.pass_context
def alias(
    ctx: click.Context,
    name: str | None,
    model: str | None,
    pin: str,
    drop: bool,
    actor: str | None,
    as_json: bool,
) -> None:
    """Point NAME at MODEL, in one step; wherever a model is asked for, NAME means it. Bare: list.

    NAME is up to 64 letters, digits, dots, dashes, underscores and @. It cannot be a role or look like a model's
    name. A model that an alias means is never pruned or archived.

    \b
    gtft model alias
    gtft model alias witness@stable witness-1a2b3c4d5e6f
    gtft model alias witness@audit witness --pin "the audit of May cites it"
    gtft model alias witness@audit --drop
    """
    ws = open_here(ctx)
    if name is None:
        if pin or drop:
            raise UsageError("which alias?", fix="gtft model alias NAME --drop")
        _list(ws, as_json)
    elif drop:
        if model or pin:
            raise UsageError("--drop takes a name alone", fix=f"gtft model alias {name} --drop")
        _drop(ws, name, get_actor(actor), as_json)
    elif model is None:
        raise UsageError(
            f"{name} should mean which model?", fix=f"gtft model alias {name} MODEL, or --drop"
        )
    else:
        _set(ws, name, model, pin, get_actor(actor), as_json)


def _list(ws: Workspace, as_json: bool) -> None:
    from gtft.models.people import format_time
    from gtft.records.deployments import Deployments

    names = {m.id: m.name for m in ws.store.list_models()}
    data = [
        {
            "alias": a.name,
            "model": names.get(a.model_id, a.model_id),
            "pin": a.pin,
            "by": a.actor,
            "since": format_time(a.updated_us),
        }
        for a in Deployments(ws.store).list_aliases()
    ]
    rows = [(d["alias"], d["model"], d["pin"] or "-", d["by"], d["since"]) for d in data]
    empty = "No alias yet. Give one: gtft model alias witness@stable MODEL"
    emit(
        data, as_json, lambda: print_table(("alias", "model", "pinned", "by", "since"), rows, empty)
    )


def _set(ws: Workspace, name: str, given: str, pin: str, actor: str, as_json: bool) -> None:
    from gtft.models.registry import find_alias, find_model, set_alias

    model = find_model(ws.store, given)
    before = set_alias(ws.store, name, model, ws.path, actor=actor, pin=pin)
    pin = find_alias(ws.store, name).pin
    data = {
        "alias": name,
        "model": model.name,
        "before": before.name if before is not None else None,
        "pin": pin,
    }

    def render() -> None:
        was = f", before: {before.name}" if before is not None else ", a new alias"
        click.echo(f"{name} means {model.name}{was}")
        if pin:
            click.echo(f"pinned: {pin}")

    emit(data, as_json, render)


def _drop(ws: Workspace, name: str, actor: str, as_json: bool) -> None:
    from gtft.models.registry import find_alias
    from gtft.records.deployments import Deployments

    found = find_alias(ws.store, name)
    model = next((m for m in ws.store.list_models() if m.id == found.model_id), None)
    if model is None or not Deployments(ws.store).drop_alias(found, model, actor=actor):
        raise ConflictError(
            f"{name} was not dropped",
            why="somebody moved or dropped it in the meantime",
            fix="gtft model alias",
        )
    data: dict[str, Any] = {"alias": name, "before": model.name, "pin": found.pin}
    emit(data, as_json, lambda: click.echo(f"{name} means nothing any more, before: {model.name}"))


@click.command()
@click.argument("model")
@click.option("--undo", is_flag=True, help="Take it out of the archive: approved again.")
@as_option
@json_option
@click.pass_context
def archive(ctx: click.Context, model: str, undo: bool, actor: str | None, as_json: bool) -> None:
    """Take MODEL out of use; nothing is deleted. Refused while it is deployed or an alias means it.

    \b
    gtft model archive witness-1a2b3c4d5e6f
    gtft model archive witness-1a2b3c4d5e6f --undo
    """
    from gtft.models import registry

    ws = open_here(ctx)
    found = registry.find_model(ws.store, model)
    who = get_actor(actor)
    if undo:
        registry.unarchive(ws.store, found, ws.path, actor=who)
    else:
        registry.archive(ws.store, found, actor=who)
    status = "approved" if undo else "archived"
    data = {"model": found.name, "before": found.status, "status": status}
    emit(data, as_json, lambda: click.echo(f"{found.name}: {found.status} → {status}"))


COMMANDS: tuple[click.Command, ...] = (alias, archive)
