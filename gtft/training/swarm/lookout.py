"""Short-lived records in the DHT: who is there, at which round, and who waits for whom.

They serve matchmaking only and are not signed: whatever follows from them (a pull, a fork) is checked against
the donor's own word. Peers that are not on the member list are dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, replace
from typing import Any

from hivemind.dht import DHT
from hivemind.utils.timed_storage import ValueWithExpiration, get_dht_time

_FIELDS: dict[str, type] = {
    "round": int, "samples": int, "waiting": bool, "step_s": float, "fingerprint": str, "final": str,
    "left": bool,
}  # fmt: skip
_LONGEST_TEXT = 128


@dataclass(frozen=True)
class Sign:
    """What a peer says of itself. ``waiting``: for a group of round + 1; ``step_s``: seconds per update."""

    round: int = 0
    samples: int = 0
    waiting: bool = False
    step_s: float = 0.0
    fingerprint: str = ""
    final: str = ""
    left: bool = False


def parse_sign(doc: object) -> Sign | None:
    """A record of the DHT; None for anything that is not one."""
    if not isinstance(doc, dict) or set(doc) != set(_FIELDS):
        return None
    for name, kind in _FIELDS.items():
        value = doc[name]
        if type(value) is not kind or (isinstance(value, str) and len(value) > _LONGEST_TEXT):
            return None
    if not (0 <= doc["round"] < 2**31 and 0 <= doc["samples"] < 2**62 and 0 <= doc["step_s"] < 1e6):
        return None
    return Sign(**doc)


class Lookout:
    """A thread that stores this peer's sign and reads the others', about once per ``every`` seconds.

    ``lifetime``: seconds that a sign lasts; so long the dead count as there.
    """

    def __init__(
        self,
        dht: DHT,
        swarm: str,
        own: str,
        is_allowed: Callable[[str], bool],
        *,
        every: float,
        lifetime: float,
    ) -> None:
        self._dht = dht
        self._key = f"{swarm}_live"
        self._own = own
        self._is_allowed = is_allowed
        self._every = every
        self._lifetime = lifetime
        self._sign = Sign()
        self._others: dict[str, Sign] = {}
        self._expiry = 0.0
        self._stored_at = 0.0
        # The DHT's pipe is not made for two threads: whoever calls the DHT holds this.
        self.lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; fork no more processes that must outlive this thread's locks after it."""
        self._thread = threading.Thread(target=self._run, name="swarm-lookout", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the last sign stays until it expires."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def say(self, **changed: Any) -> None:
        """Change this peer's sign; it is stored at once."""
        sign = replace(self._sign, **changed)
        if sign != self._sign:
            self._sign, self._stored_at = sign, 0.0
            self._wake.set()

    def others(self) -> dict[str, Sign]:
        """The signs of the allowed others that were alive at the last look and have not left."""
        return {p: s for p, s in self._others.items() if not s.left}

    def look(self) -> dict[str, Sign]:
        """Store and read now, and answer from it."""
        with self.lock:
            self._store()
            self._read()
        return self.others()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._wake.wait(self._every)
            self._wake.clear()

    def _store(self) -> None:
        if time.monotonic() - self._stored_at < self._lifetime / 4:
            return
        # A later record of the same peer replaces an earlier one only when it also expires later.
        self._expiry = max(get_dht_time() + self._lifetime, self._expiry + 0.001)
        sent = self._sign
        stored = _ask(
            lambda: self._dht.store(
                self._key, asdict(sent), self._expiry, subkey=self._own, return_future=True
            )
        )
        if stored and sent == self._sign:
            self._stored_at = time.monotonic()

    def _read(self) -> None:
        found = _ask(lambda: self._dht.get(self._key, latest=True, return_future=True))
        self._others = {p: s for p, s in read_signs(found).items() if self._may(p)}

    def _may(self, peer: str) -> bool:
        return peer != self._own and self._is_allowed(peer)


def read_signs(found: object) -> dict[str, Sign]:
    """The signs in what ``DHT.get`` returned, by peer id."""
    table = found.value if isinstance(found, ValueWithExpiration) else None
    signs = {}
    for peer, entry in table.items() if isinstance(table, dict) else ():
        sign = parse_sign(entry.value) if isinstance(entry, ValueWithExpiration) else None
        if sign is not None and isinstance(peer, str):
            signs[peer] = sign
    return signs


def _ask(call: Callable[[], Any]) -> Any:
    """The result of a DHT call; None when it does not come in time or the DHT is gone."""
    try:
        return call().result(timeout=10)
    except (TimeoutError, CancelledError, OSError, RuntimeError):
        return None
