"""``gtft rollback``: a role back on what ran it before, from the journal alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.cli.context import find_workspace
from gtft.cli.output import emit, json_option
from gtft.errors import GtftError

if TYPE_CHECKING:
    from gtft.runner.switch import Journal


_LOCK_SECONDS = 10.0


@click.command(
    "rollback",
    epilog="""\b
Examples:
  gtft rollback                              what is in service, where it is one
  gtft rollback --role witness --rig gizmo
  gtft rollback --role witness --to witness-0c1d2e3f4a5b    to an earlier model of the role
""",
)
@click.option("--role", default="", help="The role, where more than one is served.")
@click.option("--rig", default=None, help='Of this rig ("" = of the whole town).')
@click.option("--to", metavar="MODEL", default="", help="An earlier model of the role instead.")
@click.option("--why", default="by hand", help="The reason, for the record.")
@click.option("--force", default="", help="With --to: why it may though its figures say no.")
@click.option("--as", "actor", metavar="ACTOR", help="Who acts.")
@click.option("--dry-run", is_flag=True, help="Say what would be put back.")
@click.option("--yes", is_flag=True, help="With --to: do not ask.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    role: str,
    rig: str | None,
    to: str,
    why: str,
    force: str,
    actor: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Put a role's files back as they were before gtft served it, whatever mode or model came in between.

    Works while the store is away. Agents that run go on, and the server hands what they ask to who answered before;
    those that start from now on are the previous ones.
    """
    if not to:
        take_out_here(ctx, "", role, rig, "rolled-back", why, actor, as_json, dry_run=dry_run)
        return
    from gtft.cli.context import open_here
    from gtft.cli.deployment import Asked, deploy_earlier
    from gtft.runner.switch import find_in_service

    journal = find_in_service(find_workspace(ctx), "", role, rig)
    asked = Asked(
        model=to,
        role=journal.role,
        mode=journal.mode,
        rig=journal.rig,
        force=force,
        actor=actor,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )
    deploy_earlier(open_here(ctx), to, journal, asked)


def take_out_here(
    ctx: click.Context,
    deployment: str,
    role: str,
    rig: str | None,
    reason: Any,
    why: str,
    actor: str | None,
    as_json: bool,
    *,
    dry_run: bool = False,
) -> None:
    """Files and route first; then the store is told, or it stays in the journal until it can be."""
    from gtft.cli.context import get_actor
    from gtft.runner.switch import Removal, find_in_service, hash_bytes, remove
    from gtft.runner.switch_lock import lock_deploy
    from gtft.town.settings import read_bytes

    workspace = find_workspace(ctx)
    journal = find_in_service(workspace, deployment, role, rig)
    if dry_run:
        planned: dict[str, Any] = {"deployment": journal.deployment}
        planned["files"] = [e.path for e in journal.files]
        emit(planned, as_json, lambda: _say(journal, "would be"))
        return
    text, at = why, int(time.time() * 1e6)
    removal = Removal(reason=reason, text=text, actor=get_actor(actor), at_us=at)
    # A sweep or a doctor at work is through in less.
    with lock_deploy(workspace, seconds=_LOCK_SECONDS):
        # As it is now that nobody else switches.
        journal = find_in_service(workspace, journal.deployment, role, rig)
        off, notes = remove(workspace, journal, removal)
        root = Path(os.path.normpath(workspace / off.root))
        files = [
            {"path": e.path, "sha256": hash_bytes(read_bytes(root / e.path))} for e in off.files
        ]
        if not as_json:
            _say(off, "is")
            for note in notes:
                click.echo(f"  {note}")
        waits = _tell_store(ctx, off)
    data = {
        "deployment": off.deployment,
        "model": off.model,
        "role": off.role,
        "rig": off.rig,
        "files": files,
        "notes": notes,
        "store": waits or "told",
    }
    emit(data, as_json, lambda: _say_store(waits, off, root))


def _say(journal: Journal, verb: str) -> None:
    files = ", ".join(e.path for e in journal.files)
    what = f"back as before: {files}" if files else "no file of the town was changed by it"
    click.echo(f"{journal.model} {verb} out of service for {journal.where}; {what}")


def _say_store(waits: str, journal: Journal, root: Path) -> None:
    from gtft.town.locate import read_town
    from gtft.town.role import say_restart

    if journal.mode == "live":
        try:
            town = read_town(root)
        except GtftError:
            town = None
        said = "" if journal.in_city else say_restart(journal.role, journal.rig, town)
        click.echo(f"It takes effect for agents that start from now on. {said}".rstrip())
    if waits:
        click.echo(
            f"The store was not told yet ({waits}): gtft sweep, or gtft doctor --fix, does it."
        )


def _tell_store(ctx: click.Context, journal: Journal) -> str:
    """Why the store could not be told, "" when it was: the town is back already, and that is what counts."""
    from gtft.cli.context import open_here
    from gtft.runner.outbox import deliver
    from gtft.runner.rollback import finish_removal

    try:
        ws = open_here(ctx)
        finish_removal(ws, journal)
        deliver(ws)
    except GtftError as e:
        return e.what
    return ""
