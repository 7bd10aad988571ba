"""``gtft corpus tokens``: what ids, paths, commands and keys cost in a base's tokens."""

from __future__ import annotations

from pathlib import Path

import click

from gtft.artifact import short_id
from gtft.cli.context import find_artifacts
from gtft.cli.output import emit, json_option


def find_base(ctx: click.Context, given: str) -> Path:
    """The folder (or tokenizer.json) of a base that is on this machine. Raises BaseMissing."""
    from gtft.corpus.health.tokenizer import find_tokenizer

    return find_tokenizer(given, Path.cwd(), find_artifacts(ctx).parent)


@click.command()
@click.argument("corpus", required=False)
@click.option(
    "--base",
    default="nano",
    show_default=True,
    metavar="MODEL",
    help='A folder, a tokenizer.json, a hub id that is in the cache, or "nano".',
)
@json_option
@click.pass_context
def tokens(ctx: click.Context, corpus: str | None, base: str, as_json: bool) -> None:
    """Tokens per bead id, path, gt or bd command and JSON key for a base, and the advice that follows.

    Nothing is fetched and no model is loaded: only the base's tokenizer.json is read.

    \b
    gtft corpus tokens
    gtft corpus tokens 599322 --base models/base
    gtft corpus tokens --base Qwen/Qwen3-0.6B --json
    """
    from gtft.corpus.health.costs import render_costs
    from gtft.corpus.health.report import count_costs
    from gtft.corpus.library import KIND
    from gtft.shelf import find_on_shelf

    found = find_on_shelf(find_artifacts(ctx), KIND, corpus)
    place = find_base(ctx, base)
    report = count_costs(found, place)

    def render() -> None:
        click.echo(f"corpus {short_id(found.id)} in tokens of {place.name}\n")
        click.echo(render_costs(report), nl=False)

    emit({"id": found.id, "base": base, "tokens": report}, as_json, render)


COMMANDS: tuple[click.Command, ...] = (tokens,)
