"""``gtft town``: status, install, uninstall."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft import __version__
from gtft.cli.output import emit, json_option, print_table
from gtft.errors import ConflictError, TownError, UsageError

if TYPE_CHECKING:
    from gtft.town.install import Change, Plan
    from gtft.town.locate import Town
    from gtft.town.parts import Part

DEFAULT_RIG = "finetune"
TOOLS = ("gt", "bd", "dolt")

yes_option = click.option("--yes", is_flag=True, help="Do it without asking.")
dry_option = click.option("--dry-run", is_flag=True, help="Show the diff; change nothing.")


@click.group(invoke_without_command=True, epilog="Example: gtft town install --rig finetune")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """The town around gtft: what of gtft is in it."""
    if ctx.invoked_subcommand is None:
        _status(as_json)


@command.command(epilog="Example: gtft town status --json")
@json_option
def status(as_json: bool) -> None:
    """Each part: installed, absent, older, or changed by hand; rig, database, server, versions."""
    _status(as_json)


@command.command(
    epilog="""\b
Examples:
  gtft town install                  the diff, a question, the parts
  gtft town install --dry-run        the diff only
  gtft town install --rig finetune --yes
"""
)
@click.option(
    "--rig",
    metavar="RIG",
    help=f"Whose database keeps gtft's state.  [default: the linked one, else {DEFAULT_RIG}]",
)
@click.option("--force", is_flag=True, help="Overwrite parts that were changed by hand, too.")
@yes_option
@dry_option
@json_option
def install(rig: str | None, force: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Put formulas, plugin, directives, hooks and the workspace's link into this town.

    Nothing that gtft does not own is touched; gtft town uninstall takes all of it out again.
    """
    from gtft.town.install import apply_install, plan_install
    from gtft.town.parts import read_link

    town = _find_town()
    linked = read_link(town.home / "config.toml")
    rig = rig or linked or DEFAULT_RIG
    if not town.rig(rig).database:
        raise TownError(
            f"the rig {rig} has no bead database yet",
            why=f"{town.rig(rig).beads_dir} names none",
            fix="gt doctor --fix",
        )
    if linked is None:
        _refuse_own_runs(town.home / "gtft.db", rig)
    plan = plan_install(town.root, list_own_parts(town, rig), rig, __version__, force=force)
    if _agree(plan, town, "Put them into the town?", "Nothing to do.", yes, dry_run, as_json):
        apply_install(town.root, plan)
    after = "Installed. Next: gtft town status" if plan.work and not dry_run else ""
    _tell(plan, town, after, as_json)


