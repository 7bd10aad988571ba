"""``gtft sweep``: seconds of housekeeping, for a dog or a cron job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option

if TYPE_CHECKING:
    from gtft.runner.sweep import Action
    from gtft.runner.workspace import Workspace


@click.command(
    "sweep",
    epilog="\b\nExamples:\n  gtft sweep            do it\n  gtft sweep --dry-run  say what it would do",
)
@click.option("--dry-run", is_flag=True, help="Say what it would do; do nothing.")
@json_option
@click.pass_context
def command(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Mend deployments, deliver what waits, resume a run that lost its runner, remind, look after what is in service,
    retrain and expire when it is time.

    Done in seconds: it starts runners, it never trains. One sweep at a time.
    """
    from gtft.runner.box import survey_box
    from gtft.runner.detached import start_runner
    from gtft.runner.sweep import lock_sweep, sweep

    ws = open_here(ctx)
    with lock_sweep(ws.path) as ours:
        actions = sweep(ws, survey_box(ws.path), start_runner, dry_run=dry_run) if ours else []
        if ours:
            actions += _expire(ws, dry_run)

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


def _expire(ws: Workspace, dry_run: bool) -> Iterator[Action]:
    """Models whose age or whose town's drift passed their recipe's limits; nothing is deleted."""
    from gtft.models.freshness import expire_models
    from gtft.runner.sweep import Action
    from gtft.town.conventions import read_conventions

    if not ws.store.list_models():
        return
    conventions = read_conventions(ws.home.town, ws.environ) if ws.home is not None else None
    now_us = ws.store.now_us()
    for m in expire_models(ws.store, now_us=now_us, conventions=conventions, dry_run=dry_run):
        told = f"{m.model.name}: {'; '.join(m.reasons)}"
        if m.to:
            yield Action(m.to, m.model.run_id, told)
        else:
            yield Action("waits", m.model.run_id, f"{told}; it serves, and stays deployed")
