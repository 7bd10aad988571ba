"""A peer's DHT in a process of its own: ``python swarm_host.py WORKSPACE [SKEW]``. Ends when stdin closes."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import hivemind

from gtft.swarm.keys import IDENTITY, read_identity
from gtft.swarm.place import identity_folder, list_swarms, read_seat, sit_down
from gtft.swarm.preflight import find_open
from gtft.training.swarm.authorizer import make_authorizer
from gtft.training.swarm.progress import Progress, RoundNote
from gtft.training.swarm.roster import Roster
from gtft.training.swarm.transport import Host

workspace = Path(sys.argv[1])
skew = float(sys.argv[2])


def now() -> float:
    return time.time() + skew


if skew:
    # Hivemind reads the clock under this name in each of its modules.
    import hivemind.dht.protocol
    import hivemind.utils.auth

    hivemind.dht.protocol.get_dht_time = hivemind.utils.auth.get_dht_time = now

(folder,) = list_swarms(workspace)
file = read_seat(folder)
assert file is not None
roster = Roster(folder, now)
identity = read_identity(identity_folder(workspace) / IDENTITY)
seat = sit_down(workspace, folder, file, roster.document, identity.peer_id)
seat = replace(seat, initial_peers=find_open(seat.initial_peers))
host = Host()
try:
    with host.starting():
        dht = hivemind.DHT(
            start=True, authorizer=make_authorizer(seat, roster, now), **seat.dht_options()
        )
    progress = Progress(seat, file.run, roster, now)
    note = RoundNote(
        4, True, (seat.peer_id,), 128, "ab" * 32, "sha256:" + "a" * 64, 1.5, 1000, 0, 1, 0
    )
    print("up", flush=True)
    # Each line asks for a round; the end of input for the end.
    for _ in sys.stdin:
        roster.refresh(dht)
        progress.note(note, dht)
        others = progress.others(dht)
        print(roster.document.serial, len(others), flush=True)
    dht.shutdown()
finally:
    host.close()
