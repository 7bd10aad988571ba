"""``gtft deploy watch``: look after what is deployed, once or for as long as it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from gtft.cli.context import open_here
from gtft.cli.deploy_figures import word_figures
from gtft.cli.output import emit, json_option

if TYPE_CHECKING:
    from gtft.runner.watching import Looked

_EVERY_S = 60.0


@click.command(
    "watch",
    epilog="\b\nExamples:\n  gtft deploy watch --once\n  gtft deploy watch --role witness --once --json",
)
@click.option("--role", help="Of this role only.")
@click.option("--once", is_flag=True, help="One look, then end. (The sweep does this.)")
@click.option(
    "--seconds", type=click.FloatRange(min=0), help="Longest asking in a look.  [default: 300]"
)
@json_option
@click.pass_context
def watch(
    ctx: click.Context, role: str | None, once: bool, seconds: float | None, as_json: bool
) -> None:
    """Ask beside today's agents, compare, take figures, and roll back what is beyond a limit of its recipe.

    Shadow: the model answers what the role's sessions since were asked; nobody acts on it. What was asked once is not
    asked again. Without --once it looks every minute until you stop it.
    """
    from gtft.runner.outbox import deliver
    from gtft.runner.watching import LOOK_S, list_active, lock_watch, look_after

    ws = open_here(ctx)
    while True:
        found: list[Looked] = []
        with lock_watch(ws) as ours:
            if ours:
                for row in list_active(ws, role):
                    left = LOOK_S if seconds is None else seconds
                    found.append(look_after(ws, row, seconds=left))
                deliver(ws)

        def render(looked: list[Looked] = found, mine: bool = ours) -> None:
            _render(looked, mine)

        emit({"ours": ours, "looked": [f.as_dict() for f in found]}, as_json, render)
        if once:
            return
        time.sleep(_EVERY_S)


def _render(found: list[Looked], ours: bool) -> None:
    if not ours:
        click.echo("another look is at work; this one has nothing to do")
    elif not found:
        click.echo("nothing is deployed")
    for one in found:
        d = one.deployment
        click.echo(f"{d.id}: {d.mode} for {d.role}{' of ' + d.rig if d.rig else ''}")
        for what, text in word_figures(one.figures):
            click.echo(f"  {what}: {text}")
        if one.breach:
            done = "taken back" if one.rolled_back else one.error or "it had ended already"
            click.echo(f"  beyond a limit, {done}: {one.breach[0]}: {one.breach[1]}")
        elif one.error and "error" not in one.figures:
            click.echo(f"  the comparison by beads goes on: {one.error}")
