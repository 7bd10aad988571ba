"""The Dolt database of a rig as a store: how to connect, and whether it is the right one (dolt.md 1, 3)."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from gtft.errors import TownError
from gtft.records.unit import Unit, Units

CONNECT_SECONDS = 5
# A statement that takes longer counts as lost; the unit is re-run.
ANSWER_SECONDS = 30
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Target:
    """A rig's database on the town's server. ``project_id`` is bd's own, "" when it is not known."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    project_id: str


def open_dolt(target: Target) -> sa.Engine:
    """An engine that connects for each unit of work: the town cuts connections idle for 30 s."""
    url = sa.URL.create(
        "mysql+pymysql",
        target.user,
        target.password,
        target.host,
        target.port,
        target.database,
        {"charset": "utf8mb4"},
    )
    return sa.create_engine(
        url,
        poolclass=sa.pool.NullPool,
        # Errors go to people and logs; a row may hold a whole recipe.
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": ANSWER_SECONDS,
            "write_timeout": ANSWER_SECONDS,
            # Dolt's greeting does not say that autocommit is on, and PyMySQL would leave it on.
            "init_command": "SET autocommit = 0",
            # A TLS context costs more than all the rest of a unit.
            "ssl_disabled": target.host in LOOPBACK,
        },
    )


def read_url(url: str, password: str) -> Target:
    """The target that `Store.url` names; a URL carries no password."""
    parsed = sa.make_url(url)
    return Target(
        host=parsed.host or "",
        port=parsed.port or 0,
        user=parsed.username or "",
        password=password,
        database=parsed.database or "",
        project_id="",
    )


def check_target(engine: sa.Engine, target: Target, patience: float | None = None) -> None:
    """Refuse a database that is not the rig's own bead database on ``main``. Raises TownError."""
    if not target.database:
        raise TownError(
            "the rig has no Dolt database",
            why="its .beads/metadata.json names none (dolt_database)",
            fix="gt rig list, then: gt doctor",
        )
    units = Units(engine) if patience is None else Units(engine, patience)
    try:
        found = units.run(_read_target)
    except TownError as e:
        if isinstance(e.__cause__, DBAPIError) and "database not found" in e.why:
            raise _refuse(target, "the server has no such database") from e
        raise
    if found.database != target.database:
        raise _refuse(target, f"the server opened {found.database!r}")
    if found.branch != "main":
        raise _refuse(target, f"the connection is on branch {found.branch!r}, not main")
    if not found.has_beads:
        raise _refuse(target, "it is not a bead database: table schema_migrations is missing")
    ours, theirs = target.project_id, found.project_id
    if ours and theirs and ours != theirs:
        raise _refuse(target, f"its project id is {theirs}, metadata.json says {ours}")


@dataclass(frozen=True)
class _Found:
    database: str
    branch: str
    has_beads: bool
    project_id: str


def _read_target(u: Unit) -> _Found:
    database, branch = u.c.exec_driver_sql("SELECT DATABASE(), active_branch()").one()
    names = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
    tables = set(u.c.exec_driver_sql(names).scalars())
    project = None
    if "metadata" in tables:
        query = "SELECT value FROM metadata WHERE `key` = '_project_id'"
        project = u.c.exec_driver_sql(query).scalar()
    return _Found(
        str(database or ""), str(branch), "schema_migrations" in tables, str(project or "")
    )


def _refuse(target: Target, why: str) -> TownError:
    return TownError(
        f"gtft does not write to database {target.database} of {target.host}:{target.port}",
        why=why,
        fix="gt rig list, then: gt dolt status",
    )
