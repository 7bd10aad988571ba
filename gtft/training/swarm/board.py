"""The swarm's board: small texts that peers leave for each other in the DHT, each under its own name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# A question that the DHT does not answer by then is left for the next round.
ANSWER_S = 10.0


def post(dht: Any, key: str, subkey: str, value: Any, expires: float) -> bool:
    """Leave ``value`` until ``expires`` (seconds since 1970); False when nobody took it."""
    from hivemind.p2p import P2PDaemonError

    try:
        future = dht.store(key, value, expires, subkey=subkey, return_future=True)
        return bool(future.result(ANSWER_S))
    except (OSError, RuntimeError, TimeoutError, ValueError, P2PDaemonError):
        return False


def read(dht: Any, key: str) -> dict[str, tuple[Any, float]]:
    """What was left under ``key``: name → (value, when it expires). Nothing when the DHT does not answer."""
    from hivemind.p2p import P2PDaemonError

    try:
        found = dht.get(key, latest=True, return_future=True).result(ANSWER_S)
    except (OSError, RuntimeError, TimeoutError, ValueError, P2PDaemonError):
        return {}
    return unpack(found)


def unpack(found: Any) -> dict[str, tuple[Any, float]]:
    """The entries of a DHT answer: what is not one is left out."""
    if found is None or not isinstance(found.value, Mapping):
        return {}
    return {
        name: (entry.value, float(entry.expiration_time))
        for name, entry in found.value.items()
        if isinstance(name, str) and math.isfinite(entry.expiration_time)
    }
