"""``gtft eval promptfoo``: Gas Town's own cases through promptfoo itself, beside our own judgement."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click

from gtft.artifact import short_id
from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option


@click.command("promptfoo")
@click.argument("adapter", metavar="[ADAPTER]", required=False)
@click.option("--cases", default="", help="Folder of the cases.  [default: below the town]")
@click.option(
    "--candidate", type=click.Choice(["tuned", "base"]), default="tuned", show_default=True
)
@click.option("--max-new-tokens", type=click.IntRange(min=8), default=512, show_default=True)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    adapter: str | None,
    cases: str,
    candidate: str,
    max_new_tokens: int,
    as_json: bool,
) -> None:
    """Run gt-model-eval through promptfoo, on an endpoint that is served meanwhile; name where it judges otherwise.

    promptfoo runs the cases' JavaScript with all that Node can do: only for cases that you trust. gtft eval run
    judges the same cases in a sandbox, without promptfoo.

    \b
    gtft eval promptfoo
    gtft eval promptfoo 4f2a90 --cases gastown/gt-model-eval --candidate base
    """
    from gtft.errors import InputError
    from gtft.evals.promptfoo import find_cases_folders, read_cases
    from gtft.evals.promptfoo_run import compare_with_promptfoo, find_promptfoo, run_promptfoo
    from gtft.runner.serving import serve_for
    from gtft.shelf import find_on_shelf

    ws, root = open_here(ctx), Path.cwd()
    program = find_promptfoo(os.environ, root)
    found = find_on_shelf(ws.artifacts, "adapter", adapter)
    folders = find_cases_folders(cases, ws.path, root)
    if not folders:
        raise InputError(
            "there is no folder gt-model-eval below the town",
            why="its cases stand in Gas Town's own repository",
            fix="gtft eval promptfoo --cases FOLDER",
        )
    read = read_cases(folders[0])
    if not as_json:
        click.echo(
            f"{len(read.items)} cases, answered by {candidate} of {short_id(found.id)} …", err=True
        )
    with serve_for(ws, found, root, os.environ) as url, tempfile.TemporaryDirectory() as workdir:
        theirs = run_promptfoo(
            program,
            folders[0],
            read,
            url=url,
            model=candidate,
            max_new_tokens=max_new_tokens,
            workdir=Path(workdir),
            environ=os.environ,
        )
    data: dict[str, Any] = compare_with_promptfoo(read, theirs)

    def render() -> None:
        passed = data["passed"]
        click.echo(f"promptfoo passes {passed['promptfoo']} of {data['n']}, gtft {passed['gtft']}")
        click.echo(f"same judgement on {data['agree']} of {data['n']} cases")
        for d in data["disagreements"]:
            click.echo(
                f"  {d['file']} {d['number']} {d['case']}: gtft {d['ours']}; promptfoo {d['promptfoo']}"
            )
        for n in data["not_run"]:
            click.echo(f"  not run: {n['file']} {n['number']} {n['case']}: {n['reason']}")

    emit(data, as_json, render)
