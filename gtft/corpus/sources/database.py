"""SQLite files of others: opened read-only and immutable, and nothing that they hold is run.

A view, a trigger, a virtual table or a computed column would run what the file says: only SELECT on plain
tables is let through.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
from urllib.parse import quote

from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import LONGEST_LINE
from gtft.corpus.tally import Tally

DATABASE = b"SQLite format 3\x00"
# Steps of SQLite's machine: a made-up file may have it go through the same rows for ever.
_STEPS_PER_BYTE = 500
_STEPS_AT_ONCE = 100_000
# A damaged file may also have names of columns that are no text.
BROKEN = (sqlite3.Error, UnicodeDecodeError)


def list_tables(file: InputFile) -> frozenset[str]:
    """Names of the plain tables; none when the file is damaged."""
    try:
        with closing(_connect(file)) as db:
            return frozenset(_list_plain(db))
    except BROKEN:
        return frozenset()


def open_database(
    file: InputFile, needed: tuple[str, ...], tally: Tally
) -> sqlite3.Connection | None:
    """The database; None when it cannot be opened, or a needed table is missing, not plain or damaged: that is
    named. The reading of one that goes on and on ends in sqlite3.OperationalError."""
    log = Path(f"{file.path}-wal")
    if log.is_file() and log.stat().st_size:
        tally.name("write-ahead log not read: close its program first", file.name, 1)
    try:
        db = _connect(file)
        try:
            missing = sorted(set(needed) - _list_plain(db))
            damaged = [] if missing else [t for t in needed if not _is_sound(db, t)]
            db.set_authorizer(_authorize)
        except BROKEN:
            db.close()
            raise
    except BROKEN as e:
        name_error(e, file, tally)
        return None
    if missing:
        tally.name("tables missing or not plain", file.name, 1, ",".join(missing))
    elif damaged:
        tally.name("damaged database", file.name, 1, ",".join(damaged))
    else:
        return db
    db.close()
    return None


def name_error(e: Exception, file: InputFile, tally: Tally) -> None:
    """By its kind alone: the words of an error may quote the file."""
    tally.name("unreadable database", file.name, 1, type(e).__name__)


def _connect(file: InputFile) -> sqlite3.Connection:
    uri = f"file:{quote(str(file.path.resolve()))}?mode=ro&immutable=1"
    db = sqlite3.connect(uri, uri=True)
    size = file.path.stat().st_size
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_LINE)
    left = count(size * _STEPS_PER_BYTE // _STEPS_AT_ONCE + 10, -1)
    db.set_progress_handler(lambda: next(left) < 0, _STEPS_AT_ONCE)
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    db.row_factory = sqlite3.Row
    return db


def _list_plain(db: sqlite3.Connection) -> set[str]:
    listed = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    plain = {r["name"] for r in listed if str(r["sql"]).upper().startswith("CREATE TABLE")}
    return {
        t
        for t in plain
        if t.isidentifier() and not any(c["hidden"] for c in db.execute(f"PRAGMA table_xinfo({t})"))
    }


def _is_sound(db: sqlite3.Connection, table: str) -> bool:
    """Pages that lie in each other, or in a circle, would be read for ever. No expression is evaluated."""
    db.execute("PRAGMA ignore_check_constraints = ON")
    return [tuple(r) for r in db.execute(f"PRAGMA quick_check({table})")] == [("ok",)]


def _authorize(action: int, *_: str | None) -> int:
    allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY
