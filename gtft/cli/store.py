"""``gtft store``: where the state is, and its move into a town."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import emit, json_option


@click.group("store", invoke_without_command=True, epilog="\b\nExample:\n  gtft store --json")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Where the store and the ledger are, and their schema. ``move``: into the town."""
    if ctx.invoked_subcommand is not None:
        return
    from gtft.runner.moving import describe_home

    data = describe_home(open_here(ctx))

    def render() -> None:
        click.echo(f"store:  {data['store']}  (schema {data['schema']}, {data['runs']} runs)")
        click.echo(f"ledger: {data['ledger']}")
        if data["rig"]:
            click.echo(f"town:   {data['town']}, rig {data['rig']}")
        else:
            click.echo("town:   none; state is in the workspace")
        if data["left_behind"]:
            click.echo(f"left:   {data['left_behind']}; next: gtft store move --rig {data['rig']}")

    emit(data, as_json, render)


@command.command("move", epilog="\b\nExample:\n  gtft store move --rig finetune --dry-run")
@click.option("--rig", required=True, help="The rig whose database and beads are used from now on.")
@click.option("--dry-run", is_flag=True, help="Only say what would move.")
@as_option
@json_option
@click.pass_context
def move(ctx: click.Context, rig: str, dry_run: bool, actor: str | None, as_json: bool) -> None:
    """Move an embedded workspace into its town: rows, beads, then config.toml. May be repeated."""
    from gtft.runner.moving import move_workspace
    from gtft.runner.workspace import locate_workspace

    path = locate_workspace(ctx.find_root().obj, Path.cwd(), os.environ)
    moved = move_workspace(
        path,
        rig,
        actor=get_actor(actor),
        environ=dict(os.environ),
        now=time.time,
        tell=lambda step: click.echo(f"moving: {step}", err=True),
        dry_run=dry_run,
    )
    data = {**moved.__dict__, "aside": str(moved.aside), "dry_run": dry_run}

    def render() -> None:
        would = "would move" if dry_run else "moved"
        click.echo(f"{would} {moved.runs} runs and {moved.beads} beads into the rig {moved.rig}")
        for old, new in moved.renamed.items():
            click.echo(f"bead {old} is {new} there")
        if not dry_run:
            click.echo(f"the old files are kept in {moved.aside}; next: gtft status")

    emit(data, as_json, render)
