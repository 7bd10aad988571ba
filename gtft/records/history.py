"""What Dolt remembers of a run beside its event rows: one version commit per move, the stages as of then.

The town's compactor flattens Dolt's history, so that the event rows, not these commits, are the record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from gtft.errors import UsageError
from gtft.records import tables as t
from gtft.records.rows import StageRow
from gtft.records.store import Store
from gtft.records.unit import Unit

_REF = re.compile(r"[a-zA-Z0-9_./:\-]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(T[\d:.]+)?(Z|[+-]\d\d:\d\d)?")
# Dolt's words for a commit, branch or time that it has no state of.
_NOT_THERE = ("not found", "not a valid", "does not exist", "invalid ref", "no common ancestor")


@dataclass(frozen=True)
class Version:
    """A version commit. ``at_us``: microseconds since the epoch."""

    hash: str
    at_us: int
    author: str
    message: str


def list_versions(store: Store, run_id: str) -> list[Version]:
    """The version commits that name the run, newest first; none on SQLite."""
    if not store.units.is_dolt:
        return []
    query = sa.text(
        "SELECT commit_hash, date, committer, message FROM dolt_log"
        " WHERE message LIKE :start ORDER BY commit_order DESC"
    )
    start = f"gtft {run_id}: ".replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = store.units.run(lambda u: u.c.execute(query, {"start": f"{start}%"}).all())
    return [Version(r[0], _micros(r[1]), r[2], r[3]) for r in rows]


def was_flattened(store: Store, run_id: str) -> bool:
    """True when Dolt's history begins after the run did: its older versions are gone."""
    if not store.units.is_dolt:
        return False
    events = store.list_events(run_id)
    if not events or any("dispatched" in v.message for v in list_versions(store, run_id)):
        return False
    query = sa.text("SELECT MAX(date) FROM dolt_log WHERE message LIKE 'compaction:%'")
    at = store.units.run(lambda u: u.c.execute(query).scalar())
    return at is not None and _micros(at) >= events[0].created_us


def read_stages_at(store: Store, run_id: str, ref: str) -> list[StageRow] | None:
    """The run's stages as of a commit, branch or time (UTC unless it says otherwise); None when Dolt has
    no state of then. Raises UsageError for a ``ref`` that cannot be one, or on SQLite."""
    if not store.units.is_dolt:
        raise UsageError(
            "this store keeps no versions",
            why="it is a SQLite file; its event rows are the whole history",
            fix="gtft history RUN, without --at",
        )
    if not _REF.fullmatch(ref):
        raise UsageError(
            f"{ref!r} is no commit, branch or time",
            why="letters, digits and _ . / : - only; a time looks like 2026-03-01T12:00:00",
            fix="gtft history RUN",
        )
    as_of, value = "%s", ref
    if _TIME.fullmatch(ref):
        as_of, value = "TIMESTAMP(%s)", _read_time(ref)
    columns = ", ".join(c.name for c in t.stages.columns)
    sql = (
        f"SELECT {columns} FROM {t.stages.name} AS OF {as_of}"  # noqa: S608 - names of our own table
        " WHERE run_id = %s ORDER BY position"
    )

    def read(u: Unit) -> list[StageRow] | None:
        try:
            rows = u.c.exec_driver_sql(sql, (value, run_id)).all()
        except DBAPIError as e:
            if any(w in str(e.orig).lower() for w in _NOT_THERE):
                return None
            raise
        return [StageRow(**r._mapping) for r in rows]

    return store.units.run(read)


def _read_time(text: str) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as e:
        raise UsageError(f"{text} is no time", why=str(e), fix="2026-03-01T12:00:00") from e
    if at.tzinfo is not None:
        at = at.astimezone(UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _micros(at: datetime) -> int:
    return int(at.replace(tzinfo=UTC).timestamp() * 1_000_000)
