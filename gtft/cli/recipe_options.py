"""The options that every command taking a RECIPE shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gtft.recipe.resolve import Resolved


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--var``, ``--set`` and ``--overlay``, each repeatable."""
    options = (
        click.option(
            "--var",
            "variables",
            metavar="NAME=VALUE",
            multiple=True,
            help="A variable of the formula.",
        ),
        click.option(
            "--set",
            "sets",
            metavar="KEY=VALUE",
            multiple=True,
            help="A recipe key, as in: --set train.epochs=3",
        ),
        click.option(
            "--overlay",
            "overlays",
            metavar="FILE",
            multiple=True,
            help="A TOML file with recipe keys.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def resolve_given(
    name: str, variables: tuple[str, ...], sets: tuple[str, ...], overlays: tuple[str, ...]
) -> Resolved:
    """The recipe of a name or path, with what the command line adds."""
    from gtft.recipe.resolve import parse_assignments, resolve

    return resolve(
        name,
        variables=parse_assignments(variables),
        overlays=overlays,
        sets=sets,
        root=Path.cwd(),
    )
