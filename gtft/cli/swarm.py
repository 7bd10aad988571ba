"""``gtft swarm``: two towns train one adapter; only its numbers leave a machine."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.artifact import canonical_json, short_id, write_file
from gtft.cli.context import as_option, check_harvest, get_actor, open_here
from gtft.cli.output import emit, json_option, print_table
from gtft.cli.recipe_options import recipe_options, resolve_given
from gtft.errors import GtftError, UsageError

if TYPE_CHECKING:
    from gtft.recipe.resolve import Resolved
    from gtft.runner.workspace import Workspace
    from gtft.swarm.founding import Card
    from gtft.swarm.keys import Identity

PORT = 31330
LISTEN = f"/ip4/0.0.0.0/tcp/{PORT}"

listen_option = click.option(
    "--listen",
    metavar="ADDRESS",
    multiple=True,
    help=f"Where this peer listens.  [default: {LISTEN}]",
)
announce_option = click.option(
    "--announce",
    metavar="ADDRESS",
    multiple=True,
    help=f"How others reach this machine: /ip4/YOUR.ADDRESS/tcp/{PORT}",
)
dry_option = click.option("--dry-run", is_flag=True, help="Say what would be done; do nothing.")
run_option = click.option("--run", "run", metavar="RUN", help="Seat this run; dispatch none.")


@click.group(
    "swarm",
    epilog="""\b
Two towns, one adapter:
  there   gtft swarm id --name berlin --announce /ip4/203.0.113.9/tcp/31330 > berlin.json
  here    gtft swarm create RECIPE --name crew --allow berlin.json --announce /ip4/198.51.100.7/tcp/31330
          (send them the invitation that it writes) ; gtft run RUN
  there   gtft swarm join crew.invitation.json RECIPE ; gtft run RUN
\b
Only adapter weights leave a machine, never examples: docs/swarm.md
""",
)
def command() -> None:
    """Train one adapter with peers: id, create, invite, remove, join, status, leave."""


@command.command("id", epilog="\b\nExample:\n  gtft swarm id --name berlin > berlin.json")
@click.option("--name", default="peer", show_default=True, help="What the others call this peer.")
@announce_option
@json_option
@click.pass_context
def id_(ctx: click.Context, name: str, announce: tuple[str, ...], as_json: bool) -> None:
    """This workspace's card, for the operator. Its key is made once and never leaves.

    Prints the card: name, peer id, public key and addresses; nothing in it is secret.
    """
    from gtft.swarm.keys import require_swarm_extra

    require_swarm_extra()
    ws = open_here(ctx)
    card, identity = _make_card(ws, name, announce)
    data = {**card.model_dump(mode="json"), "peer_id": identity.peer_id}
    emit(data, as_json, lambda: click.echo(canonical_json(data)))


@command.command(
    "create",
    epilog="""\b
Examples:
  gtft swarm create RECIPE --name crew --allow berlin.json --announce /ip4/198.51.100.7/tcp/31330
  gtft swarm create RECIPE --name crew --run run-1122 --dry-run
