"""``gtft eval``: what was measured, in words, in figures and answer by answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.artifact import short_id
from gtft.cli.output import emit, json_option, print_table

if TYPE_CHECKING:
    from gtft.artifact import Artifact
    from gtft.evals.library import Answered

_eval = click.argument("eval_id", metavar="[EVAL]", required=False)


def _artifacts(ctx: click.Context) -> Path:
    from gtft.runner.workspace import locate_workspace

    return locate_workspace(ctx.find_root().obj, Path.cwd(), os.environ) / "artifacts"


def _find(ctx: click.Context, prefix: str | None) -> Artifact:
    from gtft.evals.library import KIND
    from gtft.shelf import find_on_shelf

    return find_on_shelf(_artifacts(ctx), KIND, prefix)


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
    from gtft.evals.library import KIND
    from gtft.shelf import list_shelf, read_document

    shelf = list_shelf(_artifacts(ctx), KIND)
    rows: list[dict[str, Any]] = []
    for found in shelf.found:
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
    damaged = [{"folder": name, "why": why} for name, why in shelf.damaged]

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
        for d in damaged:
            click.echo(f"damaged: {d['folder']}: {d['why']}", err=True)

    emit({"evals": rows, "damaged": damaged}, as_json, render)


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
    from gtft.artifact import verify_artifact
    from gtft.evals.library import KIND
    from gtft.shelf import read_document

    found = _find(ctx, eval_id)
    verify_artifact(found.path, kind=KIND, expect=found.id)
    report = read_document(found, "report.json")

    def render() -> None:
        click.echo(f"eval {short_id(found.id)}\n")
        click.echo(found.file("verdict.md").read_text("utf-8").rstrip())

    emit({"id": found.id, "path": str(found.path), "report": report}, as_json, render)


@command.command()
@_eval
@click.option("--failed", is_flag=True, help="Only items that the tuned model fails.")
@click.option("--flipped", is_flag=True, help="Only items on which base and tuned differ.")
@click.option("--suite", help="Only this suite: heldout or authored.")
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
    from gtft.evals.library import read_answers

    found = _find(ctx, eval_id)
    chosen = [
        a
        for a in read_answers(found)
        if (not failed or not a.tuned["passed"])
        and (not flipped or a.flipped)
        and (suite is None or a.item.suite == suite)
        and (capability is None or a.item.capability == capability)
    ]
    shown = chosen if as_json else chosen[:most]
    data = [{"item": a.item.to_json(), "base": a.base, "tuned": a.tuned} for a in shown]

    def render() -> None:
        for a in shown:
            _print_item(a)
        rest = len(chosen) - len(shown)
        more = f"; {rest} more: -n {len(chosen)}" if rest else ""
        click.echo(f"{len(shown)} items of eval {short_id(found.id)}{more}")

    emit({"id": found.id, "items": data}, as_json, render)


def _print_item(a: Answered) -> None:
    item = a.item
    click.echo(f"── {item.id}  {item.suite} · {item.capability} · {item.role or 'any role'}")
    for message in item.messages[-3:]:
        click.echo(f"{message['role']}: {_clip(message.get('content') or '', 600)}")
    click.echo(f"right:  {_clip(item.reference, 400)}")
    for name, given in (("base", a.base), ("tuned", a.tuned)):
        told = "pass" if given["passed"] else f"FAIL ({given['reason']})"
        click.echo(f"{name + ':':7} {told}\n        {_clip(given['output'], 400)}")
    click.echo("")


def _clip(text: str, most: int) -> str:
    """One screenful, without control characters that a terminal would obey."""
    clean = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    clean = clean if len(clean) <= most else f"{clean[:most]} … ({len(clean)} characters)"
    return clean.replace("\n", "\n        ")
