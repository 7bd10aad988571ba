"""``gtft runs``: list, show, page, logs, pause, resume, cancel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from gtft.artifact import short_id
from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import emit, json_option, print_table
from gtft.errors import InputError

if TYPE_CHECKING:
    from gtft.runner.status import RunView, StageView

# ready, active, review, done: told by the letter, never by colour alone.
MARKS = {"ready": ".", "active": "a", "review": "r", "done": "d"}


@click.group(
    "runs",
    invoke_without_command=True,
    epilog="\b\nExamples:\n  gtft runs\n  gtft runs show RUN\n  gtft runs logs RUN --stage train\n"
    "  gtft runs show RUN --watch\n  gtft runs page RUN",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Runs: list, show, page, logs, pause, resume, cancel."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, as_json=as_json)


@command.command("list", epilog="\b\nExample:\n  gtft runs list --json")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """All runs, newest first."""
    from gtft.runner.status import view_runs

    views = view_runs(open_here(ctx))

    def render() -> None:
        print_table(
            ("run", "recipe", "role", "state", "stages", "started", "by"),
            [
                (
                    v.id,
                    v.recipe,
                    v.role,
                    v.state,
                    describe_stages(v),
                    say_time(v.created_us),
                    v.actor,
                )
                for v in views
            ],
            empty="no runs yet. Start one: gtft run mol-gtft-quickstart",
        )

    emit([v.as_dict() for v in views], as_json, render)


@command.command(
    "show",
    epilog="\b\nExamples:\n  gtft runs show run-1122-0516 --json\n  gtft runs show run-1122-0516 --watch",
)
@click.argument("run")
@click.option("--recipe", "with_recipe", is_flag=True, help="The resolved recipe too.")
@click.option(
    "--watch",
    "watching",
    is_flag=True,
    help="Live, until it ends or waits for somebody. Ctrl-C leaves the run alone; --json: a line per change.",
)
@json_option
@click.pass_context
def show(ctx: click.Context, run: str, with_recipe: bool, watching: bool, as_json: bool) -> None:
    """One run: its stages, beads, artifacts, training and history."""
    from gtft.cli.training import describe_training
    from gtft.runner.control import get_run
    from gtft.runner.figures import clean_text, read_figures, summarize
    from gtft.runner.planned import compare_plan
    from gtft.runner.status import view_run

    ws = open_here(ctx)
    found = get_run(ws, run)
    if watching:
        from gtft.cli.watch import choose_face, watch

        with choose_face(as_json=as_json) as face:
            watch(ws, found, face)
        return
    view = view_run(ws, found)
    training = summarize(read_figures(ws.job_dir(found.id, "train")))
    planned = compare_plan(ws, found)
    events = ws.store.list_events(found.id)
    data = {
        **view.as_dict(),
        "recipe_hash": found.recipe_hash,
        "root": found.root,
        "events": [e.__dict__ for e in events],
        "training": training.as_dict() if training is not None else None,
        "planned": list(planned),
    }
    if with_recipe:
        data["recipe_document"] = found.recipe

    def render() -> None:
        click.echo(
            f"{view.id}  {view.recipe} for {view.role}  recipe {short_id(found.recipe_hash)}"
        )
        click.echo(f"state: {view.state}; waits for: {view.waits_for}; next: {view.next}\n")
        print_table(
            ("stage", "state", "bead", "in ledger", "worker", "reviewer", "artifact", "now"),
            [_stage_line(s) for s in view.stages],
            empty="",
        )
        if training is not None:
            click.echo()
            for name, value in describe_training(training):
                click.echo(f"{name:<9} {value}")
            for line in planned:
                click.echo(f"{'plan':<9} {line}")
            click.echo()
        for e in events:
            stage = e.stage or "run"
            text = clean_text(e.text, 2000)
            click.echo(f"{say_time(e.created_us)}  {stage:<8} {e.kind:<14} {e.actor:<18} {text}")
        if with_recipe:
            import tomli_w

            click.echo("\n" + tomli_w.dumps(_without_none(found.recipe["recipe"])))

    emit(data, as_json, render)


@command.command(
    "page", epilog="\b\nExamples:\n  gtft runs page RUN\n  gtft runs page RUN --out run.html"
)
@click.argument("run")
@click.option("--out", metavar="FILE", help="Where to write it.  [default: RUN.html here]")
@json_option
@click.pass_context
def page(ctx: click.Context, run: str, out: str | None, as_json: bool) -> None:
    """One HTML page of a run, with plots; it needs no network. Written anew each time."""
    from pathlib import Path

    import tomli_w

    from gtft.runner.control import get_run
    from gtft.runner.page import gather_page, write_page
    from gtft.runner.planned import compare_plan

    ws = open_here(ctx)
    found = get_run(ws, run)
    recipe = tomli_w.dumps(_without_none(found.recipe["recipe"]))
    path = Path(out or f"{found.id}.html")
    write_page(path, gather_page(ws, found, recipe, compare_plan(ws, found)))
    emit(
        {"run": found.id, "html": str(path)},
        as_json,
        lambda: click.echo(f"wrote {path}; open it in a browser"),
    )


@command.command("logs", epilog="\b\nExample:\n  gtft runs logs RUN --stage train --events")
@click.argument("run")
@click.option(
    "--stage",
    type=click.Choice(["harvest", "train", "eval", "card"]),
    help="Only this stage.  [default: all]",
)
@click.option("--events", is_flag=True, help="The worker's events instead of its own words.")
@json_option
@click.pass_context
def logs(ctx: click.Context, run: str, stage: str | None, events: bool, as_json: bool) -> None:
    """What the workers of a run wrote."""
    from gtft.contract import EVENTS_FILE, LOG_FILE, STAGES
    from gtft.runner.control import get_run

    ws = open_here(ctx)
    found = get_run(ws, run)
    name = EVENTS_FILE if events else LOG_FILE
    texts: dict[str, str] = {}
    for s in [stage] if stage else STAGES:
        path = ws.job_dir(found.id, s) / name
        if path.exists():
            texts[s] = path.read_text("utf-8", "replace")
    if stage and stage not in texts:
        raise InputError(
            f"{stage} of {found.id} has no {name} yet",
            why="its worker has not started",
            fix=f"gtft runs show {found.id}",
        )

    def render() -> None:
        for s, text in texts.items():
            click.echo(f"== {s}")
            click.echo(text, nl=False)

    emit(texts, as_json, render)


@command.command("pause", epilog="\b\nExample:\n  gtft runs pause RUN")
@click.argument("run")
@as_option
@json_option
@click.pass_context
def pause(ctx: click.Context, run: str, actor: str | None, as_json: bool) -> None:
    """Save a checkpoint and stop; memory goes back to the box."""
    from gtft.runner import control

    ws = open_here(ctx)
    found = control.get_run(ws, run)
    text = control.pause(ws, found, get_actor(actor))
    emit({"run": found.id, "asked": "pause"}, as_json, lambda: click.echo(f"{found.id}: {text}"))


@command.command("resume", epilog="\b\nExample:\n  gtft runs resume RUN && gtft run RUN")
@click.argument("run")
@as_option
@json_option
@click.pass_context
def resume(ctx: click.Context, run: str, actor: str | None, as_json: bool) -> None:
    """Let a paused or failed run go on; a worker then claims it."""
    from gtft.runner import control

    ws = open_here(ctx)
    found = control.get_run(ws, run)
    cleared = control.resume(ws, found, get_actor(actor))
    stages = [s.stage for s in cleared]

    def render() -> None:
        what = ", ".join(stages) or "nothing was held"
        click.echo(f"{found.id}: ready again: {what}. Go on with: gtft run {found.id}")

    emit({"run": found.id, "ready": stages}, as_json, render)


@command.command("cancel", epilog='\b\nExample:\n  gtft runs cancel RUN --reason "wrong rig"')
@click.argument("run")
@click.option("--reason", default="no longer wanted", show_default=True, help="Why.")
@click.option("--dry-run", is_flag=True, help="Say what would be closed.")
@as_option
@json_option
@click.pass_context
def cancel(
    ctx: click.Context, run: str, reason: str, dry_run: bool, actor: str | None, as_json: bool
) -> None:
    """End a run. What it made, and its last checkpoint, stay on disk."""
    from gtft.runner import control

    ws = open_here(ctx)
    found = control.get_run(ws, run)
    still_open = [s.stage for s in ws.store.list_stages(found.id) if s.state != "done"]
    if not dry_run:
        control.cancel(ws, found, get_actor(actor), reason)

    def render() -> None:
        verb = "would close" if dry_run else "closes"
        click.echo(f"{found.id}: {verb} {', '.join(still_open) or 'nothing'}")

    emit({"run": found.id, "dry_run": dry_run, "closes": still_open}, as_json, render)


def describe_stages(view: RunView) -> str:
    """``d d a .``: one mark a stage, in the order harvest, train, eval, card."""
    return " ".join(MARKS[s.state] if not s.reason else MARKS[s.state] + "!" for s in view.stages)


def say_time(us: int) -> str:
    """Local time of a stamp in microseconds."""
    return time.strftime("%m-%d %H:%M:%S", time.localtime(us / 1e6))


def _stage_line(s: StageView) -> tuple[object, ...]:
    state = f"{s.state} ({s.reason})" if s.reason else s.state
    if s.orphaned:
        state += ", runner gone"
    now = ""
    if s.waiting is not None:
        now = f"waits: {s.waiting['text']}"
    elif s.progress is not None:
        total = f"/{s.progress['total']}" if s.progress["total"] else ""
        now = f"{s.progress['done']}{total} {s.progress['unit']}"
    elif s.reason_text:
        now = s.reason_text.splitlines()[0]
    artifact = short_id(s.artifact) if s.artifact else "–"
    in_ledger = s.bead_state if s.bead_state == s.state else f"{s.bead_state} (!)"
    return (
        s.stage,
        state,
        s.bead or "–",
        in_ledger,
        s.worker or "–",
        s.reviewer or "–",
        artifact,
        now,
    )


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value