""",
)
@click.argument("recipe")
@recipe_options
@click.option("--name", required=True, help="a-z, 0-9 and -, up to 32.")
@click.option("--as-member", default="creator", show_default=True, help="Our own name in it.")
@click.option("--allow", metavar="CARD", multiple=True, help="Cards of peers (gtft swarm id).")
@listen_option
@announce_option
@click.option(
    "--bootstrap", metavar="ADDRESS", multiple=True, help="More first addresses (…/p2p/ID)."
)
@click.option(
    "--days", default=30, show_default=True, type=click.IntRange(1, 3650), help="It ends then."
)
@run_option
@dry_option
@as_option
@json_option
@click.pass_context
def create(
    ctx: click.Context,
    recipe: str,
    variables: tuple[str, ...],
    sets: tuple[str, ...],
    overlays: tuple[str, ...],
    name: str,
    as_member: str,
    allow: tuple[str, ...],
    listen: tuple[str, ...],
    announce: tuple[str, ...],
    bootstrap: tuple[str, ...],
    days: int,
    run: str | None,
    dry_run: bool,
    actor: str | None,
    as_json: bool,
) -> None:
    """Make a swarm for RECIPE: its operator key, its member file and our own run in it.

    The base must be a folder or a pinned hub id: every peer needs the same files.
    """
    from gtft.runner.control import get_run
    from gtft.runner.dispatch import find_sources_root
    from gtft.runner.swarming import check_run, hash_base, take_seat
    from gtft.swarm.document import name_swarm
    from gtft.swarm.founding import check_name_free, found_swarm, read_card
    from gtft.swarm.keys import require_swarm_extra
    from gtft.swarm.preflight import check_listen

    require_swarm_extra()
    ws = open_here(ctx)
    who = get_actor(actor)
    name_swarm(name, "00")
    listens = listen or (LISTEN,)
    check_listen(listens)
    cards = tuple(read_card(Path(p)) for p in allow)
    resolved = resolve_given(recipe, variables, _with_engine(sets), overlays)
    seated = get_run(ws, run) if run is not None else None
    if seated is not None:
        check_run(ws, seated, None)
        _check_same_recipe(resolved, seated.recipe["recipe"], seated.id)
    else:
        check_harvest(ws, resolved.recipe, who)
    announced = announce or _announce_from(listens)
    check_name_free(ws.path, name)
    root = Path(seated.root) if seated is not None else find_sources_root(ws, Path.cwd())
    base = hash_base(ws.path, resolved.recipe.base, root, os.environ)
    data: dict[str, Any] = {
        "name": name,
        "base": {"id": base[0], "name": base[1]},
        "members": [as_member, *(c.name for c in cards)],
        "listen": list(listens),
        "announce": list(announced),
        "dry_run": dry_run,
    }
    if dry_run:
        emit(data, as_json, lambda: _show_plan(data, seated.id if seated else None))
        return
    own, identity = _make_card(ws, as_member, announced)
    folder = found_swarm(
        ws.path,
        name,
        own,
        identity,
        cards,
        recipe=resolved.recipe,
        formula=resolved.formula,
        base=base,
        bootstrap=bootstrap,
        days=days,
        now=ws.now(),
    )
    run_id = seated.id if seated is not None else _dispatch(ws, resolved, who, root)
    take_seat(folder, run_id, listens, announce)
    invitation = _write_invitation(folder, Path.cwd() / f"{name}.invitation.json")
    data |= {"swarm": folder.name, "run": run_id, "invitation": str(invitation)}

    def render() -> None:
        click.echo(f"swarm {folder.name}: members {', '.join(data['members'])}; our run {run_id}")
        click.echo(f"invitation for them: {invitation}")
        click.echo(f"they compare its name with yours: {folder.name}")
        click.echo(f"next: gtft run {run_id}    (it waits at its first round for the others)")

    emit(data, as_json, render)


@command.command(
    "invite",
    epilog="\b\nExamples:\n  gtft swarm invite crew oslo.json\n  gtft swarm invite crew --days 30",
)
@click.argument("swarm")
@click.argument("cards", nargs=-1, metavar="[CARD]...")
@click.option(
    "--bootstrap", metavar="ADDRESS", multiple=True, help="More first addresses (…/p2p/ID)."
)
@click.option("--days", type=click.IntRange(1, 3650), help="Let it end that many days from now.")
@click.option(
    "--out", metavar="FILE", help="Where the invitation goes.  [default: NAME.invitation.json]"
)
@dry_option
@json_option
@click.pass_context
def invite(
    ctx: click.Context,
    swarm: str,
    cards: tuple[str, ...],
    bootstrap: tuple[str, ...],
    days: int | None,
    out: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Admit the peers of these CARDs, sign the member file again, and write the invitation.

    A peer that runs already gets the new list from ours at the next round.
    """
    from gtft.swarm.document import read_members
    from gtft.swarm.founding import admit, read_card
    from gtft.swarm.place import MEMBERS, find_swarm

    ws = open_here(ctx)
    folder = find_swarm(ws.path, swarm)
    read = tuple(read_card(Path(p)) for p in cards)
    members = read_members(folder / MEMBERS, swarm=folder.name)
    path = Path(out) if out else Path.cwd() / f"{members.name}.invitation.json"
    changed = bool(read or bootstrap or days)
    if not dry_run:
        if changed:
            members = admit(folder, read, bootstrap, days, ws.now())
        _write_invitation(folder, path)
    names = [m.name for m in members.members]
    data = {"swarm": folder.name, "members": names, "invitation": str(path), "dry_run": dry_run}

    def render() -> None:
        would = "would admit" if dry_run else "members"
        shown = [c.name for c in read] if dry_run else names
        click.echo(f"{folder.name}: {would} {', '.join(shown) or 'nobody new'}")
        if not dry_run:
            click.echo(f"send it to the new one: {path}")

    emit(data, as_json, render)


