"""``gtft model card``: the card as it was written, and what has happened to the model since."""

from __future__ import annotations

from pathlib import Path

import click

from gtft.artifact import verify_artifact
from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option


@click.command(
    "card",
    epilog="Examples: gtft model card witness    gtft model card witness --out card",
)
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write README.md, its pictures and SINCE.md there, in place of an earlier card.",
)
@json_option
@click.pass_context
def card_command(ctx: click.Context, name: str, out: Path | None, as_json: bool) -> None:
    """The card of a model, hashed again, and what happened to the model since.

    NAME is a name, the beginning of one, an alias, or a role (its newest model).
    """
    from gtft.models.card_folder import check_folder, write_card_folder
    from gtft.models.card_since import Since, describe_since, write_since
    from gtft.models.freshness import judge_freshness
    from gtft.models.lineage import trace_model
    from gtft.models.registry import find_model
    from gtft.town.conventions import read_conventions

    if out is not None:
        check_folder(out)
    ws = open_here(ctx)
    model = find_model(ws.store, name)
    story = trace_model(ws.store, model, ws.path)
    path = ws.artifact_path(story.lineage.card.path)
    card = verify_artifact(path, kind="card", expect=model.card_id)
    at_us = round(ws.now() * 1e6)
    town = read_conventions(ws.home.town, ws.environ) if ws.home else None
    since = Since(
        story,
        judge_freshness(ws.store, model, now_us=at_us, conventions=town),
        tuple(
            m
            for m in sorted(ws.store.list_models(), key=lambda m: m.created_us)
            if m.role == model.role and m.version > model.version
        ),
        at_us,
    )
    text, data = write_since(since), describe_since(since)
    told = {"model": model.name, "card": card.id, "since": data}
    if out is not None:
        write_card_folder(card, text, data, out)
        told["out"] = str(out)
        emit(told, as_json, lambda: click.echo(_tell_written(model.name, out)))
        return
    readme = card.file("README.md").read_text("utf-8")
    told |= {"card_text": readme, "since_text": text}
    emit(told, as_json, lambda: click.echo(f"{readme}\n---\n\n{text}", nl=False))


def _tell_written(model: str, out: Path) -> str:
    return f"The card of {model} is in {out}: README.md as it was written, SINCE.md as it is today."
