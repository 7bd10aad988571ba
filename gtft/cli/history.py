"""``gtft history``: what happened in a run; in a town also Dolt's versions of it."""

from __future__ import annotations

import click

from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option, print_table

FLATTENED = "the town's compactor flattened history; the event rows below are complete"


@click.command(
    "history",
    epilog="\b\nExamples:\n  gtft history RUN\n  gtft history RUN --at 2026-03-01T12:00:00 --json",
)
@click.argument("run")
@click.option(
    "--at", metavar="REF", help="The stages as of a commit, branch or time (UTC). Dolt only."
)
@json_option
@click.pass_context
def command(ctx: click.Context, run: str, at: str | None, as_json: bool) -> None:
    """What happened in a run: its events; in a town also the Dolt commits that name it."""
    from gtft.cli.runs import say_time
    from gtft.records.history import list_versions, read_stages_at, was_flattened
    from gtft.runner.control import get_run

    ws = open_here(ctx)
    found = get_run(ws, run)
    stages = read_stages_at(ws.store, found.id, at) if at is not None else None
    versions = list_versions(ws.store, found.id)
    flattened = was_flattened(ws.store, found.id)
    events = ws.store.list_events(found.id)
    data = {
        "run": found.id,
        "at": at,
        "stages": None if stages is None else [s.__dict__ for s in stages],
        "flattened": flattened,
        "versions": [v.__dict__ for v in versions],
        "events": [e.__dict__ for e in events],
    }

    def render() -> None:
        if at is not None and stages is None:
            click.echo(f"Dolt has no state of {at}" + ("" if flattened else ", or not any more"))
        elif at is not None:
            print_table(
                ("stage", "state", "reason", "bead", "worker", "attempt"),
                [
                    (s.stage, s.state, s.reason or "", s.bead_id, s.worker or "", s.attempt)
                    for s in stages or []
                ],
                empty=f"the run was not there at {at}",
            )
        if flattened:
            click.echo(FLATTENED)
        if versions:
            print_table(
                ("version", "when", "by", "what"),
                [(v.hash, say_time(v.at_us), v.author, v.message) for v in versions],
                empty="",
            )
        for e in events:
            text = " ".join(e.text.split())
            stage = e.stage or "run"
            click.echo(f"{say_time(e.created_us)}  {stage:<8} {e.kind:<14} {e.actor:<18} {text}")

    emit(data, as_json, render)