@command.command("remove", epilog="\b\nExample:\n  gtft swarm remove crew oslo")
@click.argument("swarm")
@click.argument("member")
@dry_option
@json_option
@click.pass_context
def remove(ctx: click.Context, swarm: str, member: str, dry_run: bool, as_json: bool) -> None:
    """Take MEMBER off the list: it is out at the next round. What it gave stays in the adapter."""
    from gtft.swarm.document import read_members
    from gtft.swarm.founding import expel
    from gtft.swarm.keys import OPERATOR, read_operator
    from gtft.swarm.place import MEMBERS, find_swarm

    folder = find_swarm(open_here(ctx).path, swarm)
    read_operator(folder / OPERATOR)
    members = read_members(folder / MEMBERS) if dry_run else expel(folder, member)
    left = [m.name for m in members.members if not dry_run or member not in (m.name, m.peer_id)]
    would = "would stay" if dry_run else "stay"
    data = {"swarm": folder.name, "members": left, "dry_run": dry_run}
    emit(data, as_json, lambda: click.echo(f"{folder.name}: {would}: {', '.join(left)}"))


@command.command(
    "join",
    epilog="""\b
Examples:
  gtft swarm join crew.invitation.json mol-gtft-mine --var rig=gizmo
  gtft swarm join crew.invitation.json mol-gtft-mine --dry-run      every check, nothing created
  gtft swarm join crew.invitation.json --run run-1122
""",
)
@click.argument("invitation")
@click.argument("recipe", required=False)
@recipe_options
@listen_option
@announce_option
@run_option
@click.option("--offline", is_flag=True, help="Do not ask the swarm now whether it answers.")
@dry_option
@as_option
@json_option
@click.pass_context
def join(
    ctx: click.Context,
    invitation: str,
    recipe: str | None,
    variables: tuple[str, ...],
    sets: tuple[str, ...],
    overlays: tuple[str, ...],
    listen: tuple[str, ...],
    announce: tuple[str, ...],
    run: str | None,
    offline: bool,
    dry_run: bool,
    actor: str | None,
    as_json: bool,
) -> None:
    """Take part in a swarm with our own corpus: check everything, then dispatch our run.

    INVITATION is the operator's file. RECIPE must train as the swarm does; what it harvests is our own
    matter.  [default: the formula that the invitation names]
    """
    from gtft.runner.control import get_run
    from gtft.runner.dispatch import find_sources_root
    from gtft.runner.swarming import check_free, check_run, hash_base, look_at, take_seat
    from gtft.swarm.document import NAME, read_members
    from gtft.swarm.keys import IDENTITY, read_identity, require_swarm_extra
    from gtft.swarm.place import find_newest, identity_folder, keep_members, swarm_folder
    from gtft.swarm.preflight import (
        check_answers,
        check_base,
        check_bootstrap,
        check_dates,
        check_listen,
        check_member,
        check_terms,
    )
    from gtft.swarm.terms import find_terms

    require_swarm_extra()
    ws = open_here(ctx)
    who = get_actor(actor)
    members = read_members(Path(invitation))
    folder = swarm_folder(ws.path, members.swarm)
    members = find_newest(folder, members)
    check_dates(members, ws.now())
    identity = read_identity(identity_folder(ws.path) / IDENTITY)
    own = check_member(members, identity.peer_id)
    check_bootstrap(members, identity.peer_id, members.bootstrap)
    listens = listen or (LISTEN,)
    check_listen(listens)
    resolved: Resolved | None = None
    if run is not None:
        seated = get_run(ws, run)
        check_run(ws, seated, folder)
        recipe_read = _read_recipe(seated.recipe["recipe"])
        label, root = seated.id, Path(seated.root)
    else:
        if recipe is None and not NAME.fullmatch(members.formula):
            raise UsageError(
                "which recipe?", why="the invitation names none", fix="gtft recipe list"
            )
        resolved = resolve_given(recipe or members.formula, variables, _with_engine(sets), overlays)
        recipe_read, label = resolved.recipe, resolved.formula
        root = find_sources_root(ws, Path.cwd())
        check_harvest(ws, recipe_read, who)
    check_free(ws, folder, run and seated.id)
    check_terms(members, find_terms(recipe_read), label)
    base, base_name = hash_base(ws.path, recipe_read.base, root, os.environ)
    check_base(members, base, base_name)
    asked = not offline and identity.peer_id != members.creator
    if asked:
        with tempfile.TemporaryDirectory() as aside:
            for_look = Path(aside) / members.swarm
            keep_members(for_look, Path(invitation).read_bytes())
            answers, _, here = look_at(ws.path, for_look, os.environ)
        check_answers(members, answers)
    data: dict[str, Any] = {
        "swarm": members.swarm,
        "member": own.name,
        "members": [m.name for m in members.members],
        "ends": members.expires,
        "dry_run": dry_run,
    }
    if not dry_run:
        keep_members(folder, Path(invitation).read_bytes())
        run_id = seated.id if run is not None else _dispatch(ws, resolved, who, root)
        take_seat(folder, run_id, listens, announce)
        data["run"] = run_id

    def render() -> None:
        click.echo(f"swarm {members.swarm} (compare this name with the operator's)")
        click.echo(f"we are {own.name}; with us: {', '.join(data['members'])}")
        if asked:
            click.echo(f"it answers; {len(here)} of them train now")
        if dry_run:
            click.echo("every check holds; nothing was created (--dry-run)")
        else:
            click.echo(f"next: gtft run {data['run']}")

    emit(data, as_json, render)


