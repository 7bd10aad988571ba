"""The beads of a town's Dolt (MySQL) server, copied by SELECT alone into a file that the reader takes.

``sql:DATABASE@HOST:PORT`` in a recipe. A copy has what a file has: a hash for the manifest, and a harvest that
finds nothing changed reads nothing. Columns differ by release, so those that are there are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from gtft.artifact import canonical_json
from gtft.corpus.files import InputFile
from gtft.errors import InputError, TownError, translate_os_error

PREFIX = "sql:"
CONNECT_SECONDS = 5
ANSWER_SECONDS = 60
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ADDRESS = re.compile(r"sql:([\w-]{1,64})@([\w.:-]{1,253}):(\d{1,5})")
_COLUMNS: dict[str, tuple[str, ...]] = {
    "issues": (
        "id", "title", "description", "design", "acceptance_criteria", "notes", "status", "priority",
        "issue_type", "owner", "created_at", "created_by", "updated_at", "closed_at", "close_reason",
        "closed_by_session", "ephemeral", "wisp_type", "is_template",
    ),
    "labels": ("issue_id", "label"),
    "comments": ("id", "issue_id", "author", "text", "created_at"),
    "dependencies": (
        "issue_id", "type", "depends_on_id", "depends_on_issue_id", "depends_on_wisp_id", "depends_on_external",
    ),
    "config": ("key", "value"),
}  # fmt: skip


@dataclass(frozen=True)
class Address:
    database: str
    host: str
    port: int


def parse_address(path: str) -> Address | None:
    """The server that a source's path names; None when it names a file. Raises InputError on another shape."""
    if not path.startswith(PREFIX):
        return None
    found = _ADDRESS.fullmatch(path)
    if not found or not 0 < int(found[3]) < 65536:
        raise InputError(
            f"{path[:100]} is no address of a database",
            why="it begins with sql: and is not sql:DATABASE@HOST:PORT",
            fix="correct the path in the recipe, as in sql:gastown@127.0.0.1:3307",
        )
    return Address(found[1], found[2], int(found[3]))


def copy_beads(address: Address, password: str, folder: Path, user: str = "root") -> InputFile:
    """Write the bead tables as JSON lines, in the order of their keys, and give the file, which nobody
    else may read: it is not redacted. Nothing is left when a table cannot be read.

    Raises TownError when the server is away or refuses, InputError when the disk does.
    """
    import pymysql

    out = folder / f"sql-{address.database}.jsonl"
    aside = out.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside.touch(mode=0o600)
        with (
            closing(
                pymysql.connect(
                    host=address.host,
                    port=address.port,
                    user=user,
                    password=password,
                    database=address.database,
                    charset="utf8mb4",
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=ANSWER_SECONDS,
                    write_timeout=ANSWER_SECONDS,
                    ssl_disabled=address.host in _LOOPBACK,
                    cursorclass=pymysql.cursors.SSDictCursor,
                )
            ) as server,
            aside.open("w", encoding="utf-8") as f,
        ):
            with server.cursor() as cursor:
                cursor.execute("START TRANSACTION READ ONLY")
            for table, known in _COLUMNS.items():
                for row in _select(server, address.database, table, known):
                    f.write(canonical_json(row) + "\n")
        aside.replace(out)
    except pymysql.MySQLError as e:
        raise TownError(
            f"the beads of {address.database} cannot be read",
            why=f"{type(e).__name__} from {address.host}:{address.port}",
            fix="gt dolt status, then the address in the recipe",
        ) from e
    except OSError as e:
        raise translate_os_error(e, f"copying the beads of {address.database}") from e
    finally:
        aside.unlink(missing_ok=True)
    return InputFile(out, f"sql:{address.database}")


def _select(
    server: Any, database: str, table: str, known: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """The rows of a table, of the columns that are there; none when the table is not."""
    with server.cursor() as cursor:
        cursor.execute(
            "SELECT column_name AS name FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s",
            (database, table),
        )
        there = {str(r["name"]).lower() for r in cursor.fetchall()}
    columns = [c for c in known if c in there]
    if not columns:
        return
    # Names come from the table above, never from the server.
    names = [f"`{c}`" for c in columns]
    order = names[:1] if columns[0] == "id" else names
    query = f"SELECT {', '.join(names)} FROM `{table}` ORDER BY {', '.join(order)}"  # noqa: S608
    with server.cursor() as cursor:
        cursor.execute(query)
        for row in cursor:
            yield _write_row(row, table)


def _write_row(row: dict[str, Any], table: str) -> dict[str, Any]:
    """As an export has it: times in UTC, one target of a dependency, absent values absent."""
    said = {k: _write_value(v) for k, v in row.items() if v is not None}
    if table == "dependencies":
        targets = [said.pop(k, "") for k in _COLUMNS[table][2:]]
        said["depends_on_id"] = next((t for t in targets if t), "")
    return said


def _write_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, date):
        return f"{value.isoformat()}Z"
    return value if isinstance(value, str | int | float) else str(value)
