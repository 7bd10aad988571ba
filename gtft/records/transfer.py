"""All rows of one store into another: from an embedded workspace into a town."""

from __future__ import annotations

import json
import re
from typing import Any

import sqlalchemy as sa

from gtft.records import tables as t
from gtft.records.unit import Unit

Rows = dict[str, list[dict[str, Any]]]

# Whose rows go together: the column that says it, and the table that has the ids.
_OWNERS = {
    t.runs: t.runs.c.id,
    t.stages: t.stages.c.run_id,
    t.events: t.events.c.run_id,
    t.outbox: t.outbox.c.run_id,
    t.artifacts: t.artifacts.c.id,
    t.lineage: t.lineage.c.child,
    t.models: t.models.c.id,
    t.consents: t.consents.c.id,
    t.withdrawals: t.withdrawals.c.id,
    t.aliases: t.aliases.c.name,
    t.deployments: t.deployments.c.id,
    t.incidents: t.incidents.c.id,
}


def read_rows(u: Unit) -> Rows:
    """Every row of every table (but the schema's version), ordered by key."""
    return {
        table.name: [
            dict(r._mapping) for r in u.c.execute(sa.select(table).order_by(*table.primary_key))
        ]
        for table in _OWNERS
    }


def rename_beads(rows: Rows, ids: dict[str, str]) -> Rows:
    """The rows with other bead ids: in columns, and in what is still to be delivered."""
    changed = {k: v for k, v in ids.items() if k != v}
    if not changed:
        return rows
    words = re.compile(rf"(?<![\w.-])({'|'.join(re.escape(k) for k in changed)})(?![\w-]|\.\d)")

    def rename(row: dict[str, Any]) -> dict[str, Any]:
        out = dict(row)
        for column in ("epic_bead", "bead_id"):
            if out.get(column) in changed:
                out[column] = changed[out[column]]
        if "payload" in out and out["done_us"] is None:
            payload = json.loads(out["payload"])
            out["payload"] = json.dumps(_rename(payload, words, changed), **_JSON)
        return out

    return {name: [rename(r) for r in found] for name, found in rows.items()}


_JSON: dict[str, Any] = {"sort_keys": True, "ensure_ascii": False}


def _rename(value: Any, words: re.Pattern[str], ids: dict[str, str]) -> Any:
    if isinstance(value, str):
        return words.sub(lambda m: ids[m.group(1)], value)
    if isinstance(value, list):
        return [_rename(x, words, ids) for x in value]
    if isinstance(value, dict):
        return {k: _rename(v, words, ids) for k, v in value.items()}
    return value


def add_rows(u: Unit, rows: Rows, *, keep: bool, message: str, actor: str) -> int:
    """Write the rows in one transaction; returns how many runs were new.

    Rows that are there already (an earlier move was cut off) are replaced, unless ``keep``.
    """
    known = set(u.c.execute(sa.select(t.runs.c.id)).scalars())
    for table, owner in _OWNERS.items():
        mine = rows[table.name]
        if not mine:
            continue
        if not keep:
            u.c.execute(sa.delete(table).where(owner.in_({r[owner.name] for r in mine})))
        keys = [c.name for c in table.primary_key]
        there = {tuple(r) for r in u.c.execute(sa.select(*table.primary_key))}
        mine = [r for r in mine if tuple(r[k] for k in keys) not in there]
        if table is t.models:
            mine = _number_models(u, mine)
        if mine:
            u.c.execute(sa.insert(table), mine)
    u.note(message, actor)
    return len({r["id"] for r in rows[t.runs.name]} - known)


def _number_models(u: Unit, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A version that another model of that role has in the town becomes the next free one."""
    taken = {tuple(r) for r in u.c.execute(sa.select(t.models.c.role, t.models.c.version))}
    out = []
    for row in rows:
        version = row["version"]
        while (row["role"], version) in taken:
            version += 1
        taken.add((row["role"], version))
        out.append({**row, "version": version})
    return out
