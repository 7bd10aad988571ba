"""From the command line to the workspace, the actor and the run that a command is about."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gtft.runner.identity import find_actor
from gtft.runner.workspace import Workspace, locate_workspace, open_workspace

as_option = click.option(
    "--as",
    "actor",
    metavar="ACTOR",
    help="Who acts.  [default: BEADS_ACTOR, BD_ACTOR or GT_ROLE, else overseer/<user>]",
)


def open_here(ctx: click.Context) -> Workspace:
    """The workspace of ``--workspace``, or of the current folder."""
    return open_workspace(locate_workspace(ctx.find_root().obj, Path.cwd()))


def get_actor(given: str | None) -> str:
    return find_actor(given, os.environ)
