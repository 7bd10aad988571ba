"""``gtft sweep``: seconds of housekeeping, for a dog or a cron job."""

from __future__ import annotations

import click

from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option


@click.command(
    "sweep",
    epilog="\b\nExamples:\n  gtft sweep            do it\n  gtft sweep --dry-run  say what it would do",
)
@click.option("--dry-run", is_flag=True, help="Say what it would do; do nothing.")
@json_option
@click.pass_context
def command(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Deliver what waits, resume a run that lost its runner, remind, retrain when it is time.

    Done in seconds: it starts runners, it never trains. One sweep at a time.
    """
    from gtft.runner.box import survey_box
    from gtft.runner.detached import start_runner
    from gtft.runner.sweep import lock_sweep, sweep

    ws = open_here(ctx)
    with lock_sweep(ws.path) as ours:
        actions = sweep(ws, survey_box(ws.path), start_runner, dry_run=dry_run) if ours else []

    def render() -> None:
        if not ours:
            click.echo("another sweep is at work; this one has nothing to do")
            return
        for a in actions:
            would = "would be " if dry_run and a.what not in ("waits", "undelivered") else ""
            click.echo(f"{would}{a.what}: {a.run + ': ' if a.run else ''}{a.text}")
        if not actions:
            click.echo("nothing to do")

    data = {"ours": ours, "dry_run": dry_run, "actions": [a.as_dict() for a in actions]}
    emit(data, as_json, render)
