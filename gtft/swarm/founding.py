"""What an operator does: found a swarm, admit peers by their cards, take one off, renew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.artifact import hash_json, write_file
from gtft.errors import ConflictError, InputError, UsageError, translate_os_error
from gtft.recipe.schema import Recipe
from gtft.swarm.document import (
    NAME_PATTERN,
    Members,
    check_address,
    make_member,
    name_swarm,
    read_members,
    sign_members,
)
from gtft.swarm.keys import OPERATOR, Identity, Operator, find_peer_id, make_operator, read_operator
from gtft.swarm.place import MEMBERS, list_swarms, swarm_folder
from gtft.swarm.terms import find_terms

_MOST_BYTES = 8 * 1024
_DAY = 24 * 3600


class Card(BaseModel):
    """What a peer sends to the operator: nothing in it is secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=NAME_PATTERN)
    public_key: str = Field(max_length=1000)
    # Where others reach it (multiaddresses without a peer); () = it only calls out.
    announce: tuple[str, ...] = Field((), max_length=8)


def read_card(path: Path) -> Card:
    """Raises InputError for what is no card."""
    try:
        with path.open("rb") as f:
            data = f.read(_MOST_BYTES + 1)
    except OSError as e:
        raise translate_os_error(e, "reading a card") from e
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        found = json.loads(data)
        # As `gtft swarm id --json` prints it.
        if isinstance(found, dict) and found.keys() == {"ok", "data"}:
            found = found["data"]
        if isinstance(found, dict):
            found.pop("peer_id", None)
        card = Card.model_validate_json(json.dumps(found))
        find_peer_id(card.public_key)
        for problem in (check_address(a, with_peer=False) for a in card.announce):
            if problem:
                raise ValueError(problem)
    except (ValidationError, ValueError, RecursionError) as e:
        why = e.errors()[0]["msg"] if isinstance(e, ValidationError) else str(e)
        raise InputError(
            f"{path} is not the card of a peer",
            why=why,
            fix="on the peer's machine: gtft swarm id > card.json",
        ) from e
    return card


def check_name_free(workspace: Path, name: str) -> None:
    """Raises ConflictError when this workspace knows a swarm of that name."""
    for folder in list_swarms(workspace):
        if folder.name.rpartition("-")[0] == name:
            raise ConflictError(
                f"there is a swarm {folder.name} here already",
                why="a name stands for one swarm in a workspace",
                fix=f"another --name; or to seat a run in it: gtft swarm join {folder / MEMBERS} RECIPE",
            )


def found_swarm(
    workspace: Path,
    name: str,
    own: Card,
    identity: Identity,
    cards: Sequence[Card],
    *,
    recipe: Recipe,
    formula: str,
    base: tuple[str, str],
    bootstrap: Sequence[str],
    days: int,
    now: float,
) -> Path:
    """Make a swarm with its operator key and member file; returns its folder. ``base``: (id, name).

    Raises InputError for a name, card or address that cannot be used; nothing is left then.
    """
    name_swarm(name, "00")
    aside = workspace / "swarms" / f".new-{name}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        operator = make_operator(aside / OPERATOR)
        swarm = name_swarm(name, operator.public_key)
        terms = find_terms(recipe)
        expires = int(now) + days * _DAY
        all_cards = (own, *cards)
        members = Members(
            swarm=swarm,
            operator=operator.public_key,
            serial=1,
            not_before=int(now),
            expires=expires,
            formula=formula,
            recipe=hash_json(terms),
            terms=terms,
            base=base[0],
            base_name=base[1],
            creator=identity.peer_id,
            bootstrap=_gather_bootstrap(bootstrap, all_cards),
            members=tuple(
                make_member(operator, swarm, c.name, c.public_key, 1, expires) for c in all_cards
            ),
        )
        _write(aside, members, operator)
        folder = swarm_folder(workspace, swarm)
        aside.rename(folder)
    except OSError as e:
        raise translate_os_error(e, "making a swarm") from e
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def admit(
    folder: Path, cards: Sequence[Card], bootstrap: Sequence[str], days: int | None, now: float
) -> Members:
    """Add members and addresses, and with ``days`` let everybody stay that long from now. A card of a peer
    that is a member already changes its addresses. Raises InputError and UsageError."""
    operator, held = _open(folder)
    serial = held.serial + 1
    expires = held.expires if days is None else int(now) + days * _DAY
    if expires <= now:
        raise UsageError(
            f"{held.name} has ended",
            why="nobody can be admitted to a swarm that is over",
            fix=f"gtft swarm invite {held.name} --days 30",
        )
    fresh = {find_peer_id(c.public_key): c for c in cards}
    kept = [(m.name, m.public_key, m.since) for m in held.members]
    known = {m.peer_id for m in held.members}
    added = [(c.name, c.public_key, serial) for p, c in fresh.items() if p not in known]
    document = held.model_copy(
        update={
            "serial": serial,
            "expires": expires,
            "bootstrap": _gather_bootstrap((*held.bootstrap, *bootstrap), cards),
            "members": tuple(
                make_member(operator, held.swarm, n, k, since, expires)
                for n, k, since in (*kept, *added)
            ),
        }
    )
    return _write(folder, document, operator)


def expel(folder: Path, name: str) -> Members:
    """Take a member off; it is out at the next round. Raises UsageError."""
    operator, held = _open(folder)
    gone = next((m for m in held.members if name in (m.name, m.peer_id)), None)
    if gone is None or gone.peer_id == held.creator:
        raise UsageError(
            f"{json.dumps(name)} cannot be taken off {held.name}",
            why="the creator stays"
            if gone
            else "members: " + ", ".join(m.name for m in held.members),
            fix=f"gtft swarm status {held.name}",
        )
    document = held.model_copy(
        update={
            "serial": held.serial + 1,
            "members": tuple(m for m in held.members if m is not gone),
            "bootstrap": tuple(a for a in held.bootstrap if not a.endswith(f"/p2p/{gone.peer_id}")),
        }
    )
    return _write(folder, document, operator)


def _open(folder: Path) -> tuple[Operator, Members]:
    return read_operator(folder / OPERATOR), read_members(folder / MEMBERS, swarm=folder.name)


def _write(folder: Path, document: Members, operator: Operator) -> Members:
    _check_unique(document)
    # Through the same checks as a file from outside.
    checked = Members.model_validate_json(document.model_dump_json())
    write_file(folder / MEMBERS, sign_members(checked, operator))
    return checked


def _gather_bootstrap(given: Sequence[str], cards: Sequence[Card]) -> tuple[str, ...]:
    for problem in (check_address(a, with_peer=True) for a in given):
        if problem:
            raise InputError(problem, fix="--bootstrap /ip4/ADDRESS/tcp/PORT/p2p/PEER")
    told = (f"{a}/p2p/{find_peer_id(c.public_key)}" for c in cards for a in c.announce)
    return tuple(dict.fromkeys((*given, *told)))


def _check_unique(members: Members) -> None:
    names = [m.name for m in members.members]
    peers = [m.peer_id for m in members.members]
    for value in (*names, *peers):
        if names.count(value) + peers.count(value) > 1:
            raise ConflictError(
                f"{value} is twice among the members of {members.name}",
                why="every member has a name and a key of its own",
                fix="that peer makes another card: gtft swarm id --name NAME",
            )
