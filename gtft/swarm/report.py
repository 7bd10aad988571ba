"""What a peer says of its part in a swarm, signed by its identity; and the table of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.artifact import canonical_json, short_id
from gtft.errors import EvidenceError
from gtft.swarm.document import Members, check_address
from gtft.swarm.keys import Identity, find_peer_id, is_signed_by_peer

MOST_BYTES = 16 * 1024
_DOMAIN = b"gtft swarm record 1\n"
_COUNT = Field(ge=0, le=2**53)
_HASH = r"^(sha256:[0-9a-f]{64})?$"


class Record(BaseModel):
    """A peer's figures so far. No clock: it goes into the artifact of the run.

    ``seq`` grows with every record; ``round`` is the last one it was in; ``samples`` are its own rows;
    ``adapter`` is the hash after that round, ``final`` that of the finished adapter, "" until then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    swarm: str = Field(max_length=64)
    peer_id: str = Field(max_length=64)
    seq: int = _COUNT
    round: int = _COUNT
    rounds: int = _COUNT
    samples: int = _COUNT
    bytes_sent: int = _COUNT
    failures: int = _COUNT
    retries: int = _COUNT
    pulls: int = _COUNT
    lineage: str = Field(max_length=100, pattern="^[0-9a-zA-Z:]*$")
    adapter: str = Field(pattern=_HASH)
    final: str = Field("", pattern=_HASH)
    left: bool = False
    addresses: tuple[str, ...] = Field((), max_length=16)


@dataclass(frozen=True)
class Signed:
    """A record that was found to be its peer's own, with what proves it."""

    record: Record
    payload: str
    signature: str


def sign_record(record: Record, identity: Identity) -> Signed:
    payload = canonical_json(record.model_dump(mode="json"))
    return Signed(record, payload, identity.sign(_DOMAIN + payload.encode()))


def read_record(payload: object, signature: object, swarm: str, public_key: str) -> Signed:
    """A record of ``swarm`` signed by the peer with ``public_key``. Raises ValueError for anything else."""
    if not isinstance(payload, str) or not isinstance(signature, str):
        raise ValueError("a record is two texts")
    if len(payload) > MOST_BYTES or len(signature) > MOST_BYTES:
        raise ValueError(f"a record of more than {MOST_BYTES} bytes")
    if not is_signed_by_peer(public_key, _DOMAIN + payload.encode(), signature):
        raise ValueError("its signature does not fit")
    try:
        record = Record.model_validate_json(payload)
    except ValidationError as e:
        raise ValueError(f"not a record: {e.errors()[0]['msg']}") from e
    if record.swarm != swarm or record.peer_id != find_peer_id(public_key):
        raise ValueError("it is of another swarm or peer")
    own = f"/p2p/{record.peer_id}"
    if any(check_address(a, with_peer=True) or not a.endswith(own) for a in record.addresses):
        raise ValueError("an address in it is not its own")
    return Signed(record, payload, signature)


def make_table(signed: Iterable[Signed], members: Members) -> list[dict[str, str]]:
    """What an artifact keeps of every member that was heard of, by name; `check_table` reads it again."""
    by_peer = {s.record.peer_id: s for s in signed}
    rows = []
    for m in sorted(members.members, key=lambda m: m.name):
        if (s := by_peer.get(m.peer_id)) is not None:
            row = {"name": m.name, "public_key": m.public_key}
            rows.append({**row, "payload": s.payload, "signature": s.signature})
    return rows


def check_table(block: Mapping[str, Any]) -> list[tuple[str, Record]]:
    """The (name, record) of every row of a summary's swarm block. Raises EvidenceError when one was not
    signed by the peer it is about."""
    try:
        rows = [
            (
                str(row["name"]),
                read_record(
                    row["payload"], row["signature"], block["swarm"], row["public_key"]
                ).record,
            )
            for row in block["members"]
        ]
    except (ValueError, KeyError, TypeError) as e:
        raise EvidenceError(
            "the table of the swarm's members does not hold",
            why=str(e) or repr(e),
            fix="gtft runs logs RUN --stage train",
        ) from e
    if not any(r.peer_id == block.get("peer_id") for _, r in rows):
        raise EvidenceError(
            "the swarm block has no record of this run's own peer",
            fix="gtft runs logs RUN --stage train",
        )
    return rows


def check_evidence_block(block: Mapping[str, Any], adapter: str) -> str:
    """The line for the bead of a run that was trained in a swarm. ``adapter``: the hash of the adapter's
    numbers, computed again. Raises EvidenceError when the run did not end with the swarm's adapter."""
    rows = check_table(block)
    own = next(r for _, r in rows if r.peer_id == block["peer_id"])
    if own.final != adapter or block.get("final") != adapter:
        raise EvidenceError(
            "this adapter is not the one that the swarm ended with",
            why=f"its numbers hash to {short_id(adapter)}, the peer recorded {short_id(own.final) or 'none'}",
            fix="gtft runs resume RUN",
        )
    others = [f"{n} {r.rounds} rounds, {r.samples} samples" for n, r in rows if r is not own]
    differing = [n for n, r in rows if r.final and r.final != adapter]
    if differing:
        raise EvidenceError(
            f"{', '.join(differing)} ended with another adapter",
            why="a swarm has one final adapter",
            fix="gtft swarm status",
        )
    return (
        f"swarm {block['swarm']}: {own.rounds} rounds, {own.samples} samples, {own.bytes_sent} bytes sent, "
        f"{own.failures} failed, {own.pulls} pulls, lineage {own.lineage[:12]}, adapter {short_id(adapter)}; "
        f"{'; '.join(others) or 'no record of others'}"
    )


def show_record(record: Record) -> dict[str, Any]:
    return json.loads(record.model_dump_json())  # type: ignore[no-any-return]
