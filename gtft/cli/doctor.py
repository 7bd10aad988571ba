"""``gtft doctor``: what is installed, what would fail, and how to mend it."""

from __future__ import annotations

import click

from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option


@click.command("doctor", epilog="\b\nExample:\n  gtft doctor --json")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """What is installed, what would fail, and how to mend it. Changes nothing."""
    from gtft.runner.doctor import examine

    findings = examine(open_here(ctx))
    wrong = [f for f in findings if f.level == "wrong"]

    def render() -> None:
        for f in findings:
            click.echo(f"{f.level:<6} {f.about:<14} {f.text}")
            if f.fix:
                click.echo(f"{'':<21} next: {f.fix}")
        click.echo("nothing is wrong." if not wrong else f"{len(wrong)} things are wrong.")

    emit([f.__dict__ for f in findings], as_json, render)
    if wrong:
        ctx.exit(1)
