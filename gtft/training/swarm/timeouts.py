"""How long a peer waits for what."""

from __future__ import annotations

from dataclasses import dataclass

from gtft.recipe import schema


@dataclass(frozen=True)
class Timeouts:
    """Seconds. ``chunk``: longest silence within an exchange; ``look``: between two looks at the DHT;
    ``pull``: for one try of ``pulls``; ``linger``: as a donor at the end; ``lifetime``: of a sign;
    ``turn``: before the next in line tells the final adapter in place of one that does not."""

    matchmaking: float
    allreduce: float
    request: float
    chunk: float
    look: float
    pull: float = 15.0
    pulls: int = 12
    linger: float = 20.0
    lifetime: float = 20.0
    turn: float = 30.0


def find_timeouts(swarm: schema.Swarm) -> Timeouts:
    """From the recipe's two figures; a request must be shorter than the matchmaking it belongs to."""
    return Timeouts(
        matchmaking=swarm.matchmaking_s,
        allreduce=swarm.allreduce_s,
        request=min(3.0, swarm.matchmaking_s / 2),
        chunk=min(10.0, swarm.allreduce_s / 4),
        look=min(1.0, swarm.matchmaking_s / 4),
    )
