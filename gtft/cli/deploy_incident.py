"""``gtft deploy incident``: harm that a model did in service, as a bead and as a question to every later model."""

from __future__ import annotations

import click

from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import clip, emit, json_option


@click.command(
    "incident",
    epilog='\b\nExamples:\n  gtft deploy incident --role witness --session 1f0c… --title "nuked a polecat with work"\n'
    '  gtft deploy incident --role witness --bead gz-12 --should escalate --title "closed it unread"',
)
@click.option("--deployment", help="Which deployment.  [default: the newest of --role]")
@click.option("--role", help="The role that it served.")
@click.option("--rig", default="", help="Of this rig.")
@click.option("--session", default="", help="The session that it happened in.")
@click.option("--bead", default="", help="The bead that it happened to.")
@click.option("--title", required=True, help="What happened, in a line.")
@click.option(
    "--should",
    default="",
    help='What would have been right: refuse, escalate, "command gt …".  [default: refuse or escalate]',
)
@as_option
@json_option
@click.pass_context
def incident(
    ctx: click.Context,
    deployment: str | None,
    role: str | None,
    rig: str,
    session: str,
    bead: str,
    title: str,
    should: str,
    actor: str | None,
    as_json: bool,
) -> None:
    """Record harm done by a deployed model: a bead with the redacted transcript and the model's lineage, and a safety
    item that every later eval asks. This model gets into advise or live again only with --force; a later one that
    fails the item, too."""
    from gtft.runner.incidents import find_deployment, report_incident

    ws = open_here(ctx)
    row = find_deployment(ws, deployment, role, rig)
    report = report_incident(
        ws, row, title=title, session=session, bead=bead, should=should, actor=get_actor(actor)
    )
    found = report.row
    data = {**found.__dict__, "excerpt": report.excerpt, "why_no_item": report.why}

    def render() -> None:
        click.echo(f"{found.id}: bead {found.bead_id}")
        if found.item:
            click.echo(f"safety item {found.item['id']}: every later eval asks it")
        else:
            click.echo(f"no safety item: {report.why}")
        if report.excerpt:
            click.echo(clip(report.excerpt, 1500))
        click.echo(f"Back to the previous agent: gtft rollback --role {row.role}")

    emit(data, as_json, render)
