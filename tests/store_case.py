"""Stores on a real Dolt server, for tests."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pymysql

from gtft.contract import STAGES
from gtft.records.dolt import Target, open_dolt
from gtft.records.rows import Run, StageRow, make_ready
from gtft.records.store import Store
from gtft.records.unit import PATIENCE_SECONDS
from town_case import DoltServer


def make_target(server: DoltServer, database: str, project_id: str = "") -> Target:
    return Target("127.0.0.1", server.port, "root", "", database, project_id)


def make_database(server: DoltServer) -> Target:
    """A fresh, empty database in ``server``."""
    name = f"case_{uuid.uuid4().hex[:10]}"
    server.query(f"CREATE DATABASE {name}")
    return make_target(server, name)


def open_store(
    target: Target, now: Callable[[], float] = time.time, patience: float = PATIENCE_SECONDS
) -> Store:
    store = Store(open_dolt(target), now, patience)
    store.migrate()
    return store


def query(target: Target, sql: str, *values: object) -> list[tuple[object, ...]]:
    """One statement on a connection of its own, committed."""
    c = pymysql.connect(
        host=target.host, port=target.port, user="root", database=target.database, charset="utf8mb4"
    )
    try:
        with c.cursor() as cursor:
            cursor.execute("SET autocommit = 1")
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())
    finally:
        c.close()


def add_run(store: Store, run_id: str = "run-1", root: str = "/town") -> Run:
    """A run of four ready stages whose beads are known."""
    run = Run(
        id=run_id,
        recipe_name="mol-x",
        recipe_hash="sha256:r",
        recipe={"recipe": {"a": 1}},
        role="witness",
        epic_bead=None,
        actor="me",
        root=root,
        desired="run",
        created_us=store.now_us(),
    )
    now = store.now_us()
    rows = tuple(make_ready(run_id, stage, n, now) for n, stage in enumerate(STAGES))
    store.add_run(run, rows)
    store.set_beads(run_id, f"tt-{run_id}", {s: f"{run_id}.{n}" for n, s in enumerate(STAGES)})
    return run


def claim(store: Store, run_id: str, stage: str, token: str = "t1") -> StageRow | None:
    row = store.find_stage(run_id, stage)
    return store.claim(row, "worker", token, store.now_us() + 60_000_000, "attempt 1")
