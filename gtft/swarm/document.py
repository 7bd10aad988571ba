"""The member file: one document, signed by the swarm's operator, that says who may take part and in what.

The file is the canonical JSON of ``{"document": …, "signature": …}`` and a newline: one spelling, so that
any changed byte is refused. It is the invitation too: who holds it and the private key of one of its
members may join. The swarm's id ends with the hash of the operator's key, so no other key can sign for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.artifact import canonical_json, hash_json
from gtft.errors import InputError, translate_os_error
from gtft.swarm.keys import Operator, find_peer_id, is_signed_by_operator

FORMAT = 1
# A member is about 1 KiB; no honest member file comes near.
MOST_BYTES = 256 * 1024
_NAME = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
NAME = re.compile(_NAME)
NAME_PATTERN = f"^{_NAME}$"
_PEER_ID = r"[1-9A-HJ-NP-Za-km-z]{40,60}"
ADDRESS = re.compile(
    r"/(ip4/[0-9.]{7,15}|ip6/[0-9a-f:]{2,39}|dns[46]?/[a-zA-Z0-9.-]{1,253})/tcp/([0-9]{1,5})"
    rf"(?:/p2p/({_PEER_ID}))?"
)
_DOMAIN = b"gtft swarm members 1\n"
_HASH = r"^sha256:[0-9a-f]{64}$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Member(_Frozen):
    """A peer that may take part, ``since`` the member file of that number. ``token``: the operator's
    signature for the DHT (`token_text`)."""

    name: str = Field(pattern=NAME_PATTERN)
    since: int = Field(ge=1, le=1_000_000)
    peer_id: str = Field(pattern=f"^{_PEER_ID}$")
    public_key: str = Field(max_length=1000)
    token: str = Field(pattern="^[0-9a-f]{128}$")


class Members(_Frozen):
    """The signed document. Times in whole seconds since 1970; ``serial`` grows with every change."""

    format: int = FORMAT
    swarm: str = Field(pattern=f"^{_NAME}-[0-9a-f]{{12}}$")
    operator: str = Field(pattern="^[0-9a-f]{64}$")
    serial: int = Field(ge=1, le=1_000_000)
    not_before: int = Field(ge=0, le=2**40)
    expires: int = Field(ge=0, le=2**40)
    formula: str = Field(max_length=200)
    recipe: str = Field(pattern=_HASH)
    terms: dict[str, Any]
    base: str = Field(pattern=_HASH)
    base_name: str = Field(max_length=300)
    creator: str = Field(pattern=f"^{_PEER_ID}$")
    bootstrap: tuple[str, ...] = Field(max_length=64)
    members: tuple[Member, ...] = Field(min_length=1, max_length=128)

    @property
    def name(self) -> str:
        return self.swarm.rpartition("-")[0]

    @property
    def fingerprint(self) -> str:
        """What every peer must have in common: the recipe's terms and the base."""
        return hash_json([self.swarm, self.recipe, self.base])

    def find(self, peer_id: str) -> Member | None:
        return next((m for m in self.members if m.peer_id == peer_id), None)


def name_swarm(name: str, operator: str) -> str:
    """The swarm's id. Raises InputError for a name that cannot be one."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"{json.dumps(name)} cannot be the name of a swarm",
            why="a name has up to 32 of a-z, 0-9 and -, and begins and ends with a letter or digit",
            fix="gtft swarm create RECIPE --name NAME",
        )
    return f"{name}-{hashlib.sha256(bytes.fromhex(operator)).hexdigest()[:12]}"


def make_member(
    operator: Operator, swarm: str, name: str, public_key: str, since: int, expires: int
) -> Member:
    """A member with a token for the DHT. Raises InputError for a key or name that cannot be used."""
    try:
        peer_id = find_peer_id(public_key)
        if not NAME.fullmatch(name):
            raise ValueError(f"{json.dumps(name)} is no name (a-z, 0-9, -)")
    except ValueError as e:
        raise InputError(
            "that is not the card of a peer", why=str(e), fix="on the peer's machine: gtft swarm id"
        ) from e
    token = operator.sign(token_text(swarm, name_user(peer_id, since), public_key, str(expires)))
    return Member(name=name, since=since, peer_id=peer_id, public_key=public_key, token=token)


def name_user(peer_id: str, since: int) -> str:
    """The user name of a token: who, and since when, so that a newcomer is told from one taken off."""
    return f"{peer_id} {since}"


def token_text(swarm: str, username: str, public_key: str, expiration_time: str) -> bytes:
    """What the operator signs for the DHT: good for this swarm, this key and until then only."""
    return f"gtft swarm token 1\n{swarm}\n{username}\n{public_key}\n{expiration_time}".encode()


def sign_members(members: Members, operator: Operator) -> bytes:
    """The member file's bytes."""
    document = members.model_dump(mode="json")
    return _encode(document, operator.sign(_signed(document)))


