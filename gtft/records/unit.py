"""One transaction on the store, re-run whole when the engine asks for it (dolt.md sections 3 to 5).

SQLite queues writers and needs no retry. Dolt merges transactions at COMMIT and rolls one of two back when
they touch the same cell; its server may be away for a while; and a connection that breaks during COMMIT
leaves it open whether the change landed, so that a unit looks for its own id before it writes again.
"""

from __future__ import annotations

import functools
import logging
import random
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from gtft.errors import ConflictError, DiskFull, GtftError, InputError, TownError
from gtft.records import tables as t

# How long a server that is away is tried, where nobody says otherwise.
PATIENCE_SECONDS = 30.0
# How long a unit that other writers roll back is tried, at least.
CONFLICT_SECONDS = 15.0
# With fewer bytes than this left, SQLite's log cannot grow.
_LEAST_ROOM = 1 << 16

_ROLLED_BACK = {1205, 1213}
_AWAY = {0, 1053, 1927, 2002, 2003, 2006, 2013, 2014, 2055}
_ROLLED_BACK_WORDS = ("serialization", "conflict", "try restarting", "constraint violation")
_AWAY_WORDS = ("i/o timeout", "broken pipe", "connection reset", "read only", "no root value found")

log = logging.getLogger("gtft.records")
R = TypeVar("R")
P = ParamSpec("P")
Fault = Literal["rolled back", "away", "other"]


@dataclass
class Unit:
    """A transaction under way. ``id`` stays the same when the unit is run again."""

    c: sa.Connection
    id: str
    # An earlier try may have been committed: `has_landed` before writing what is not idempotent.
    is_repeat: bool = False
    # What the version commit says, and who it is from; None = no version commit.
    message: str | None = None
    author: str = "gtft"

    def note(self, message: str, author: str) -> None:
        """Have this unit versioned: ``message`` names the run and the move."""
        self.message, self.author = message, author

    def has_landed(self, run_id: str) -> bool:
        """True when an earlier try of this unit was committed though its connection broke."""
        if not self.is_repeat:
            return False
        query = sa.select(t.events.c.seq).where(
            t.events.c.run_id == run_id, t.events.c.unit == self.id
        )
        return self.c.execute(query).first() is not None


class Units:
    """Runs units on one engine. ``patience``: seconds a server that is away is waited for."""

    def __init__(self, engine: sa.Engine, patience: float = PATIENCE_SECONDS) -> None:
        self.engine = engine
        self.patience = patience

    @property
    def is_dolt(self) -> bool:
        return self.engine.dialect.name == "mysql"

    def run(self, work: Callable[[Unit], R]) -> R:
        """``work`` in one transaction, again from a fresh read where Dolt rolled it back.

        Raises what ``work`` raises; ConflictError for a row that is there already, DiskFull, InputError
        (SQLite) or TownError (Dolt) when the store cannot be used.
        """
        unit_id = uuid.uuid4().hex
        began = time.monotonic()
        tries = 0
        while True:
            try:
                return self._try(work, unit_id, tries > 0)
            except DBAPIError as e:
                fault = _classify(e) if self.is_dolt else "other"
                if fault == "other":
                    raise self._translate(e) from e
                limit = self.patience if fault == "away" else max(self.patience, CONFLICT_SECONDS)
                if time.monotonic() - began >= limit:
                    raise _give_up(e, fault, limit) from e
                log.debug("unit %s: %s, again", unit_id, _say(e))
            tries += 1
            # Full jitter; a server that is away is asked less often.
            time.sleep(random.uniform(0.005, min(0.5, 0.02 * 2 ** min(tries, 6))))  # noqa: S311

    def _try(self, work: Callable[[Unit], R], unit_id: str, is_repeat: bool) -> R:
        with self.engine.connect() as c:
            unit = Unit(c, unit_id, is_repeat)
            with c.begin():
                out = work(unit)
            if unit.message is not None and self.is_dolt:
                commit_version(c, unit.message, unit.author)
            return out

    def _translate(self, e: DBAPIError) -> GtftError:
        if isinstance(e, IntegrityError):
            return ConflictError("the store already holds that row", why=_say(e), fix="gtft status")
        if self.is_dolt:
            return TownError("the town's database cannot be used", why=_say(e), fix="gtft doctor")
        if "disk is full" in str(e.orig) or self._has_no_room():
            return DiskFull(
                "the disk is full while writing the store",
                why="the change was rolled back; nothing was lost",
                fix="free some space, then run the command again",
            )
        return InputError("the store cannot be used", why=_say(e), fix="gtft doctor")

    def _has_no_room(self) -> bool:
        """SQLite calls it an I/O error when its log cannot grow."""
        path = self.engine.url.database
        return bool(path) and shutil.disk_usage(Path(path or ".").parent).free < _LEAST_ROOM


class _HasUnits(Protocol):
    units: Units


S = TypeVar("S", bound=_HasUnits)


def as_unit(method: Callable[Concatenate[S, Unit, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method that takes a `Unit` one that opens its own: one call, one transaction."""

    @functools.wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.units.run(lambda u: method(self, u, *args, **kwargs))

    return run


def commit_version(c: sa.Connection, message: str, author: str) -> None:
    """A Dolt commit of our own tables, after the SQL COMMIT and outside of any transaction.

    Never raises: the rows are committed already, and what fails here rides on the next version. When
    ``bd`` commits in the same moment Dolt may put its rows on our version, or ours on its; none is lost.
    """
    name = "".join(x for x in author if x.isprintable() and x not in "<>").strip() or "gtft"
    ours = list(t.metadata.tables)
    try:
        c.exec_driver_sql("SET autocommit = 1")
        marks = ", ".join(["%s"] * len(ours))
        c.exec_driver_sql(f"CALL DOLT_ADD({marks})", tuple(ours)).all()
        commit = "CALL DOLT_COMMIT('-m', %s, '--author', %s)"
        line = " ".join(message.split())
        c.exec_driver_sql(commit, (line, f"{name} <{name}@gtft>")).all()
    except DBAPIError as e:
        if "nothing to commit" not in str(e.orig):
            log.warning("no version commit for %r, it rides on the next: %s", message, _say(e))


def _classify(e: DBAPIError) -> Fault:
    code, text = _read_code(e), str(e.orig).lower()
    if code in _ROLLED_BACK or any(w in text for w in _ROLLED_BACK_WORDS):
        return "rolled back"
    if code in _AWAY or e.connection_invalidated or any(w in text for w in _AWAY_WORDS):
        return "away"
    return "other"


def _read_code(e: DBAPIError) -> int | None:
    code = e.orig.args[0] if e.orig is not None and e.orig.args else None
    return code if isinstance(code, int) else None


def _give_up(e: DBAPIError, fault: Fault, patience: float) -> TownError:
    if fault == "away":
        return TownError(
            "the town's Dolt server does not answer",
            why=f"{_say(e)}, for {patience:.0f} s; gtft never starts, stops or restarts it",
            fix="gt dolt status, then run the command again: nothing acknowledged is lost",
        )
    return TownError(
        "the town's database is too busy for this change",
        why=f"other writers were faster for {patience:.0f} s; nothing was written ({_say(e)})",
        fix="run the command again",
    )


def _say(e: DBAPIError) -> str:
    # A driver's words may quote a whole row.
    return str(e.orig)[:300]
