"""A look at a swarm from outside: who answers, whose clock is off, what the members said last.

It takes no part: a client of the DHT with the token of this workspace's identity. Run it in a process of
its own with a time limit (`gtft.workers.swarm`): what it starts ends with that process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P, P2PDaemonError, P2PHandlerError, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils.multiaddr import Multiaddr

from gtft.swarm.place import Seat
from gtft.swarm.preflight import Answer
from gtft.swarm.report import read_record, show_record
from gtft.training.swarm.authorizer import make_authorizer
from gtft.training.swarm.board import unpack
from gtft.training.swarm.progress import KEPT_S
from gtft.training.swarm.roster import Roster

DIAL_S = 5.0


def look(seat: Seat, folder: Path, now: Callable[[], float]) -> dict[str, Any]:
    """``answers``: one `Answer` per address; ``records``: peer id → its newest record and when it was seen;
    ``here``: peer id → the round it is at, of those that are up now. Raises InputError without a member file."""
    return asyncio.run(_look(seat, Roster(folder, now), now))


async def _look(seat: Seat, roster: Roster, now: Callable[[], float]) -> dict[str, Any]:
    options = seat.dht_options()
    p2p = await P2P.create(
        dht_mode="client",
        no_listen=True,
        nat_port_map=False,
        auto_nat=False,
        use_relay=options["use_relay"],
    )
    try:
        reached = await asyncio.gather(*(_dial(p2p, a) for a in seat.initial_peers))
        found = [a for a, there in zip(seat.initial_peers, reached, strict=True) if there]
        node = await DHTNode.create(
            p2p=p2p,
            client_mode=True,
            authorizer=make_authorizer(seat, roster, now),
            initial_peers=found,
            ensure_bootstrap_success=False,
            strict=False,
            wait_timeout=DIAL_S,
        )
        try:
            answers = [
                await _ask(node, a, now) if a in found else Answer(a, False, False)
                for a in seat.initial_peers
            ]
            records = await _read_records(node, seat, roster) if found else {}
            here = await _read_rounds(node, seat, roster) if found else {}
        finally:
            await node.shutdown()
    finally:
        await p2p.shutdown()
    here = {a.address.partition("/p2p/")[2]: 0 for a in answers if a.accepted} | here
    return {"answers": [asdict(a) for a in answers], "records": records, "here": here}


async def _dial(p2p: P2P, address: str) -> bool:
    where, _, peer = address.partition("/p2p/")
    try:
        connecting = p2p._client.connect(PeerID.from_base58(peer), [Multiaddr(where)])
        await asyncio.wait_for(connecting, DIAL_S)
    except (P2PDaemonError, OSError, TimeoutError, ValueError):
        return False
    return True


async def _ask(node: DHTNode, address: str, now: Callable[[], float]) -> Answer:
    stub = node.protocol.get_stub(PeerID.from_base58(address.partition("/p2p/")[2]))
    before = now()
    try:
        said = await stub.rpc_ping(dht_pb2.PingRequest(), timeout=DIAL_S)
    except (P2PHandlerError, P2PDaemonError, OSError, TimeoutError):
        return Answer(address, True, False)
    if said is None:
        return Answer(address, True, False)
    return Answer(address, True, True, round(_find_skew(said.dht_time, before, now()), 3))


def _find_skew(theirs: float, before: float, after: float) -> float:
    """How far their clock is from ours at least, whatever part of the way took the time."""
    if before <= theirs <= after:
        return 0.0
    return theirs - after if theirs > after else theirs - before


async def _read_records(node: DHTNode, seat: Seat, roster: Roster) -> dict[str, Any]:
    found: dict[str, Any] = {}
    entries = unpack(await node.get(f"{seat.swarm}_rounds", latest=True))
    for peer_id, (value, expires) in entries.items():
        member = roster.document.find(peer_id)
        try:
            payload, signature = value
            if member is not None:
                record = read_record(payload, signature, seat.swarm, member.public_key).record
                found[peer_id] = {**show_record(record), "seen": int(expires - KEPT_S)}
        except (ValueError, TypeError):
            continue
    return found


async def _read_rounds(node: DHTNode, seat: Seat, roster: Roster) -> dict[str, int]:
    entries = unpack(await node.get(f"{seat.swarm}_live", latest=True))
    return {
        peer_id: value["round"]
        for peer_id, (value, _) in entries.items()
        if roster.document.find(peer_id)
        and isinstance(value, dict)
        and isinstance(value.get("round"), int)
    }
