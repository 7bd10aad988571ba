"""Schema changes: numbered functions, applied in order, each recorded in ``gtft_schema``."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from gtft.errors import InputError
from gtft.records import tables


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


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (_create_first_tables,)


def migrate(c: sa.Connection, now_us: int) -> int:
    """Bring the schema up to date inside the caller's (exclusive) transaction; returns its version.

    Raises InputError when the store was written by a newer gtft.
    """
    tables.schema.create(c, checkfirst=True)
    at = c.execute(sa.select(sa.func.max(tables.schema.c.version))).scalar() or 0
    if at > len(MIGRATIONS):
        raise InputError(
            f"the store has schema {at}, this gtft knows {len(MIGRATIONS)}",
            why="a newer gtft wrote it",
            fix="upgrade gtft, or use another --workspace",
        )
    for version in range(at + 1, len(MIGRATIONS) + 1):
        MIGRATIONS[version - 1](c)
        c.execute(sa.insert(tables.schema).values(version=version, applied_us=now_us))
    return len(MIGRATIONS)
