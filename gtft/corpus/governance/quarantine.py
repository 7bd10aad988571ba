"""The quarantine: examples that a second reader still suspects, and what somebody decided about each.

``<workspace>/quarantine.jsonl``, one JSON object a line, only ever added to: an entry (why an example is
held and where in it, never a value), or a decision about one. The last decision counts.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from gtft.corpus.governance.row import Place
from gtft.corpus.tally import Tally
from gtft.errors import UsageError, translate_os_error

FILE = "quarantine.jsonl"
Decision = Literal["", "released", "dropped"]
_LONGEST_LINE = 1 << 20


class Reason(msgspec.Struct, frozen=True):
    """Which reader holds it, and where (``messages[3].content:120-140``)."""

    reader: str
    where: str


class Held(msgspec.Struct, frozen=True):
    """``id`` is the example's. ``decided`` "" waits for somebody."""

    id: str
    reasons: tuple[Reason, ...]
    origin: Place
    decided: Decision = ""
    by: str = ""
    reason: str = ""


class _Decided(msgspec.Struct, frozen=True):
    decide: str
    decided: Decision
    by: str
    reason: str


class Quarantine:
    """The file of one workspace; it need not be there yet. Lines that cannot be read are counted in
    ``tally`` and named."""

    def __init__(self, workspace: Path, tally: Tally | None = None) -> None:
        self._path = workspace / FILE
        self._tally = tally if tally is not None else Tally()

    def add(self, found: Iterable[Held]) -> int:
        """Hold these examples; one that is held already stays as it was decided. Returns how many are new."""
        known = {h.id for h in self.list()}
        new = {h.id: h for h in found if h.id not in known}
        self._append([msgspec.json.encode(h) for h in new.values()])
        return len(new)

    def decide(self, example: str, decided: Decision, by: str, reason: str) -> Held:
        """Release or drop one. Raises UsageError when none, or several, start with ``example``."""
        held = self.find(example)
        self._append([msgspec.json.encode(_Decided(held.id, decided, by, reason))])
        return self.find(held.id)

    def decisions(self) -> dict[str, Decision]:
        """What was decided: example id → "released" or "dropped"."""
        return {h.id: h.decided for h in self.list() if h.decided}

    def find(self, prefix: str) -> Held:
        """Raises UsageError when none, or several, start with ``prefix``."""
        held = self.list()
        wanted = prefix if prefix.startswith("ex-") else f"ex-{prefix}"
        fits = [h for h in held if h.id == wanted] or [h for h in held if h.id.startswith(wanted)]
        if len(fits) == 1:
            return fits[0]
        raise UsageError(
            f"{len(fits) or 'nothing'} in quarantine starts with {wanted[:80]}",
            why=f"{len(held)} examples are in it",
            fix="gtft corpus quarantine",
        )

    def list(self) -> tuple[Held, ...]:
        """In order of arrival, each with the last decision about it."""
        found: dict[str, Held] = {}
        decisions: dict[str, _Decided] = {}
        for number, line in enumerate(self._read(), start=1):
            try:
                if line.startswith(b'{"decide"'):
                    d = msgspec.json.decode(line, type=_Decided)
                    decisions[d.decide] = d
                else:
                    held = msgspec.json.decode(line, type=Held)
                    found.setdefault(held.id, held)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
                self._tally.name("bad line", FILE, number, type(e).__name__)
        for d in decisions.values():
            if d.decide in found:
                change = {"decided": d.decided, "by": d.by, "reason": d.reason}
                found[d.decide] = msgspec.structs.replace(found[d.decide], **change)
        return tuple(found.values())

    def _read(self) -> Iterable[bytes]:
        try:
            with self._path.open("rb") as f:
                while line := f.readline(_LONGEST_LINE):
                    if line.strip():
                        yield line
        except FileNotFoundError:
            return
        except OSError as e:
            raise translate_os_error(e, f"reading {FILE}") from e

    def _append(self, lines: Sequence[bytes]) -> None:
        """One write under a lock: who reads meanwhile sees all of it or nothing."""
        if not lines:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(fd, "ab") as f:
                fcntl.flock(f, fcntl.LOCK_EX)
                torn = f.tell() and os.pread(fd, 1, f.tell() - 1) != b"\n"
                f.write((b"\n" if torn else b"") + b"\n".join(lines) + b"\n")
                f.flush()
                os.fsync(fd)
        except OSError as e:
            raise translate_os_error(e, f"writing {FILE}") from e
