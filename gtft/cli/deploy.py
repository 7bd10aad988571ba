"""``gtft deploy``: a model into the service of a role, and what is in service."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.cli.output import json_option

if TYPE_CHECKING:
    from gtft.cli.deployment import Asked

# Verbs in files of their own: (file under gtft.cli, its command).
LAZY = {
    "incident": ("deploy_incident", "incident"),
    "watch": ("deploy_watch", "watch"),
    "list": ("deploy_list", "list_command"),
    "status": ("deploy_list", "status"),
}
VERBS = ("list", "status", "promote", "undo", "watch", "incident", "launch")


class DeployGroup(click.Group):
    """``gtft deploy MODEL …`` is the verb that needs no name; the rest is loaded when it is typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            args = ["put", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        # Nobody types it, and no help says it.
        return ("" if name == "put" else name), found, rest

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in LAZY:
            file, name = LAZY[cmd_name]
            found = getattr(importlib.import_module(f"gtft.cli.{file}"), name)
            assert isinstance(found, click.Command)
            return found
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=DeployGroup,
    invoke_without_command=True,
    epilog="""\b
Examples:
  gtft deploy witness-1a2b3c4d5e6f --role witness              answers are only compared (shadow)
  gtft deploy promote --role witness                           one mode further: advise, then live
  gtft deploy witness --role witness --mode live --dry-run     the gates and the diff
  gtft rollback --role witness                                 back, in a second

\b
MODEL first: gtft deploy MODEL --role ROLE [--rig RIG] [--mode shadow|advise|live] (gtft deploy MODEL --help)
""",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Put a model into the service of a role: beside its agent, as advice to it, or in its place."""
    if ctx.invoked_subcommand is None:
        from gtft.cli.deploy_list import show_list

        show_list(ctx, as_json)


_place = (
    click.option("--agent", "named", default="", help="The agent that runs the model (live)."),
    click.option("--endpoint", default="", help="The server, where somebody else runs it (URL)."),
    click.option("--force", default="", help="Why it may go on though its figures say no."),
    click.option("--accept-withdrawn", default="", help="Why withdrawn data may stay in it."),
    click.option(
        "--ab-share",
        type=click.FloatRange(0, 1),
        help="Of the beads, that stays with the previous agent, to compare with (live).  [default: the recipe's]",
    ),
    click.option("--as", "actor", metavar="ACTOR", help="Who acts."),
    click.option("--dry-run", is_flag=True, help="The gates and the diff only."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    json_option,
)


def _options(function: Any) -> Any:
    for option in reversed(_place):
        function = option(function)
    return function


@command.command(
    "put",
    hidden=True,
    epilog="\b\nExamples:\n  gtft deploy witness-1a2b3c4d5e6f --role witness --mode shadow\n"
    "  gtft deploy witness --role witness --rig gizmo --mode live --yes",
)
@click.argument("model")
@click.option("--role", required=True, help="The role of the town that it is to serve.")
@click.option(
    "--mode",
    type=click.Choice(["shadow", "advise", "live"]),
    default="shadow",
    show_default=True,
    help="shadow: compared, nobody acts on it. advise: told to the agent. live: the role runs on it.",
)
@click.option("--rig", default="", help="Only on this rig.  [default: the whole town]")
@_options
@click.pass_context
def put(ctx: click.Context, /, model: str, role: str, mode: Any, **given: Any) -> None:
    """Put MODEL into the service of a role, with every gate checked and every byte shown first."""
    _run(ctx, _ask(model=model, role=role, mode=mode, **given))


@command.command(
    "promote",
    epilog="\b\nExamples:\n  gtft deploy promote --role witness\n"
    '  gtft deploy promote --role witness --to live --force "20 decisions read by hand"\n'
    "  gtft deploy promote --role witness --ab-share 0    what is live: every bead to the model",
)
@click.argument("deployment", required=False, default="")
@click.option("--role", default="", help="The role, where more than one is served.")
@click.option("--to", "mode", type=click.Choice(["advise", "live"]), help="[default: the next]")
@click.option("--rig", default=None, help='Of this rig ("" = of the whole town).')
@_options
@click.pass_context
def promote(ctx: click.Context, /, deployment: str, role: str, mode: Any, **given: Any) -> None:
    """One mode further: shadow, advise, live. The figures of the mode before must allow it."""
    from gtft.cli.context import open_here
    from gtft.cli.deployment import deploy, find_next, stop_comparison
    from gtft.runner.switch import find_in_service

    ws, rig = open_here(ctx), given["rig"]
    found = find_in_service(ws.path, deployment, role, rig)
    if found.mode == "live" and mode != "advise" and given["ab_share"] is not None:
        given["rig"] = found.rig
        asked = _ask(model=found.model, role=found.role, mode="live", **given)
        stop_comparison(ws, found, asked)
        return
    found, mode = find_next(ws, deployment, role, rig, mode)
    given["rig"] = found.rig
    deploy(ws, _ask(model=found.model, role=found.role, mode=mode, **given))


def _ask(**given: Any) -> Asked:
    from gtft.cli.deployment import Asked

    return Asked(**given)


def _run(ctx: click.Context, asked: Asked) -> None:
    from gtft.cli.context import open_here
    from gtft.cli.deployment import deploy

    deploy(open_here(ctx), asked)


@command.command(
    epilog="\b\nExamples:\n  gtft deploy undo --role witness\n  gtft deploy undo dep-1a2b3c4d5e"
)
@click.argument("deployment", required=False, default="")
@click.option("--role", default="", help="The role, where more than one is served.")
@click.option("--rig", default=None, help='Of this rig ("" = of the whole town).')
@click.option("--as", "actor", metavar="ACTOR", help="Who acts.")
@json_option
@click.pass_context
def undo(
    ctx: click.Context,
    deployment: str,
    role: str,
    rig: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Take a deployment out of service: gtft rollback by its id, recorded as no fault of the model.

    The town's files are as they were before gtft served the role, also after promotions.
    """
    from gtft.cli.rollback import take_out_here

    take_out_here(ctx, deployment, role, rig, "undone", "by hand", actor, as_json)


@command.command(
    hidden=True,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("journal", type=click.Path(path_type=Path))
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def launch(journal: Path, argv: tuple[str, ...]) -> None:
    """What stands before the agent in a role's start command: the model's agent, or the one before it."""
    from gtft.town.launch import plan_start, start

    plan = plan_start(journal, argv[1:] if argv[:1] == ("--",) else argv, os.environ)
    if plan.why:
        click.echo(f"gtft: {plan.why}; starting the previous agent", err=True)
    sys.stdout.flush()
    start(plan)