@command.command(
    "status", epilog="\b\nExamples:\n  gtft swarm status\n  gtft swarm status crew --json"
)
@click.argument("swarm", required=False)
@click.option("--offline", is_flag=True, help="Only what this workspace knows.")
@json_option
@click.pass_context
def status(ctx: click.Context, swarm: str | None, offline: bool, as_json: bool) -> None:
    """Who is in it, at which round, with how many samples; asked of the swarm when it answers."""
    from gtft.runner.swarming import look_at
    from gtft.swarm.document import read_members
    from gtft.swarm.place import MEMBERS, find_swarm
    from gtft.swarm.preflight import check_answers
    from gtft.swarm.view import view_swarm

    ws = open_here(ctx)
    folder = find_swarm(ws.path, swarm)
    members = read_members(folder / MEMBERS, swarm=folder.name)
    records: dict[str, Any] = {}
    here: dict[str, int] | None = None
    away = "not asked (--offline)"
    if not offline:
        try:
            answers, records, here = look_at(ws.path, folder, os.environ)
            check_answers(members, answers)
        except GtftError as e:
            here, away = None, e.what
    view = view_swarm(ws.path, folder, records, here, ws.now())

    def render() -> None:
        ends = time.strftime("%Y-%m-%d", time.gmtime(view["ends"]))
        click.echo(f"{view['swarm']}  run {view['run'] or 'none here'}  ends {ends}")
        source = "the swarm itself" if here is not None else f"this run's own file; {away}"
        click.echo(f"from {source}\n")
        print_table(
            (
                "member",
                "is",
                "round",
                "samples",
                "failed",
                "pulls",
                "lineage",
                "adapter",
                "last seen",
            ),
            [_status_line(m) for m in view["members"]],
            empty="no members",
        )

    view["source"] = "swarm" if here is not None else "file"
    view["away"] = "" if here is not None else away
    emit(view, as_json, render)


