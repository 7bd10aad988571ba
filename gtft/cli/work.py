"""``gtft work``: claim ready training beads and carry them out."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import emit, json_option

IDLE_SECONDS = 2.0


@click.command(
    "work",
    epilog="""\b
Examples:
  gtft work --once      carry out one ready bead, if there is one
  gtft work             until nothing is ready
  gtft work --watch     and then wait for more (Ctrl-C pauses and ends)
""",
)
@click.option("--once", is_flag=True, help="One bead, then stop.")
@click.option("--watch", is_flag=True, help="Wait for more when nothing is ready.")
@as_option
@json_option
@click.pass_context
def command(ctx: click.Context, once: bool, watch: bool, actor: str | None, as_json: bool) -> None:
    """Claim ready training beads and carry them out."""
    from gtft.cli.follow import describe_outcome, follow
    from gtft.runner.execution import Outcome, carry_out, catch_up
    from gtft.runner.lease import claim_next

    if once and watch:
        raise click.UsageError("--once and --watch exclude each other.")
    ws = open_here(ctx)
    who = get_actor(actor)
    outcomes: list[Outcome] = []
    with follow(quiet=as_json) as listen:
        while True:
            catch_up(ws)
            claim = claim_next(ws, who)
            if claim is not None:
                outcome = carry_out(ws, claim, os.environ, listen)
                outcomes.append(outcome)
                if not as_json:
                    click.echo(describe_outcome(outcome))
                    if outcome.error is not None:
                        click.echo(str(outcome.error), err=True)
                if outcome.state == "paused":
                    break
            elif not watch:
                break
            else:
                try:
                    time.sleep(IDLE_SECONDS)
                except KeyboardInterrupt:
                    break
            if once:
                break
    data: list[dict[str, Any]] = [
        {
            "run": o.stage.run_id,
            "stage": o.stage.stage,
            "bead": o.stage.bead_id,
            "outcome": o.state,
            "error": o.error.as_dict() if o.error else None,
        }
        for o in outcomes
    ]

    def render() -> None:
        if not outcomes:
            click.echo("no bead is ready: gtft status")

    emit(data, as_json, render)
    failed = next((o.error for o in outcomes if o.error is not None), None)
    if failed is not None:
        ctx.exit(failed.exit_code)
