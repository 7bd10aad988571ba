"""``gtft run``: a recipe, a run or a bead, up to where somebody must decide."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.cli.context import as_option, check_harvest, get_actor, open_here
from gtft.cli.output import emit, json_option
from gtft.cli.recipe_options import recipe_options, resolve_given
from gtft.errors import PAUSED_EXIT, GtftError, WorkerFailed

if TYPE_CHECKING:
    from gtft.records.rows import Run
    from gtft.runner.workspace import Workspace


@click.command(
    "run",
    epilog="""\b
Examples:
  gtft run mol-gtft-quickstart                 a whole run on the sample town
  gtft run mol-gtft-finetune --var transcripts=DIR   with the recipe's variables
  gtft run run-1122-051641                     go on with a run (an id's beginning is enough)
  gtft run ft-1.2                              go on with the run of a bead
  gtft run ft-1.2 --detach                     in the background; it outlives this terminal
\b
Inside a Gas Town agent's session (GT_ROLE is set) it always detaches: training outlives the agent.
""",
)
@click.argument("target", metavar="RECIPE|RUN|BEAD")
@recipe_options
@as_option
@json_option
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--detach", is_flag=True, help="Go on in the background and return.")
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    variables: tuple[str, ...],
    sets: tuple[str, ...],
    overlays: tuple[str, ...],
    actor: str | None,
    as_json: bool,
    quiet: bool,
    detach: bool,
) -> None:
    """Run a recipe, or go on with a run, up to where somebody must decide."""
    from gtft.cli.follow import describe_outcome, follow
    from gtft.runner.control import is_finished, resume
    from gtft.runner.detached import is_agent
    from gtft.runner.dispatch import dispatch, find_sources_root
    from gtft.runner.execution import catch_up, run_through
    from gtft.runner.status import view_run

    ws = open_here(ctx)
    who = get_actor(actor)
    run = _find_run(ws, target)
    if run is None:
        resolved = resolve_given(target, variables, sets, overlays)
        check_harvest(ws, resolved.recipe, who)
        run_id = dispatch(ws, resolved, who, find_sources_root(ws, Path.cwd()))
        if not as_json:
            click.echo(
                f"run {run_id} of {resolved.formula} for role {resolved.recipe.role}", err=True
            )
    else:
        if variables or sets or overlays:
            raise click.UsageError(
                "--var, --set and --overlay belong to a new run; a run keeps its recipe."
            )
        run_id = run.id
        catch_up(ws)
        if not is_finished(ws, run):
            resume(ws, run, who)
    if detach or is_agent(os.environ):
        _detach(ws, run_id, who, as_json)
        return
    with follow(quiet=quiet or as_json) as listen:
        outcome = run_through(ws, run_id, who, os.environ, listen)
    fresh = ws.store.find_run(run_id)
    assert fresh is not None
    view = view_run(ws, fresh)
    data: dict[str, Any] = {"run": view.as_dict(), "outcome": outcome.state if outcome else "none"}
    error: GtftError | None = outcome.error if outcome and outcome.state == "failed" else None
    if error is not None:
        raise error

    def render() -> None:
        if outcome is None:
            click.echo(f"nothing to do now: {run_id} is {view.state}; next: {view.next}")
        elif outcome.state == "done" and view.state == "done":
            click.echo(f"{run_id} is done. Its model: gtft model list")
        else:
            click.echo(describe_outcome(outcome))

    emit(data, as_json, render)
    if outcome is not None and outcome.state == "paused":
        ctx.exit(PAUSED_EXIT)


def _detach(ws: Workspace, run_id: str, who: str, as_json: bool) -> None:
    """Have a runner of its own session carry the run, unless one does; say what is so."""
    from gtft.runner.control import get_run
    from gtft.runner.detached import (
        find_runner,
        log_path,
        read_log_tail,
        start_runner,
        wait_for_start,
    )
    from gtft.runner.status import view_run

    holder = find_runner(ws, run_id)
    view = view_run(ws, get_run(ws, run_id))
    waits = view.state.startswith(("review", "done"))
    pid: int | None = None
    if holder is None and not waits:
        pid = start_runner(ws, run_id, who)
        if not wait_for_start(ws, run_id, pid):
            raise WorkerFailed(
                f"the runner of {run_id} did not start",
                why=read_log_tail(ws, run_id) or f"nothing in {log_path(ws, run_id)} yet",
                fix=f"gtft status, then: gtft runs resume {run_id}",
            )
        view = view_run(ws, get_run(ws, run_id))
    data = {"run": view.as_dict(), "outcome": "detached", "pid": pid, "held_by": holder}

    def render() -> None:
        if waits:
            click.echo(f"nothing to do now: {run_id} is {view.state}; next: {view.next}")
            return
        if holder is not None:
            click.echo(f"{run_id} is being worked on by {holder}; it is not started twice.")
        else:
            click.echo(f"{run_id} goes on in the background (log: {log_path(ws, run_id)}).")
        click.echo("You need not wait: it outlives this session, and gtft mails who must decide.")
        click.echo(f"See it: gtft runs show {run_id}")

    emit(data, as_json, render)


def _find_run(ws: Workspace, target: str) -> Run | None:
    """A run by id or bead; None when the target must be a recipe. Raises UsageError for an id or a
    bead that no run has."""
    from gtft.runner.control import find_run, get_run

    if target.endswith(".toml") or "/" in target or target.startswith("mol-"):
        return None
    prefix = ws.home.rig.prefix if ws.home is not None else ws.config.prefix
    if target.startswith(("run-", f"{prefix}-")):
        return get_run(ws, target)
    return find_run(ws, target)
