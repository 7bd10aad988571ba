"""``gtft advise``: what the model of a role would do, for the agent that decides."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gtft.cli.output import clip, emit, json_option


@click.command(
    "advise",
    epilog="\b\nExamples:\n  gtft advise --role witness < situation.txt\n"
    '  gtft advise "Polecat nux: no output for an hour, branch clean. nudge, nuke or escalate?"',
)
@click.argument("situation", nargs=-1)
@click.option("--role", default="", help="Whose decision it is.  [default: yours, from GT_ROLE]")
@click.option("--rig", default="", help="On which rig.  [default: yours]")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 600), help="Longest wait for an answer.  [default: 20]"
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    situation: tuple[str, ...],
    role: str,
    rig: str,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Ask the role's model what it would do in SITUATION (or standard input), as advice.

    It never stands in the way: where there is no advice it says so and ends with 0. What it said is compared later
    with what you did.
    """
    from gtft.runner.advice import LONGEST, SECONDS, ask_advice, find_role
    from gtft.runner.workspace import locate_workspace
    from gtft.town.hooks import read_stdin

    workspace = locate_workspace(ctx.find_root().obj, Path.cwd(), os.environ)
    text = " ".join(situation) or read_stdin(5.0, LONGEST).decode("utf-8", "replace")
    role, rig = find_role(role, rig, os.environ)
    advice = ask_advice(
        workspace,
        role,
        rig,
        text,
        os.environ,
        redact=lambda said: _redact(workspace, said),
        seconds=seconds or SECONDS,
    )

    def render() -> None:
        if not advice.text:
            click.echo(f"There is no advice: {advice.why}. Go on without it.")
            return
        click.echo(f"{advice.id} from {advice.model}, {advice.trust}:")
        click.echo(f"        {clip(advice.text, 4000)}")
        click.echo("You decide, and you answer for it.")

    emit(advice.as_dict(), as_json, render)


def _redact(workspace: Path, text: str) -> str:
    """By the rules that ship with gtft; those of a recipe are in the store, which an agent need not reach."""
    from gtft.corpus.governance.withdrawal import KEY_FILE
    from gtft.corpus.redaction.redactor import RedactionConfig, load_key, start_redactor

    key = load_key(workspace / KEY_FILE)
    return start_redactor(key, RedactionConfig(), workspace / "cache" / "harvest").redact(text)
