"""``gtft dispatch``: make the beads of a run; whoever works claims them."""

from __future__ import annotations

from pathlib import Path

import click

from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import emit, json_option
from gtft.cli.recipe_options import recipe_options, resolve_given


@click.command(
    "dispatch",
    epilog="""\b
Examples:
  gtft dispatch mol-gtft-quickstart            create the beads
  gtft dispatch mol-gtft-quickstart --dry-run  show what would be created
  gtft work --once                             then carry one out
""",
)
@click.argument("recipe")
@recipe_options
@as_option
@click.option("--dry-run", is_flag=True, help="Create nothing.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    recipe: str,
    variables: tuple[str, ...],
    sets: tuple[str, ...],
    overlays: tuple[str, ...],
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Create the beads of a run of RECIPE; workers claim them."""
    from gtft.runner.dispatch import TITLES, dispatch
    from gtft.runner.status import view_run

    resolved = resolve_given(recipe, variables, sets, overlays)
    role = resolved.recipe.role
    if dry_run:
        titles = [t.format(role=role) for t in TITLES.values()]
        data = {"recipe": resolved.formula, "hash": resolved.hash, "beads": titles}

        def render_plan() -> None:
            click.echo(f"would create one epic and {len(titles)} beads for {resolved.formula}:")
            for t in titles:
                click.echo(f"  {t}")

        emit(data, as_json, render_plan)
        return
    ws = open_here(ctx)
    run_id = dispatch(ws, resolved, get_actor(actor), Path.cwd())
    run = ws.store.find_run(run_id)
    assert run is not None
    view = view_run(ws, run)

    def render() -> None:
        click.echo(f"{run_id}: epic {view.epic}")
        for s in view.stages:
            click.echo(f"  {s.bead}  {s.stage}")
        click.echo(f"next: gtft work --once   (or: gtft run {run_id})")

    emit(view.as_dict(), as_json, render)
