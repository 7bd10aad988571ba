"""From the command line to the workspace, the actor and the run that a command is about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gtft.errors import UsageError

if TYPE_CHECKING:
    from gtft.recipe.schema import Recipe
    from gtft.runner.workspace import Workspace

as_option = click.option(
    "--as",
    "actor",
    metavar="ACTOR",
    help="Who acts.  [default: BEADS_ACTOR, BD_ACTOR or GT_ROLE, else overseer/<user>]",
)


def open_here(ctx: click.Context) -> Workspace:
    """The workspace of ``--workspace``, or of the current folder."""
    from gtft.runner.workspace import locate_workspace, open_workspace

    return open_workspace(locate_workspace(ctx.find_root().obj, Path.cwd(), os.environ))


def find_workspace(ctx: click.Context) -> Path:
    """Where the workspace is, without opening it: its store may be away."""
    from gtft.runner.workspace import locate_workspace

    return locate_workspace(ctx.find_root().obj, Path.cwd(), os.environ)


def find_artifacts(ctx: click.Context) -> Path:
    """The artifacts of the workspace; nothing is made when there is none."""
    from gtft.runner.workspace import locate_workspace

    return locate_workspace(ctx.find_root().obj, Path.cwd(), os.environ) / "artifacts"


def check_harvest(ws: Workspace | None, recipe: Recipe, actor: str) -> None:
    """What a harvest would stop at, before anything is created. ``ws`` None: consents are not known.

    Raises UsageError (a selection that is not understood), RecipeError (a licence that forbids training)
    and InputError (the scope names a rig whose data the run may not use).
    """
    from gtft.corpus.governance.consent import check_scope
    from gtft.corpus.governance.licence import check_licences
    from gtft.corpus.governance.select import parse_select
    from gtft.runner.governance import gather_governance

    parse_select(recipe.harvest.select)
    check_licences(recipe.harvest.sources, recipe.harvest.licences, recipe.card.licence)
    if ws is not None:
        known = gather_governance(ws, actor, recipe.scope)
        check_scope(known.own, recipe.scope, known.consents, known.today, recipe.role)


def get_actor(given: str | None) -> str:
    """Who acts. Raises ConflictError for a name that no bead can be assigned to, and UsageError for an
    agent of a town that gives another name than its own."""
    from gtft.beads.rules import check_actor
    from gtft.runner.detached import is_agent
    from gtft.runner.identity import find_actor

    actor = check_actor(find_actor(given, os.environ))
    own = find_actor(None, os.environ)
    if actor != own and is_agent(os.environ):
        raise UsageError(
            f"{own} cannot act as {actor}",
            why="inside an agent's session the town says who acts",
            fix="leave --as out",
        )
    return actor