@command.command(epilog="Example: gtft town uninstall --dry-run")
@click.option("--force", is_flag=True, help="Remove parts that were changed by hand, too.")
@yes_option
@dry_option
@json_option
def uninstall(force: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Take all of it out: what was there before is there again, to the byte.

    Runs, artifacts, recorded sessions and what is in the rig's database stay.
    """
    from gtft.town.install import apply_uninstall, plan_uninstall
    from gtft.town.parts import list_settings

    town = _find_town()
    if not dry_run:
        _refuse_live_workers(town)
        _refuse_deployed(town)
    plan = plan_uninstall(town.root, list_settings(town), force=force)
    if plan.manifest.puts is None and not plan.work:
        emit(
            {"changes": [], "kept": []}, as_json, lambda: click.echo("gtft is not installed here.")
        )
        return
    nothing = "No file is left to change."
    if _agree(plan, town, "Take them out?", nothing, yes, dry_run, as_json):
        apply_uninstall(town.root, plan)
    left = f"; runs and recorded sessions stay in {town.home}" if town.home.exists() else ""
    _tell(plan, town, "" if dry_run else f"Uninstalled{left}.", as_json)


def _find_town() -> Town:
    from gtft.town.locate import find_root, read_town

    root = find_root(Path.cwd(), os.environ)
    if root is None:
        raise TownError(
            "this folder is in no town",
            why="no mayor/town.json here or above, and GT_ROOT names none",
            fix="cd to the town, then again",
        )
    return read_town(root)


def list_own_parts(town: Town, rig: str) -> tuple[Part, ...]:
    """Every part that this gtft has for this town."""
    from gtft.recipe.find import list_formulas, shipped_folder
    from gtft.town.parts import PLUGIN, list_parts

    formulas = shipped_folder()
    # In a checkout and in a wheel alike, plugins/ and hooks/ stand beside formulas/.
    plugin, hook = formulas.parent / "plugins" / PLUGIN, formulas.parent / "hooks" / "on_close"
    return list_parts(town, rig, list_formulas([formulas]), plugin, hook, os.environ)


def _refuse_own_runs(store: Path, rig: str) -> None:
    """A workspace that already has runs of its own is moved, never forgotten."""
    if not store.is_file():
        return
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as c:
            (count,) = c.execute("SELECT count(*) FROM gtft_runs").fetchone()
    except sqlite3.Error as e:
        raise ConflictError(f"{store} cannot be read", why=str(e), fix="gtft doctor") from e
    if count:
        raise ConflictError(
            f"this town's workspace has {count} runs in a store of its own",
            why="linking it to a rig now would hide them",
            fix=f"gtft store move --rig {rig}, then: gtft town install --rig {rig}",
        )


def _refuse_live_workers(town: Town) -> None:
    """Without the link nobody could pause or even see a run that goes on."""
    from gtft.contract import LOCK_FILE
    from gtft.runner.process import is_locked

    for lock in sorted((town.home / "runs").glob(f"*/*/{LOCK_FILE}")):
        if is_locked(lock.parent):
            run, stage = lock.parts[-3:-1]
            raise ConflictError(
                f"{stage} of {run} is being worked on",
                why="uninstalled, gtft would not see its run any more",
                fix=f"gtft runs pause {run} (or cancel), then: gtft town uninstall",
            )


def _refuse_deployed(town: Town) -> None:
    """A role that runs on a model is started through gtft."""
    from gtft.runner.switch import list_journals

    for j in list_journals(town.home):
        where = f"--role {j.role}{' --rig ' + j.rig if j.rig else ''}"
        raise ConflictError(
            f"{j.model} is in service for {j.where} ({j.mode})",
            why="uninstalled, gtft could not put the role back",
            fix=f"gtft rollback {where}, then: gtft town uninstall",
        )


def _agree(
    plan: Plan,
    town: Town,
    question: str,
    nothing: str,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Show the diff and ask. True when the plan is to be carried out."""
    if not as_json:
        for change in plan.work:
            click.echo(change.diff(town.root), nl=False)
        for change in plan.kept:
            click.echo(f"kept      {_show(change, town)}: {change.note}")
        if not plan.work:
            click.echo(nothing)
    if dry_run:
        return False
    if plan.work and not yes:
        if as_json:
            raise click.UsageError("--json asks nothing: give --yes or --dry-run.")
        try:
            agreed = click.confirm(f"{len(plan.work)} files. {question}")
        except click.Abort as e:
            click.echo()
            raise UsageError(
                "nothing was changed: nobody answered",
                fix="add --yes, or --dry-run for the diff only",
            ) from e
        if not agreed:
            raise click.Abort()
    return True


def _tell(plan: Plan, town: Town, after: str, as_json: bool) -> None:
    def describe(changes: Sequence[Change]) -> list[dict[str, Any]]:
        return [
            {
                "part": c.name,
                "path": _show(c, town),
                "was": c.state,
                "note": c.note,
                "diff": c.diff(town.root),
            }
            for c in changes
        ]

    data = {"changes": describe(plan.work), "kept": describe(plan.kept)}
    emit(data, as_json, lambda: click.echo(after) if after else None)


def _show(change: Change, town: Town) -> str:
    path = change.path
    return str(path.relative_to(town.root) if path.is_relative_to(town.root) else path)


def _status(as_json: bool) -> None:
    from gtft.tool import find_tool, run_tool
    from gtft.town.install import find_state, read_manifest
    from gtft.town.locate import find_server
    from gtft.town.parts import read_link

    town = _find_town()
    linked = read_link(town.home / "config.toml")
    manifest = read_manifest(town.root)
    server = find_server(town, os.environ)
    rig = next((r for r in town.rigs if r.name == (linked or manifest.rig or DEFAULT_RIG)), None)
    try:
        with socket.create_connection((server.host, server.port), timeout=2):
            reachable = True
    except OSError:
        reachable = False
    versions = {"gtft": __version__}
    for name in TOOLS:
        versions[name] = "absent"
        if find_tool(name, os.environ):
            ran = run_tool(name, "version", environ=os.environ, cwd=town.root)
            versions[name] = (ran.stdout.splitlines() or ["does not answer"])[0]
    parts = [
        {
            "part": p.name,
            "path": str(
                p.path.relative_to(town.root) if p.path.is_relative_to(town.root) else p.path
            ),
            "state": find_state(p, manifest.get(p.path), town.root),
        }
        for p in list_own_parts(town, linked or manifest.rig or DEFAULT_RIG)
    ]
    data = {
        "town": {"name": town.name, "root": str(town.root)},
        "rig": rig.name if rig else None,
        "linked": linked is not None,
        "database": rig.database if rig else None,
        "server": {"host": server.host, "port": server.port, "reachable": reachable},
        "versions": versions,
        "installed_by": manifest.version or None,
        "parts": parts,
    }

    def render() -> None:
        state = "reachable" if reachable else "not reachable"
        click.echo(f"town      {town.name}  {town.root}")
        click.echo(f"rig       {data['rig'] or 'none'}{'' if linked else ' (not linked)'}")
        click.echo(
            f"database  {data['database'] or 'none'} at {server.host}:{server.port}, {state}"
        )
        click.echo(f"versions  {', '.join(f'{k} {_number(v)}' for k, v in versions.items())}")
        click.echo()
        rows = [(p["part"], p["path"], p["state"]) for p in parts]
        print_table(("part", "path", "state"), rows, "")
        if any(p["state"] in ("absent", "older") for p in parts):
            click.echo("\nNext: gtft town install")

    emit(data, as_json, render)


def _number(version: str) -> str:
    """``bd version 1.0.5 (dev)`` → ``1.0.5``."""
    return next((w for w in version.split() if w[:1].isdigit()), version)