@command.command("leave", epilog="\b\nExample:\n  gtft swarm leave crew")
@click.argument("swarm", required=False)
@dry_option
@json_option
@click.pass_context
def leave(ctx: click.Context, swarm: str | None, dry_run: bool, as_json: bool) -> None:
    """Leave after the round that is under way; the run pauses, and comes back with: gtft runs resume."""
    from gtft.runner.swarming import is_training
    from gtft.swarm.place import ask_to_leave, find_swarm, read_seat

    ws = open_here(ctx)
    folder = find_swarm(ws.path, swarm)
    seat = read_seat(folder)
    if seat is None or not is_training(ws, seat.run):
        raise UsageError(
            f"nothing of ours trains in {folder.name} now",
            why="there is nothing to leave",
            fix=f"gtft swarm status {folder.name}",
        )
    if not dry_run:
        ask_to_leave(folder)
    would = "would leave" if dry_run else "leaves"
    data = {"swarm": folder.name, "run": seat.run, "dry_run": dry_run}
    emit(
        data,
        as_json,
        lambda: click.echo(
            f"{seat.run} {would} {folder.name} after this round; back in: gtft runs resume {seat.run}"
        ),
    )


def _make_card(ws: Workspace, name: str, announce: tuple[str, ...]) -> tuple[Card, Identity]:
    from gtft.swarm.document import NAME, check_address
    from gtft.swarm.founding import Card
    from gtft.swarm.keys import ensure_identity
    from gtft.swarm.place import identity_folder

    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name", why="a-z, 0-9 and -, up to 32", fix="--name berlin"
        )
    for problem in (check_address(a, with_peer=False) for a in announce):
        if problem:
            raise UsageError(problem, fix=f"--announce /ip4/YOUR.ADDRESS/tcp/{PORT}")
    identity = ensure_identity(identity_folder(ws.path))
    return Card(name=name, public_key=identity.public_key, announce=announce), identity


def _announce_from(listens: tuple[str, ...]) -> tuple[str, ...]:
    """Addresses that we listen on and that others can dial as they are. Raises UsageError when there are none:
    nobody could find the creator."""
    named = tuple(
        a for a in listens if "/0.0.0.0/" not in a and "/::/" not in a and "/tcp/0" not in a
    )
    if not named:
        raise UsageError(
            "at which address do the others reach this machine?",
            why=f"it listens on {', '.join(listens)}, which nobody can dial",
            fix=f"--announce /ip4/YOUR.ADDRESS/tcp/{PORT}",
        )
    return named


def _with_engine(sets: tuple[str, ...]) -> tuple[str, ...]:
    """Who says swarm means the engine too."""
    return (*sets, 'train.engine="swarm"')


def _read_recipe(document: Any) -> Any:
    import json

    from gtft.recipe.schema import Recipe

    return Recipe.model_validate_json(json.dumps(document))


def _check_same_recipe(resolved: Resolved, document: Any, run_id: str) -> None:
    """A run keeps its recipe: the one that was typed must train in the same way. Raises UsageError."""
    from gtft.swarm.terms import compare_terms, find_terms

    differs = compare_terms(find_terms(resolved.recipe), find_terms(_read_recipe(document)))
    if differs:
        raise UsageError(
            f"{run_id} trains in another way than {resolved.formula}",
            why="; ".join(differs),
            fix="leave --run out, or give the run's own recipe with its --set and --overlay",
        )


def _dispatch(ws: Workspace, resolved: Resolved | None, who: str, root: Path) -> str:
    from gtft.runner.dispatch import dispatch

    assert resolved is not None
    return dispatch(ws, resolved, who, root)


def _write_invitation(folder: Path, path: Path) -> Path:
    from gtft.swarm.place import MEMBERS

    write_file(path, (folder / MEMBERS).read_bytes())
    return path


def _show_plan(data: dict[str, Any], run_id: str | None) -> None:
    click.echo(f"swarm {data['name']}: members {', '.join(data['members'])}")
    click.echo(f"base    {data['base']['name']} ({short_id(data['base']['id'])})")
    click.echo(f"listens {', '.join(data['listen'])}; announced {', '.join(data['announce'])}")
    click.echo(f"run     {run_id or 'one would be dispatched'}")
    click.echo("nothing was created (--dry-run)")


def _status_line(m: dict[str, Any]) -> tuple[object, ...]:
    seen = time.strftime("%m-%d %H:%M:%S", time.localtime(m["seen"])) if m["seen"] else "–"
    return (
        m["name"] + (" (us)" if m["us"] else "") + (" (creator)" if m["creator"] else ""),
        m["state"],
        m["round"],
        m["samples"],
        m["failures"],
        m["pulls"],
        m["lineage"][:12] or "–",
        short_id(m["adapter"]) if m["adapter"] else "–",
        seen,
    )
