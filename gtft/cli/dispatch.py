"""``gtft dispatch``: what a run will need, then its beads; whoever works claims them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from gtft.cli.context import as_option, check_harvest, get_actor, open_here
from gtft.cli.output import emit, json_option
from gtft.cli.plan import find_here, show_launch
from gtft.cli.recipe_options import recipe_options, resolve_given
from gtft.errors import UsageError


@click.command(
    "dispatch",
    epilog="""\b
Examples:
  gtft dispatch mol-gtft-quickstart            the summary, a question, the beads
  gtft dispatch mol-gtft-quickstart --dry-run  the summary only
  gtft dispatch mol-gtft-mine --rig gizmo --role witness --yes --sling
""",
)
@click.argument("recipe")
@recipe_options
@click.option("--rig", metavar="RIG", help="Whose data: scope = rig:RIG, or the variable rig.")
@click.option("--role", metavar="ROLE", help="The role that the model is for.")
@click.option("--yes", is_flag=True, help="Create the beads without asking.")
@click.option("--sling", is_flag=True, help="Then give the run to a polecat (gt sling).")
@as_option
@click.option("--dry-run", is_flag=True, help="The summary only; create nothing.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    recipe: str,
    variables: tuple[str, ...],
    sets: tuple[str, ...],
    overlays: tuple[str, ...],
    rig: str | None,
    role: str | None,
    yes: bool,
    sling: bool,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Say what a run of RECIPE will need, ask, and create its beads."""
    from gtft.corpus.survey import survey_sources
    from gtft.runner.dispatch import TITLES, dispatch, find_sources_root
    from gtft.runner.launch import plan_launch
    from gtft.runner.planned import record_plan
    from gtft.runner.sling import check_sling, sling_run
    from gtft.runner.status import view_run

    ws = find_here(ctx) if dry_run else open_here(ctx)
    if rig is not None and ws is not None and ws.home is not None:
        ws.home.town.rig(rig)
    more_variables, more_sets = _scope(recipe, rig, role)
    resolved = resolve_given(recipe, (*variables, *more_variables), (*sets, *more_sets), overlays)
    check_harvest(ws, resolved.recipe, get_actor(actor))
    root = find_sources_root(ws, Path.cwd()) if ws is not None else Path.cwd()
    data = survey_sources(resolved.recipe.harvest.sources, root)
    launch = plan_launch(
        ws,
        resolved,
        root=root,
        disk_at=ws.path if ws is not None else Path.cwd(),
        source_bytes=sum(s.bytes for s in data),
    )
    titles = [t.format(role=resolved.recipe.role) for t in TITLES.values()]
    summary = {"data": [s.as_dict() for s in data], **launch.as_dict(), "beads": titles}
    if not as_json:
        show_launch(resolved, data, launch)
        click.echo(f"beads    one epic and {len(titles)}: {'; '.join(titles)}")
    if ws is None or dry_run:
        emit(summary, as_json, lambda: click.echo("nothing was created (--dry-run)"))
        return
    if sling:
        check_sling(ws, os.environ)
    if not yes and not _ask(as_json):
        click.echo("nothing was created")
        return
    run_id = dispatch(ws, resolved, get_actor(actor), root)
    record_plan(ws, run_id, None, launch.planned, get_actor(actor))
    run = ws.store.find_run(run_id)
    assert run is not None
    view = view_run(ws, run)
    slung = sling_run(ws, run, os.environ) if sling else None

    def render() -> None:
        click.echo(f"{run_id}: epic {view.epic}")
        for s in view.stages:
            click.echo(f"  {s.bead}  {s.stage}")
        if slung is not None:
            click.echo(slung.text)
            click.echo(f"next: gtft runs show {run_id}")
        else:
            click.echo(f"next: gtft work --once   (or: gtft run {run_id})")

    emit(
        {**view.as_dict(), "launch": summary, "slung": slung.as_dict() if slung else None},
        as_json,
        render,
    )


def _scope(recipe: str, rig: str | None, role: str | None) -> tuple[list[str], list[str]]:
    """``--rig`` and ``--role`` as (``--var``, ``--set``): the formula's variable of that name, else the key."""
    from gtft.recipe.find import find_formula, search_folders
    from gtft.recipe.formula import read_formula

    variables: list[str] = []
    sets: list[str] = []
    if rig is None and role is None:
        return variables, sets
    formula = read_formula(find_formula(recipe, search_folders(Path.cwd())))
    declared = {v.name for v in formula.vars}
    for name, value, key in (
        ("rig", rig, f'scope=["rig:{rig}"]'),
        ("role", role, f'role="{role}"'),
    ):
        if value is None:
            continue
        if '"' in value or "\\" in value:
            raise UsageError(f"--{name} {value}: that is no name of a {name}")
        if name in declared:
            variables.append(f"{name}={value}")
        else:
            sets.append(key)
    return variables, sets


def _ask(as_json: bool) -> bool:
    """True when the beads are wanted. Raises UsageError when nobody is there to be asked."""
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            "nobody can be asked whether to create the beads",
            why="--json was given" if as_json else "this is not a terminal",
            fix="add --yes, or --dry-run for the summary only",
        )
    return click.confirm("create the beads?", default=False)
