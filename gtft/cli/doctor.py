"""``gtft doctor``: what is installed, what would fail, and how to mend it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gtft.cli.output import emit, json_option

if TYPE_CHECKING:
    from gtft.town.locate import Town


@click.command("doctor", epilog="\b\nExamples:\n  gtft doctor --json\n  gtft doctor --fix")
@click.option("--fix", is_flag=True, help="Mend what a crash left of a deployment or rollback.")
@json_option
@click.pass_context
def command(ctx: click.Context, fix: bool, as_json: bool) -> None:
    """What is installed, what would fail, and how to mend it. Changes nothing without --fix."""
    from gtft.runner.doctor import examine
    from gtft.runner.workspace import locate_workspace

    cwd = Path.cwd()
    path = locate_workspace(ctx.find_root().obj, cwd, os.environ)
    findings = examine(path, cwd, os.environ, _list_parts, fix=fix)
    wrong = [f for f in findings if f.level == "wrong"]

    def render() -> None:
        for f in findings:
            click.echo(f"{f.level:<6} {f.about:<14} {f.text}")
            if f.fix:
                click.echo(f"{'':<21} next: {f.fix}")
        click.echo(f"{len(wrong)} wrong." if wrong else "nothing is wrong.")

    emit([f.__dict__ for f in findings], as_json, render)
    if wrong:
        ctx.exit(1)


def _list_parts(town: Town, rig: str) -> Iterator[tuple[str, str]]:
    """Each part that gtft puts into a town, and how it stands there."""
    from gtft.cli.town import list_own_parts
    from gtft.town.install import find_state, read_manifest, show_path

    manifest = read_manifest(town.root)
    for part in list_own_parts(town, rig):
        name = f"{part.name} {show_path(part.path, town.root)}"
        yield name, find_state(part, manifest.get(part.path), town.root)
