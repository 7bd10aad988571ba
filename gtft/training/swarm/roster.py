"""Who may take part now: the signed member file, read again whenever it changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gtft.errors import GtftError
from gtft.swarm.document import MOST_BYTES, Member, Members, parse_members, read_members
from gtft.swarm.place import MEMBERS, keep_members
from gtft.training.swarm.board import post, read

_KEPT_S = 24 * 3600.0


class Roster:
    """The member file of one swarm. Holds no open file: it works in a forked process too."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        """Raises InputError when there is no member file that can be used."""
        self._folder = folder
        self._now = now
        self._stamp = self._look()
        self._members = read_members(folder / MEMBERS, swarm=folder.name)

    @property
    def document(self) -> Members:
        """The newest valid member file. One that was damaged since is ignored: the last good one holds."""
        stamp = self._look()
        if stamp != self._stamp:
            with contextlib.suppress(GtftError):
                self._members = read_members(self._folder / MEMBERS, swarm=self._folder.name)
            self._stamp = stamp
        return self._members

    def members(self) -> tuple[Member, ...]:
        return self.document.members

    def is_allowed(self, peer_id: str) -> bool:
        """Whether a peer may average and download: on the list, and the list has not ended."""
        document = self.document
        return document.find(peer_id) is not None and self._now() < document.expires

    def refresh(self, dht: Any) -> bool:
        """Take a newer member file from the swarm, or leave ours there; True when ours is new now.

        The signature makes it no matter who handed it over.
        """
        key = f"{self._folder.name}_members"
        ours = self.document
        best, newest = 0, b""
        for value, _ in read(dht, key).values():
            if isinstance(value, bytes) and len(value) <= MOST_BYTES:
                with contextlib.suppress(GtftError):
                    found = parse_members(value, swarm=ours.swarm)
                    if found.serial > best:
                        best, newest = found.serial, value
        if best > ours.serial:
            keep_members(self._folder, newest)
            return True
        if best < ours.serial:
            data = (self._folder / MEMBERS).read_bytes()
            post(dht, key, f"number {ours.serial}", data, self._now() + _KEPT_S)
        return False

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = (self._folder / MEMBERS).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
