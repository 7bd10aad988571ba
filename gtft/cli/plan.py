"""``gtft plan``: what a run will need on this box, and whether it fits; nothing is created."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option
from gtft.cli.recipe_options import recipe_options, resolve_given

if TYPE_CHECKING:
    from gtft.artifact import Artifact
    from gtft.corpus.survey import SourceSize
    from gtft.recipe.resolve import Resolved
    from gtft.runner.budget import Probe
    from gtft.runner.launch import Figure, Launch
    from gtft.runner.workspace import Workspace

# The recipe does not fit as it is.
NO_FIT_EXIT = 1


@click.command(
    "plan",
    epilog="""\b
Examples:
  gtft plan mol-gtft-quickstart
  gtft plan mol-gtft-finetune --var transcripts=DIR --set base.model=./llama-1b
  gtft plan mol-gtft-quickstart --corpus 599322 --probe    measured: a minute of real steps
  gtft plan mol-gtft-quickstart --json
\b
Exits with 0 when it fits or when that is not known, with 1 when it does not fit as it is.
""",
)
@click.argument("recipe")
@recipe_options
@click.option(
    "--corpus",
    metavar="CORPUS",
    help="Plan on this corpus (the start of its id), not on the sources.",
)
@click.option(
    "--probe", "probing", is_flag=True, help="Measure speed and memory: real steps, a minute."
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    recipe: str,
    variables: tuple[str, ...],
    sets: tuple[str, ...],
    overlays: tuple[str, ...],
    corpus: str | None,
    probing: bool,
    as_json: bool,
) -> None:
    """Say what a run of RECIPE will need: tokens, updates, time, memory, disk."""
    from gtft.corpus.survey import survey_sources
    from gtft.runner.dispatch import find_sources_root
    from gtft.runner.launch import plan_launch

    ws = find_here(ctx)
    resolved = resolve_given(recipe, variables, sets, overlays)
    root = find_sources_root(ws, Path.cwd()) if ws is not None else Path.cwd()
    given = _find_corpus(ctx, corpus) if corpus else None
    data = survey_sources(resolved.recipe.harvest.sources, root) if given is None else ()

    def look(probe: Probe | None) -> Launch:
        return plan_launch(
            ws,
            resolved,
            root=root,
            disk_at=ws.path if ws is not None else Path.cwd(),
            source_bytes=sum(s.bytes for s in data),
            corpus=given,
            probe=probe,
        )

    launch = look(None)
    if probing:
        from gtft.runner.probe import run_probe

        ws = ws or open_here(ctx)
        if not as_json:
            click.echo("probing: a few real steps, about a minute …", err=True)
        on = launch.plan.checkpointing
        launch = look(run_probe(ws, resolved.recipe, root, given, os.environ, checkpointing=on))
    body = {"data": [s.as_dict() for s in data], **launch.as_dict()}
    emit(body, as_json, lambda: show_launch(resolved, data, launch))
    if launch.verdict.word in ("fits if", "does not fit"):
        ctx.exit(NO_FIT_EXIT)


def find_here(ctx: click.Context) -> Workspace | None:
    """The workspace; None where there is none yet: a plan makes nothing."""
    from gtft.runner.workspace import locate_workspace

    path = locate_workspace(ctx.find_root().obj, Path.cwd(), os.environ)
    return open_here(ctx) if (path / "config.toml").exists() else None


def _find_corpus(ctx: click.Context, given: str) -> Artifact:
    from gtft.cli.context import find_artifacts
    from gtft.shelf import find_on_shelf

    return find_on_shelf(find_artifacts(ctx), "corpus", given)


def show_launch(resolved: Resolved, data: tuple[SourceSize, ...], launch: Launch) -> None:
    """The summary for people, a line for each figure; `gtft dispatch` shows the same."""
    from gtft.artifact import short_id

    scope = ", ".join(launch.scope) or "every rig that the sources hold"
    click.echo(f"recipe   {launch.formula} ({short_id(launch.hash)}) for role {launch.role}")
    click.echo(f"scope    {scope}")
    click.echo(f"base     {launch.base}")
    for s in data:
        newest = time.strftime("%Y-%m-%d %H:%M", time.localtime(s.newest))
        click.echo(f"data     {s.type} {s.path}: {_say_data(s)}, newest {newest}")
    plan = launch.plan
    about = "about " if "tokens" in plan.rough else ""
    click.echo(
        f"tokens   {about}{plan.tokens:,} in {plan.updates} updates, {plan.rows} rows "
        f"({plan.sources['tokens']})"
    )
    for stage, figure in launch.stages.items():
        click.echo(f"time     {stage}: {_say_figure(figure, _say_time)}")
    click.echo(f"memory   {_say_figure(launch.memory, _say_size)}")
    click.echo(f"disk     {_say_figure(launch.disk, _say_size)}")
    for line in launch.box.describe():
        click.echo(f"box      {line}")
    for line in launch.warnings:
        click.echo(f"warning  {line}")
    verdict = launch.verdict
    click.echo(f"verdict  {verdict.word}" + (":" if verdict.remedies else ""))
    for remedy in verdict.remedies:
        click.echo(f"         {remedy.how}: {remedy.text}")


def _say_data(s: SourceSize) -> str:
    counted = f"{s.count} {s.unit} in " if s.unit != "files" else ""
    return f"{counted}{s.files} files, {_say_size(s.bytes)}"


def _say_figure(figure: Figure, say: Any) -> str:
    if figure.low is None:
        return f"not known: {figure.source}"
    if figure.high is None:
        return f"at least {say(figure.low)} ({figure.source})"
    low, high = say(figure.low), say(figure.high)
    return f"{low if low == high else f'{low} to {high}'} ({figure.source})"


def _say_time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _say_size(size: float) -> str:
    from gtft.runner.box import say_size

    return say_size(size)
