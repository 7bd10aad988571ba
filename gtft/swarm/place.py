"""Where a swarm is kept in a workspace, and the seat of a run in it.

``swarm/identity.key`` is this workspace's own. ``swarms/<swarm id>/`` holds ``members.json`` (the signed member
file), ``operator.key`` (only where it was created), ``seat.json`` (which run, which addresses),
``peers.json`` (addresses that were seen), ``progress.json`` and, once asked for, ``leave``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gtft.artifact import write_file, write_json
from gtft.errors import ConflictError, InputError, UsageError, translate_os_error
from gtft.swarm.document import Members, check_address, parse_members, read_members
from gtft.swarm.keys import IDENTITY

MEMBERS = "members.json"
SEAT = "seat.json"
PEERS = "peers.json"
PROGRESS = "progress.json"
LEAVE = "leave"
_MOST_PEERS = 64


class SeatFile(BaseModel):
    """``seat.json``. ``listen`` and ``announce`` are multiaddresses without a peer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    run: str
    listen: tuple[str, ...]
    announce: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seat:
    """Where a run sits in its swarm: all that a peer needs to start.

    ``swarm`` is its id (the prefix of its DHT keys); ``initial_peers`` leaves this peer out and is empty
    only for a creator that knows nobody else yet; ``fingerprint`` stands for the recipe's terms and the base.
    """

    swarm: str
    peer_id: str
    creator: bool
    folder: Path
    identity: Path
    initial_peers: tuple[str, ...]
    host_maddrs: tuple[str, ...]
    announce_maddrs: tuple[str, ...]
    fingerprint: str

    def dht_options(self) -> dict[str, Any]:
        """Arguments of ``hivemind.DHT`` besides ``start`` and ``authorizer``. On loopback nothing that
        asks routers or relays is on."""
        outside = not all(a.startswith(("/ip4/127.", "/ip6/::1/")) for a in self.host_maddrs)
        return {
            "initial_peers": list(self.initial_peers),
            "host_maddrs": list(self.host_maddrs),
            "announce_maddrs": list(self.announce_maddrs) or None,
            "identity_path": str(self.identity),
            "nat_port_map": False,
            "auto_nat": outside,
            "use_relay": outside,
        }


def identity_folder(workspace: Path) -> Path:
    return workspace / "swarm"


def swarm_folder(workspace: Path, swarm: str) -> Path:
    return workspace / "swarms" / swarm


def list_swarms(workspace: Path) -> list[Path]:
    """The folders of the swarms that this workspace knows, by id."""
    found = (workspace / "swarms").glob(f"[!.]*/{MEMBERS}")
    return sorted(p.parent for p in found)


def find_swarm(workspace: Path, given: str | None) -> Path:
    """The folder of a swarm by its name or id; the only one when nothing is given. Raises UsageError."""
    known = list_swarms(workspace)
    found = [p for p in known if given in (None, p.name, p.name.rpartition("-")[0])]
    if len(found) == 1:
        return found[0]
    names = ", ".join(p.name for p in known) or "none"
    raise UsageError(
        "which swarm?" if given is None or found else f"there is no swarm {json.dumps(given)} here",
        why=f"swarms of this workspace: {names}",
        fix="gtft swarm join INVITATION, or: gtft swarm create RECIPE",
    )


def find_newest(folder: Path, members: Members) -> Members:
    """The newer of a member file and the one that is held already. Raises ConflictError when they have one
    number and say different things."""
    path = folder / MEMBERS
    if not path.exists():
        return members
    held = read_members(path, swarm=folder.name)
    if held.serial == members.serial and held != members:
        raise ConflictError(
            f"there are two member files of {members.name} with number {held.serial}",
            why="their operator signed both; one would hide the other",
            fix="ask the operator for a newer one: gtft swarm invite SWARM",
        )
    return held if held.serial >= members.serial else members


def keep_members(folder: Path, data: bytes) -> Members:
    """Take a member file into a swarm's folder, unless a newer one is there; the one that is then held.

    Raises InputError and ConflictError for one that is not taken.
    """
    members = parse_members(data, swarm=folder.name)
    newest = find_newest(folder, members)
    if newest is members:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise translate_os_error(e, "joining a swarm") from e
        write_file(folder / MEMBERS, data)
    return newest


def write_seat(folder: Path, seat: SeatFile) -> None:
    write_json(folder / SEAT, seat.model_dump(mode="json"))


def read_seat(folder: Path) -> SeatFile | None:
    """Which run of this workspace takes part; None when none does. Raises InputError for a damaged file."""
    path = folder / SEAT
    if not path.exists():
        return None
    try:
        return SeatFile.model_validate_json(path.read_bytes())
    except ValidationError as e:
        raise InputError(
            f"{path} cannot be used", why=str(e), fix="gtft swarm join INVITATION --run RUN"
        ) from e


def find_seat(workspace: Path, run_id: str) -> tuple[Path, SeatFile] | None:
    """The swarm folder that a run belongs to."""
    for folder in list_swarms(workspace):
        seat = read_seat(folder)
        if seat is not None and seat.run == run_id:
            return folder, seat
    return None


def sit_down(workspace: Path, folder: Path, file: SeatFile, members: Members, peer_id: str) -> Seat:
    """The seat as a peer needs it."""
    known = dict.fromkeys((*members.bootstrap, *read_known_peers(folder)))
    return Seat(
        swarm=members.swarm,
        peer_id=peer_id,
        creator=peer_id == members.creator,
        folder=folder,
        identity=identity_folder(workspace) / IDENTITY,
        initial_peers=tuple(a for a in known if not a.endswith(f"/p2p/{peer_id}")),
        host_maddrs=file.listen,
        announce_maddrs=file.announce,
        fingerprint=members.fingerprint,
    )


def read_known_peers(folder: Path) -> tuple[str, ...]:
    """Addresses that were seen in the swarm; what is no address is left out."""
    path = folder / PEERS
    try:
        found = json.loads(path.read_bytes()) if path.exists() else []
    except ValueError:
        # Only a memory: a torn one is forgotten, the member file's addresses are there.
        return ()
    known = [a for a in found if isinstance(a, str)] if isinstance(found, list) else []
    return tuple(a for a in known if not check_address(a, with_peer=True))[:_MOST_PEERS]


def remember_peers(folder: Path, addresses: Iterable[str]) -> None:
    """Keep addresses for the next start, when the first ones of the member file may be gone."""
    known = read_known_peers(folder)
    fresh = tuple(dict.fromkeys((*addresses, *known)))[:_MOST_PEERS]
    if fresh != known:
        write_json(folder / PEERS, list(fresh))


def ask_to_leave(folder: Path) -> None:
    write_file(folder / LEAVE, b"asked\n")


def leave_requested(seat: Seat) -> bool:
    """True once ``gtft swarm leave`` was typed: the peer leaves after the round it is in."""
    return (seat.folder / LEAVE).exists()


def stay(folder: Path) -> None:
    """The request to leave is met, or too late: the peer is out."""
    (folder / LEAVE).unlink(missing_ok=True)