def parse_members(data: bytes, *, swarm: str | None = None) -> Members:
    """The document of a member file, once everything that can be checked without a clock holds.

    ``swarm``: the id it must be of. Raises InputError that says what is off.
    """
    if len(data) > MOST_BYTES:
        raise _refuse(f"it has {len(data)} bytes, more than {MOST_BYTES}")
    try:
        outer = json.loads(data)
        document, signature = outer["document"], outer["signature"]
        if not isinstance(signature, str) or _encode(document, signature) != data:
            raise _refuse("it is not spelled as its operator wrote it")
        if not is_signed_by_operator(document["operator"], _signed(document), signature):
            raise _refuse("its signature does not fit: it was changed, or another key signed it")
        members = Members.model_validate_json(canonical_json(document))
    except ValidationError as e:
        first = e.errors()[0]
        raise _refuse(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from e
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as e:
        raise _refuse("it is not the JSON of a member file") from e
    for problem in _check(members, swarm):
        raise _refuse(problem)
    return members


def read_members(path: Path, *, swarm: str | None = None) -> Members:
    """`parse_members` of a file."""
    try:
        with path.open("rb") as f:
            data = f.read(MOST_BYTES + 1)
    except OSError as e:
        raise translate_os_error(e, "reading a member file") from e
    return parse_members(data, swarm=swarm)


def _check(members: Members, swarm: str | None) -> Iterable[str]:
    if members.format != FORMAT:
        yield f"it has format {members.format}; this gtft reads {FORMAT}"
    if members.swarm != name_swarm(members.name, members.operator):
        yield f"its operator's key is not that of {members.swarm}"
    if swarm is not None and members.swarm != swarm:
        yield f"it is of another swarm, {members.swarm}"
    if members.not_before >= members.expires:
        yield "it ends before it begins"
    if hash_json(members.terms) != members.recipe:
        yield "its recipe does not have the hash that it states"
    if len({m.peer_id for m in members.members}) != len(members.members):
        yield "a peer is in it twice"
    if len({m.name for m in members.members}) != len(members.members):
        yield "two members have one name"
    if members.find(members.creator) is None:
        yield "its creator is not a member"
    for address in members.bootstrap:
        if (problem := check_address(address, with_peer=True)) != "":
            yield problem
    for m in members.members:
        user = name_user(m.peer_id, m.since)
        text = token_text(members.swarm, user, m.public_key, str(members.expires))
        try:
            if find_peer_id(m.public_key) != m.peer_id:
                yield f"the key of {m.name} is not that of its peer id"
        except ValueError as e:
            yield f"the key of {m.name} cannot be used: {e}"
        if not is_signed_by_operator(members.operator, text, m.token):
            yield f"the token of {m.name} was not made for it"


def check_address(address: str, *, with_peer: bool) -> str:
    """What is wrong with a multiaddress; "" when nothing is."""
    found = ADDRESS.fullmatch(address)
    shown = json.dumps(address[:120])
    if found is None:
        return f"{shown} is no address; one looks like /ip4/203.0.113.5/tcp/31330"
    if int(found[2]) > 65535:
        return f"{shown} has no such port"
    if with_peer and not found[3]:
        return f"{shown} does not say whose it is (…/p2p/PEER)"
    return ""


def _signed(document: object) -> bytes:
    return _DOMAIN + canonical_json(document).encode()


def _encode(document: object, signature: str) -> bytes:
    return (canonical_json({"document": document, "signature": signature}) + "\n").encode()


def _refuse(why: str) -> InputError:
    return InputError(
        "this invitation (member file) is refused",
        why=why,
        fix="ask the swarm's operator to send it again: gtft swarm invite SWARM",
    )
