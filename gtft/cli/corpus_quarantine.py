"""``gtft corpus quarantine``: what a second reader holds, and what somebody decides about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import emit, json_option, print_table
from gtft.errors import UsageError

if TYPE_CHECKING:
    from gtft.corpus.governance.quarantine import Decision, Held, Quarantine

_of_corpus = click.option(
    "--corpus", metavar="CORPUS", help="Only what the harvest of this corpus held back."
)
_waiting = click.option("--waiting", is_flag=True, help="Only what nobody has decided.")
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would change; change nothing.")


@click.group("quarantine", invoke_without_command=True)
@_of_corpus
@_waiting
@json_option
@click.pass_context
def quarantine(ctx: click.Context, corpus: str | None, waiting: bool, as_json: bool) -> None:
    """Examples that a second reader suspects, why, and what was decided. Values are never shown.

    \b
    gtft corpus quarantine --waiting
    gtft corpus quarantine show ex-01ac
    gtft corpus quarantine release ex-01ac --reason "a commit hash"
    gtft corpus quarantine drop ex-01ac --reason "a key"
    """
    if ctx.invoked_subcommand is None:
        _list_held(ctx, corpus, waiting, as_json)


@quarantine.command("list")
@_of_corpus
@_waiting
@json_option
@click.pass_context
def quarantine_list(ctx: click.Context, corpus: str | None, waiting: bool, as_json: bool) -> None:
    """What is in it, decided or not.

    \b
    gtft corpus quarantine list --waiting
    """
    _list_held(ctx, corpus, waiting, as_json)


def _list_held(ctx: click.Context, corpus: str | None, waiting: bool, as_json: bool) -> None:
    held = [
        h for h in _quarantine(ctx).list() if not (waiting and h.decided) and _is_of(ctx, h, corpus)
    ]

    def render() -> None:
        print_table(
            ("example", "reasons", "from", "decided"),
            [(h.id, _say_reasons(h), _say_place(h), h.decided or "waits") for h in held],
            "the quarantine is empty",
        )
        if any(not h.decided for h in held):
            click.echo("next: gtft corpus quarantine show ID, then release or drop")

    emit({"held": [_describe_held(h) for h in held]}, as_json, render)


@quarantine.command("show")
@click.argument("example")
@json_option
@click.pass_context
def quarantine_show(ctx: click.Context, example: str, as_json: bool) -> None:
    """One example in quarantine: which reader holds it and where to look.

    \b
    gtft corpus quarantine show ex-01ac
    """
    held = _quarantine(ctx).find(example)

    def render() -> None:
        click.echo(f"{held.id}  {_say_place(held)}  {held.decided or 'waits'}")
        for r in held.reasons:
            click.echo(f"  {r.reader}: {r.where}")
        if held.decided:
            click.echo(f"  {held.decided} by {held.by}: {held.reason}")

    emit(_describe_held(held), as_json, render)


@quarantine.command()
@click.argument("example")
@click.option("--reason", required=True, help="Why the reader is wrong.")
@as_option
@_dry_run
@json_option
@click.pass_context
def release(
    ctx: click.Context, example: str, reason: str, actor: str | None, dry_run: bool, as_json: bool
) -> None:
    """It holds no secret: the next harvest takes it as it is. For people and the mayor.

    \b
    gtft corpus quarantine release ex-01ac --reason "a commit hash"
    """
    _decide(ctx, example, "released", reason, actor, dry_run, as_json)


@quarantine.command()
@click.argument("example")
@click.option("--reason", required=True, help="What it is.")
@as_option
@_dry_run
@json_option
@click.pass_context
def drop(
    ctx: click.Context, example: str, reason: str, actor: str | None, dry_run: bool, as_json: bool
) -> None:
    """It stays out of every corpus.

    \b
    gtft corpus quarantine drop ex-01ac --reason "a key"
    """
    _decide(ctx, example, "dropped", reason, actor, dry_run, as_json)


def _decide(
    ctx: click.Context,
    example: str,
    decided: Decision,
    reason: str,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from gtft.corpus.governance.consent import may_speak_for

    who = get_actor(actor)
    # An agent works on what was harvested; that a reader is wrong is for somebody else to say.
    if decided == "released" and not may_speak_for(who, ""):
        raise UsageError(
            f"{who} may not release what a reader holds",
            why="an agent may drop an example; people and the mayor may release one",
            fix="ask the mayor, or: gtft corpus quarantine drop ID --reason …",
        )
    room = _quarantine(ctx)
    held = room.find(example) if dry_run else room.decide(example, decided, who, reason)

    def render() -> None:
        click.echo(
            f"{held.id} {'would be ' if dry_run else ''}{decided}; it counts from the next harvest on"
        )

    emit({**_describe_held(held), "decision": decided, "dry_run": dry_run}, as_json, render)


def _quarantine(ctx: click.Context) -> Quarantine:
    from gtft.corpus.governance.quarantine import Quarantine

    return Quarantine(open_here(ctx).path)


def _is_of(ctx: click.Context, held: Held, corpus: str | None) -> bool:
    if corpus is None:
        return True
    from gtft.corpus.library import KIND
    from gtft.shelf import find_on_shelf, read_document

    found = find_on_shelf(open_here(ctx).artifacts, KIND, corpus)
    return held.id in read_document(found, "manifest.json").get("quarantined", ())


def _describe_held(held: Held) -> dict[str, Any]:
    import msgspec

    doc: dict[str, Any] = msgspec.to_builtins(held)
    return doc


def _say_reasons(held: Held) -> str:
    return "; ".join(f"{r.reader} at {r.where}" for r in held.reasons)


def _say_place(held: Held) -> str:
    return f"{held.origin.file}:{held.origin.lines[0]}-{held.origin.lines[1]}"


COMMANDS: tuple[click.Command, ...] = (quarantine,)
