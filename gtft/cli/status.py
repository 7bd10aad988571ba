"""``gtft status``: what runs, what waits, for whom, and the last words said about it."""

from __future__ import annotations

import click

from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option, print_table

NOTICES = 5


@click.command("status", epilog="\b\nExample:\n  gtft status --json")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """What runs, what waits, and for whom."""
    from gtft.cli.runs import describe_stages
    from gtft.runner.status import view_runs

    ws = open_here(ctx)
    views = view_runs(ws)
    pending = ws.store.list_messages(pending=True)
    notices = [
        {"run": m.run_id, **m.payload}
        for m in ws.store.list_messages(pending=False, kind="notice")[-NOTICES:]
    ]
    data = {
        "workspace": str(ws.path),
        "runs": [v.as_dict() for v in views],
        "undelivered": len(pending),
        "notices": notices,
    }

    def render() -> None:
        print_table(
            ("run", "role", "state", "stages", "waits for", "next"),
            [(v.id, v.role, v.state, describe_stages(v), v.waits_for, v.next) for v in views],
            empty="no runs yet. Start one: gtft run mol-gtft-quickstart",
        )
        for n in notices:
            click.echo(f"mail to {', '.join(n['to'])}: {n['subject']}")
        if pending:
            why = pending[0].last_error or "they are on their way"
            click.echo(f"not delivered yet, {len(pending)} of the outbox: {why}")

    emit(data, as_json, render)
