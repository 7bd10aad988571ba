"""Schema changes: numbered functions, applied in order under a lock, each recorded in ``gtft_schema``.

Dolt commits at each DDL statement, so that a function may be run again after a crash: it looks first.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from gtft.errors import InputError, TownError
from gtft.records import tables
from gtft.records.unit import Unit

LOCK_SECONDS = 20


def _create_first_tables(c: sa.Connection) -> None:
    for table in (
        tables.runs,
        tables.stages,
        tables.events,
        tables.artifacts,
        tables.lineage,
        tables.models,
        tables.outbox,
    ):
        table.create(c, checkfirst=True)


def _guard_against_merges(c: sa.Connection) -> None:
    """What Dolt needs to know: which unit wrote an event, and that a model's versions differ."""
    column = tables.events.c.unit
    known = {x["name"] for x in sa.inspect(c).get_columns(tables.events.name)}
    if column.name not in known:
        kind = column.type.compile(c.dialect)
        c.exec_driver_sql(f"ALTER TABLE {tables.events.name} ADD COLUMN {column.name} {kind}")
    names = [i["name"] for i in sa.inspect(c).get_indexes(tables.models.name)]
    if "gtft_models_version" not in names and "gtft_models_of_role" not in names:
        columns = (tables.models.c.name, tables.models.c.version)
        sa.Index("gtft_models_version", *columns, unique=True).create(c)


def _add_governance(c: sa.Connection) -> None:
    for table in (tables.consents, tables.withdrawals):
        table.create(c, checkfirst=True)


def _number_models_by_role(c: sa.Connection) -> None:
    """A model's version counts within its role; names differ by themselves."""
    m = tables.models
    rows = c.execute(sa.select(m.c.id, m.c.role, m.c.version).order_by(m.c.created_us, m.c.id))
    counted: dict[str, int] = {}
    for row in list(rows):
        counted[row.role] = counted.get(row.role, 0) + 1
        if row.version != counted[row.role]:
            c.execute(sa.update(m).where(m.c.id == row.id).values(version=counted[row.role]))
    names = [i["name"] for i in sa.inspect(c).get_indexes(m.name)]
    if "gtft_models_version" in names:
        where = f" ON {m.name}" if c.dialect.name == "mysql" else ""
        c.exec_driver_sql(f"DROP INDEX gtft_models_version{where}")
    for index in m.indexes:
        index.create(c, checkfirst=True)


def _add_deployments(c: sa.Connection) -> None:
    for table in (tables.aliases, tables.deployments, tables.incidents):
        table.create(c, checkfirst=True)


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (
    _create_first_tables,
    _guard_against_merges,
    _add_governance,
    _number_models_by_role,
    _add_deployments,
)


def find_version(u: Unit) -> int | None:
    """The schema version when nothing is to be done; None when `migrate` must be called.

    Raises InputError when the store was written by a newer gtft.
    """
    if not sa.inspect(u.c).has_table(tables.schema.name):
        return None
    at = _read_version(u.c)
    if at > len(MIGRATIONS):
        raise InputError(
            f"the store has schema {at}, this gtft knows {len(MIGRATIONS)}",
            why="a newer gtft wrote it",
            fix="upgrade gtft, or use another --workspace",
        )
    return at if at == len(MIGRATIONS) else None


def migrate(u: Unit, now_us: int) -> int:
    """Bring the schema up to date, one process at a time; returns its version."""
    if u.c.dialect.name == "mysql":
        _lock(u.c)
    tables.schema.create(u.c, checkfirst=True)
    for version in range(_read_version(u.c) + 1, len(MIGRATIONS) + 1):
        MIGRATIONS[version - 1](u.c)
        u.c.execute(sa.insert(tables.schema).values(version=version, applied_us=now_us))
    u.note(f"gtft: schema {len(MIGRATIONS)}", "gtft")
    return len(MIGRATIONS)


def _lock(c: sa.Connection) -> None:
    """Held until the connection is closed. (SQLite's BEGIN IMMEDIATE is a lock already.)"""
    query = "SELECT GET_LOCK(CONCAT('gtft:', DATABASE()), %s)"
    if c.exec_driver_sql(query, (LOCK_SECONDS,)).scalar() != 1:
        raise TownError(
            "the tables of the store cannot be made now",
            why=f"another gtft has been making them for {LOCK_SECONDS} s",
            fix="run the command again",
        )
    # What the other made is seen only by a transaction that begins now.
    c.exec_driver_sql("COMMIT")


def _read_version(c: sa.Connection) -> int:
    return c.execute(sa.select(sa.func.max(tables.schema.c.version))).scalar() or 0
