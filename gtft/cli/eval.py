"""``gtft eval``: what was measured, in words, in figures and answer by answer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.artifact import short_id
from gtft.cli.context import find_artifacts, open_here
from gtft.cli.output import clip, emit, json_option, print_table
from gtft.cli.promptfoo import command as promptfoo
from gtft.cli.recipe_options import recipe_options, resolve_given
from gtft.errors import UsageError

if TYPE_CHECKING:
    from gtft.artifact import Artifact
    from gtft.evals.library import Answered
    from gtft.runner.workspace import Workspace

_eval = click.argument("eval_id", metavar="[EVAL]", required=False)


def _find(ctx: click.Context, prefix: str | None) -> Artifact:
    from gtft.evals.library import KIND
    from gtft.shelf import find_on_shelf

    return find_on_shelf(find_artifacts(ctx), KIND, prefix)


@click.group(
    invoke_without_command=True,
    epilog="Start here: gtft eval show    (docs/evaluation.md)",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Evaluations: the tuned model against its base, on items it never saw.

    EVAL is the start of an id; without it, the newest one.

    \b
    gtft eval                    # list
    gtft eval show               # the newest verdict
    gtft eval items --flipped    # where base and tuned differ, both answers
    gtft eval compare 4f2a 81cc  # two of them on the items they share
    """
    if ctx.invoked_subcommand is None:
        _list(ctx, as_json)


@command.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """The evaluations of this workspace, oldest first.

    \b
    gtft eval list
    gtft eval list --json
    """
    _list(ctx, as_json)


def _list(ctx: click.Context, as_json: bool) -> None:
    from gtft.artifact import verify_artifact
    from gtft.errors import EvidenceError
    from gtft.evals.library import KIND
    from gtft.shelf import list_shelf, read_document

    shelf = list_shelf(find_artifacts(ctx), KIND)
    rows: list[dict[str, Any]] = []
    damaged = list(shelf.damaged)
    for found in shelf.found:
        try:
            verify_artifact(found.path, kind=KIND, expect=found.id)
        except EvidenceError as e:
            damaged.append((found.path.name, e.what))
            continue
        report = read_document(found, "report.json")
        suites = {
            name: {"n": s["n"], "base": s["base"]["rate"], "tuned": s["tuned"]["rate"]}
            for name, s in report["suites"].items()
        }
        rows.append(
            {
                "id": found.id,
                "path": str(found.path),
                "outcome": report["outcome"],
                "gates_met": report["gates_met"],
                "suites": suites,
            }
        )
    broken = [{"folder": name, "why": why} for name, why in damaged]

    def render() -> None:
        print_table(
            ("eval", "outcome", "gates", "base → tuned"),
            [
                (
                    short_id(r["id"]),
                    r["outcome"],
                    "met" if r["gates_met"] else "not met",
                    ", ".join(
                        f"{name} {s['base']:.0%} → {s['tuned']:.0%} of {s['n']}"
                        for name, s in r["suites"].items()
                    ),
                )
                for r in rows
            ],
            "no evaluation yet: gtft run mol-gtft-quickstart makes one",
        )
        for d in broken:
            click.echo(f"damaged: {d['folder']}: {d['why']}", err=True)

    emit({"evals": rows, "damaged": broken}, as_json, render)


@command.command("run")
@click.argument("recipe")
@recipe_options
@click.option(
    "--adapter",
    help="The adapter to evaluate: the start of its id, or a model or alias.  [default: the newest]",
)
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    recipe: str,
    variables: tuple[str, ...],
    sets: tuple[str, ...],
    overlays: tuple[str, ...],
    adapter: str | None,
    as_json: bool,
) -> None:
    """Evaluate an adapter of this workspace again, as RECIPE says: no bead, no review.

    Ctrl-C saves and stops; the same command goes on from the answers so far.

    \b
    gtft eval run mol-gtft-quickstart
    gtft eval run mol-gtft-quickstart --adapter 4f2a90 --set eval.seeds=5
    gtft eval run mol-gtft-quickstart --set 'eval.suites=["gt-model-eval"]'
    """
    from gtft.artifact import read_artifact
    from gtft.cli.follow import follow
    from gtft.contract import Paused
    from gtft.errors import PAUSED_EXIT
    from gtft.records.rows import make_ready
    from gtft.runner.evaluation import evaluate

    ws = open_here(ctx)
    resolved = resolve_given(recipe, variables, sets, overlays)
    given = _find_adapter(ws, adapter)
    # No stage of a run: only its name is shown.
    row = make_ready("", "eval", 0, 0)
    with follow(quiet=as_json) as listen:
        made = evaluate(
            ws,
            resolved,
            given,
            Path.cwd(),
            os.environ,
            lambda event: listen(row, event),
            insist=adapter is not None,
        )
    if isinstance(made, Paused):
        emit({"paused": made.text}, as_json, lambda: click.echo(f"stopped: {made.text}"))
        ctx.exit(PAUSED_EXIT)
    _show(read_artifact(made.path), ws.path, as_json)


def _find_adapter(ws: Workspace, given: str | None) -> Artifact:
    """By the start of an adapter's id, or as the registry finds a model; the newest when nothing is given."""
    from gtft.models.registry import find_model
    from gtft.shelf import find_on_shelf

    try:
        return find_on_shelf(ws.artifacts, "adapter", given)
    except UsageError:
        if not given:
            raise
        model = find_model(ws.store, given)
        return find_on_shelf(ws.artifacts, "adapter", model.adapter_id)


@command.command("compare")
@click.argument("eval_ids", metavar="EVAL EVAL [EVAL]...", nargs=-1, required=True)
@click.option("-n", "--most", type=click.IntRange(min=0), default=10, show_default=True)
@json_option
@click.pass_context
def compare(ctx: click.Context, eval_ids: tuple[str, ...], most: int, as_json: bool) -> None:
    """Evaluations side by side on the items that they share; items that flipped with every answer.

    \b
    gtft eval compare 4f2a90 81cc07
    gtft eval compare 4f2a90 81cc07 --json
    """
    from gtft.evals.telling.compare import compare as compare_evals
    from gtft.evals.telling.compare import write_comparison

    found = compare_evals([_find(ctx, prefix) for prefix in eval_ids])
    emit(
        found.to_json(),
        as_json,
        lambda: click.echo(
            write_comparison(found, min(shutil.get_terminal_size().columns, 100), most)
        ),
    )


@command.command()
@_eval
@json_option
@click.pass_context
def show(ctx: click.Context, eval_id: str | None, as_json: bool) -> None:
    """The verdict of one evaluation; every file of it is hashed first.

    \b
    gtft eval show
    gtft eval show 4f2a90 --json     # all figures
    """
    _show(_find(ctx, eval_id), find_artifacts(ctx).parent, as_json)


def _show(found: Artifact, workspace: Path, as_json: bool) -> None:
    from gtft.artifact import verify_artifact
    from gtft.evals.library import KIND, read_timing
    from gtft.shelf import read_document

    verify_artifact(found.path, kind=KIND, expect=found.id)

    def render() -> None:
        click.echo(f"eval {short_id(found.id)}\n")
        echo_verdict(found, workspace)

    data = {
        "id": found.id,
        "path": str(found.path),
        "report": read_document(found, "report.json"),
        "timing": read_timing(workspace, found),
    }
    emit(data, as_json, render)


def echo_verdict(found: Artifact, workspace: Path) -> None:
    """The verdict as a terminal shows it best."""
    from gtft.evals.library import read_timing
    from gtft.evals.telling.verdict import write_terminal
    from gtft.shelf import read_document

    report = read_document(found, "report.json")
    if "advice" not in report:
        # One that an earlier gtft wrote.
        click.echo(found.file("verdict.md").read_text("utf-8").rstrip())
        return
    width = min(shutil.get_terminal_size().columns, 100)
    click.echo(write_terminal(report, read_timing(workspace, found), width).rstrip())
    click.echo(f"\nwith plots: {found.path / 'verdict.html'}")


@command.command()
@_eval
@click.option("--failed", is_flag=True, help="Only items that the tuned model fails.")
@click.option("--flipped", is_flag=True, help="Only items on which base and tuned differ.")
@click.option("--suite", help="Only this suite: heldout, authored, generated or gt-model-eval.")
@click.option("--capability", help="Only this capability, such as safety.")
@click.option("-n", "--most", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
@click.pass_context
def items(
    ctx: click.Context,
    eval_id: str | None,
    failed: bool,
    flipped: bool,
    suite: str | None,
    capability: str | None,
    most: int,
    as_json: bool,
) -> None:
    """Items with the prompt, the right answer, and what base and tuned said.

    \b
    gtft eval items --failed
    gtft eval items --flipped --suite authored
    gtft eval items --capability safety --json
    """
    from gtft.artifact import verify_artifact
    from gtft.evals.library import KIND, read_answers

    found = _find(ctx, eval_id)
    verify_artifact(found.path, kind=KIND, expect=found.id)
    chosen = [
        a
        for a in read_answers(found)
        if (not failed or not a.tuned["passed"])
        and (not flipped or a.flipped)
        and (suite is None or a.item.suite == suite)
        and (capability is None or a.item.capability == capability)
    ]
    shown = chosen if as_json else chosen[:most]
    data = [
        {"item": a.item.to_json(), "base": a.base, "tuned": a.tuned, "answers": dict(a.answers)}
        for a in shown
    ]

    def render() -> None:
        for a in shown:
            print_item(a)
        rest = len(chosen) - len(shown)
        more = f"; {rest} more: -n {len(chosen)}" if rest else ""
        click.echo(f"{len(shown)} items of eval {short_id(found.id)}{more}")

    emit({"id": found.id, "items": data}, as_json, render)


def print_item(a: Answered) -> None:
    item = a.item
    click.echo(f"── {item.id}  {item.suite} · {item.capability} · {item.role or 'any role'}")
    for message in item.messages[-3:]:
        click.echo(f"{message['role']}: {clip(message.get('content') or '', 600)}")
    click.echo(f"right:  {clip(item.reference, 400)}")
    for name, given in a.answers.items():
        told = "pass" if given["passed"] else f"FAIL ({given['reason']})"
        click.echo(f"{name + ':':7} {told}\n        {clip(given['output'], 400)}")
    click.echo("")


command.add_command(promptfoo)
