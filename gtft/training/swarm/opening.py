"""The way of a run into its swarm: every check that can be made alone, then the peer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gtft.contract import Job
from gtft.errors import InputError
from gtft.recipe.schema import Recipe
from gtft.swarm.document import Members
from gtft.swarm.keys import IDENTITY, read_identity, require_swarm_extra
from gtft.swarm.place import Seat, find_seat, identity_folder, sit_down
from gtft.swarm.preflight import (
    check_base,
    check_bootstrap,
    check_dates,
    check_listen,
    check_member,
    check_open,
    check_terms,
    find_open,
)
from gtft.swarm.terms import find_terms
from gtft.training.base import BaseModel
from gtft.training.swarm.roster import Roster
from gtft.training.watch import StopRequested, Watch

if TYPE_CHECKING:
    from gtft.training.averaging import Averager

# A peer that failed a few rounds brings the rows of all of them to the next.
_ROUNDS_BEHIND = 6
# The creator's run may get to its training a little later than ours.
PATIENCE_S = 120.0
_AGAIN_S = 2.0


def open_swarm(
    job: Job,
    recipe: Recipe,
    base: BaseModel,
    watch: Watch,
    clock: Callable[[], float],
    now: Callable[[], float] = time.time,
    patience_s: float = PATIENCE_S,
) -> Averager:
    """Check the run's seat and start its peer; call it in the main thread, before the base is loaded.

    ``clock`` in seconds for durations, ``now`` in seconds since 1970. Raises MissingExtra, InputError,
    ConflictError and RecipeError, each with the next command, StopRequested, and what the peer raises.
    """
    require_swarm_extra()
    place = find_seat(job.workspace, job.run_id)
    if place is None:
        raise InputError(
            f"{job.run_id} belongs to no swarm",
            why='its recipe says engine = "swarm", and no swarm of this workspace has a seat for it',
            fix=f"gtft swarm join INVITATION --run {job.run_id}, or: gtft swarm create RECIPE --run {job.run_id}",
        )
    folder, file = place
    roster = Roster(folder, now)
    members = roster.document
    identity = read_identity(identity_folder(job.workspace) / IDENTITY)
    check_dates(members, now())
    check_member(members, identity.peer_id)
    check_terms(members, find_terms(recipe), job.run_id)
    check_base(members, base.id, base.name)
    seat = sit_down(job.workspace, folder, file, members, identity.peer_id)
    check_bootstrap(members, identity.peer_id, seat.initial_peers)
    check_listen(seat.host_maddrs)
    seat = replace(seat, initial_peers=_wait_for_peers(seat, members, watch, clock, patience_s))

    from gtft.training.swarm.authorizer import make_authorizer
    from gtft.training.swarm.peer import Peer
    from gtft.training.swarm.progress import Progress

    train = recipe.train
    return Peer(
        seat,
        train.swarm,
        authorizer=make_authorizer(seat, roster, now),
        roster=roster,
        progress=Progress(seat, job.run_id, roster, now),
        watch=watch,
        clock=clock,
        max_weight=train.swarm.every * train.batch * train.accumulation * _ROUNDS_BEHIND,
    )


def _wait_for_peers(
    seat: Seat, members: Members, watch: Watch, clock: Callable[[], float], patience_s: float
) -> tuple[str, ...]:
    """The addresses that are open. Only the creator goes on with none; others wait ``patience_s`` for one."""
    began = clock()
    while not (found := find_open(seat.initial_peers)) and not seat.creator:
        if watch.stop_requested:
            raise StopRequested(None, f"stopped before it met {members.name}")
        if clock() - began >= patience_s:
            break
        watch.progress(0, None, "steps", None, f"waiting for a peer of {members.name}")
        time.sleep(_AGAIN_S)
    check_open(members, seat.creator, seat.initial_peers, found)
    return found
