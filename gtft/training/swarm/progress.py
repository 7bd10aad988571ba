"""What a peer has done in its swarm: kept in a file, told to the others, proven in the artifact."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gtft.artifact import write_json
from gtft.swarm.document import check_address
from gtft.swarm.keys import read_identity
from gtft.swarm.place import PROGRESS, Seat, remember_peers, stay
from gtft.swarm.report import Record, Signed, make_table, read_record, show_record, sign_record
from gtft.training.swarm.board import post, read
from gtft.training.swarm.roster import Roster

# Long enough for the slowest peer to read the last word of the first that finished.
KEPT_S = 6 * 3600.0
_ROUNDS_KEPT = 200


@dataclass(frozen=True)
class RoundNote:
    """One attempt at a round. ``samples``: own rows so far; ``bytes_sent`` and ``retries`` of this attempt;
    ``pulls``: state downloads since the last note; ``reason``: why it failed."""

    round: int
    ok: bool
    members: tuple[str, ...]
    samples: int
    lineage: str
    adapter_hash: str
    seconds: float
    bytes_sent: int
    failed_size: int
    retries: int
    pulls: int
    reason: str = ""


class Progress:
    """The figures of this peer and the newest signed record of each other one."""

    def __init__(self, seat: Seat, run_id: str, roster: Roster, now: Callable[[], float]) -> None:
        """Goes on from ``progress.json`` of the same run. Raises InputError when the identity is unusable."""
        self._seat = seat
        self._run = run_id
        self._roster = roster
        self._now = now
        self._identity = read_identity(seat.identity)
        self._others: dict[str, Signed] = {}
        self._seen: dict[str, float] = {}
        self._record, self._rounds = _go_on(seat.folder / PROGRESS, run_id, seat)
        self._signed = sign_record(self._record, self._identity)
        self._last_told = self._record.seq
        self._addresses: tuple[str, ...] | None = None

    def note(self, note: RoundNote, dht: Any = None) -> None:
        """After every attempt at a round."""
        now = self._record
        update: dict[str, Any] = {
            "samples": note.samples,
            "bytes_sent": now.bytes_sent + note.bytes_sent,
            "failures": now.failures + (not note.ok),
            "retries": now.retries + note.retries,
            "pulls": now.pulls + note.pulls,
        }
        if note.ok:
            update |= {"round": note.round, "rounds": now.rounds + 1}
            update |= {"lineage": note.lineage, "adapter": note.adapter_hash}
        self._rounds = [*self._rounds, {**asdict(note), "at": int(self._now())}][-_ROUNDS_KEPT:]
        self._tell(update, dht)

    def leave(self, dht: Any = None) -> None:
        """The last word of a peer that goes before the end."""
        self._tell({"left": True}, dht)
        stay(self._seat.folder)

    def finish(self, final: str, dht: Any = None) -> None:
        """The last word of a peer that holds the swarm's final adapter, whose hash is ``final``."""
        self._tell({"final": final, "adapter": final}, dht)
        stay(self._seat.folder)

    def others(self, dht: Any) -> dict[str, dict[str, Any]]:
        """The newest record of every other member: peer id → its fields. What is not signed by its peer,
        is of another swarm, or older than what was seen, is not there."""
        for peer_id, (value, expires) in read(dht, f"{self._seat.swarm}_rounds").items():
            member = self._roster.document.find(peer_id)
            if member is None:
                continue
            try:
                payload, signature = value
                found = read_record(payload, signature, self._seat.swarm, member.public_key)
            except (ValueError, TypeError):
                continue
            if peer_id == self._seat.peer_id:
                # Ours from before the file was lost: the next one must have a larger number.
                self._last_told = max(self._last_told, found.record.seq)
                continue
            held = self._others.get(peer_id)
            if held is None or found.record.seq > held.record.seq:
                self._others[peer_id] = found
                self._seen[peer_id] = expires - KEPT_S
        self._write()
        return {p: show_record(s.record) for p, s in self._others.items()}

    def evidence(self) -> dict[str, Any]:
        """The ``swarm`` block of ``summary.json``: own figures and the signed records of all."""
        document = self._roster.document
        record = show_record(self._record)
        for name in ("addresses", "adapter", "left", "seq"):
            del record[name]
        return {
            **record,
            "creator": self._seat.creator,
            "fingerprint": self._seat.fingerprint,
            "members": make_table((self._signed, *self._others.values()), document),
        }

    def _tell(self, update: dict[str, Any], dht: Any) -> None:
        if dht is not None:
            if self._addresses is None:
                self._addresses = _find_addresses(dht, self._seat)
            update["addresses"] = self._addresses
            self.others(dht)
        self._last_told += 1
        fields = {**self._record.model_dump(), **update, "seq": self._last_told}
        self._record = Record.model_validate(fields)
        self._signed = sign_record(self._record, self._identity)
        if dht is not None:
            value = [self._signed.payload, self._signed.signature]
            ends = self._now() + KEPT_S
            post(dht, f"{self._seat.swarm}_rounds", self._seat.peer_id, value, ends)
        self._write()

    def _write(self) -> None:
        addresses = [
            a for s in self._others.values() if not s.record.left for a in s.record.addresses
        ]
        remember_peers(self._seat.folder, addresses)
        records = {s.record.peer_id: {**show_record(s.record), "seen": int(self._seen[p])}
                   for p, s in sorted(self._others.items())}  # fmt: skip
        document = {
            "run": self._run,
            "swarm": self._seat.swarm,
            "at": int(self._now()),
            "own": show_record(self._record),
            "others": records,
            "rounds": self._rounds,
        }
        write_json(self._seat.folder / PROGRESS, document)


def _go_on(path: Path, run_id: str, seat: Seat) -> tuple[Record, list[dict[str, Any]]]:
    fresh = Record(
        swarm=seat.swarm, peer_id=seat.peer_id, seq=0, round=0, rounds=0, samples=0, bytes_sent=0,
        failures=0, retries=0, pulls=0, lineage="", adapter="",
    )  # fmt: skip
    try:
        held = json.loads(path.read_bytes())
        before = Record.model_validate_json(json.dumps(held["own"]))
        rounds = list(held["rounds"])
        same = held["run"] == run_id
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        # Only figures: without the file they begin at 0.
        return fresh, []
    # Others hold the number of our last record: a later one must be larger, of another run too.
    kept = before if same else fresh.model_copy(update={"seq": before.seq})
    return kept.model_copy(update={"left": False, "final": ""}), rounds if same else []


def _find_addresses(dht: Any, seat: Seat) -> tuple[str, ...]:
    own = f"/p2p/{seat.peer_id}"
    if seat.announce_maddrs:
        return tuple(f"{a}{own}" for a in seat.announce_maddrs)
    try:
        visible = [str(a) for a in dht.get_visible_maddrs()]
    except (OSError, RuntimeError, ValueError):
        return ()
    return tuple(a for a in visible if a.endswith(own) and not check_address(a, with_peer=True))[
        :16
    ]
