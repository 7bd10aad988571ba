"""Beads of a real Dolt server: copied by SELECT alone, and read as an export is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation
from gtft.corpus.files import InputFile
from gtft.corpus.sources import FORMATS, beads
from gtft.corpus.sources.beads_sql import Address, copy_beads, parse_address
from gtft.corpus.sources.sniff import sniff
from gtft.corpus.tally import Tally
from gtft.errors import InputError, TownError
from town_case import DoltServer, find_port, make_beads, need_tools, run

LONG = "The parser drops the last line when the file has no newline at its end."
TABLES = (
    "CREATE TABLE issues (id varchar(99) PRIMARY KEY, title text, description longtext, status text,"
    " priority int, issue_type text, created_by text, created_at datetime, updated_at datetime, later text)",
    "CREATE TABLE labels (issue_id varchar(99), label varchar(99), PRIMARY KEY (issue_id, label))",
    "CREATE TABLE dependencies (id int PRIMARY KEY, issue_id varchar(99), type text,"
    " depends_on_issue_id varchar(99), depends_on_wisp_id varchar(99))",
    "CREATE TABLE config (`key` varchar(99) PRIMARY KEY, value text)",
)


def make_rig(server: DoltServer, name: str) -> Address:
    server.query(f"CREATE DATABASE {name}")
    for table in TABLES:
        server.query(table, name)
    server.query(
        f"INSERT INTO issues VALUES ('gz-2', 'Parser', '{LONG}', 'open', 1, 'bug', 'gizmo/polecats/nux',"
        " '2026-01-01 10:00:00', '2026-01-02 10:00:00', 'x'), ('gz-1', 'Mill', NULL, 'open', 2, 'epic',"
        " '', '2026-01-01 10:00:00', '2026-01-01 10:00:00', NULL)",
        name,
    )
    server.query("INSERT INTO labels VALUES ('gz-2', 'parser')", name)
    server.query("INSERT INTO dependencies VALUES (1, 'gz-2', 'parent-child', 'gz-1', NULL)", name)
    server.query(
        "INSERT INTO config VALUES ('kv.memory.mill', 'Turn the mill off before the gauge is read.')",
        name,
    )
    return Address(name, "127.0.0.1", server.port)


def test_a_server_is_read_as_an_export_is(dolt_server: DoltServer, tmp_path: Path) -> None:
    address = make_rig(dolt_server, "sqlbeads")
    file = copy_beads(address, "", tmp_path)
    assert sniff(file) == "beads"
    assert file.name == "sql:sqlbeads"
    tally = Tally()
    bead, memory = beads.read([file], tally, Claims())
    assert bead.links == ("bead:gz-2", "bead:gz-1")
    assert "-l parser" in bead.entries[1].text
    assert bead.evidence.started == "2026-01-01T10:00:00+00:00"
    assert bead.evidence.candidates[0].role == "polecat"
    assert memory.plain == "Turn the mill off before the gauge is read."
    assert tally.total("records") == tally.total("kept") + tally.total("dropped") == 5
    assert dolt_server.query("SELECT count(*) FROM dolt_status", "sqlbeads") is not None
    first = file.path.read_bytes()
    assert copy_beads(address, "", tmp_path).path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["sql-sqlbeads.jsonl"]
    assert FORMATS["beads"].fits(file)


def test_what_bd_wrote_is_the_same_over_sql_and_in_its_own_json(
    dolt_server: DoltServer, tmp_path: Path
) -> None:
    need_tools("bd")
    folder = make_beads(tmp_path / "rig", dolt_server, "sqlbd").parent

    def bd(*argv: str) -> str:
        return run("bd", *argv, environ=dolt_server.environ, cwd=folder).stdout

    epic = json.loads(bd("create", "--title=Mill", "-t", "epic", "-d", LONG, "--json"))["id"]
    made = bd(
        "create", "--title=Parser", "-t", "bug", "-p", "1", "-d", LONG, "-l", "parser", "--json"
    )
    key = json.loads(made)["id"]
    bd("dep", "add", key, epic, "-t", "parent-child")
    bd("comments", "add", key, "It only fails on Windows.")
    (tmp_path / "list.json").write_text(bd("list", "--all", "--limit", "0", "--json"))
    (tmp_path / "export.jsonl").write_text(bd("export"))

    def read(file: InputFile) -> dict[str, Conversation]:
        assert sniff(file) == "beads"
        return {t.links[0]: t for t in beads.read([file], Tally(), Claims())}

    over_sql = read(copy_beads(Address("sqlbd", "127.0.0.1", dolt_server.port), "", tmp_path))
    listed = read(InputFile(tmp_path / "list.json", "list"))
    exported = read(InputFile(tmp_path / "export.jsonl", "export"))
    assert over_sql.keys() == listed.keys() == exported.keys() == {f"bead:{epic}", f"bead:{key}"}
    bead = over_sql[f"bead:{key}"]
    assert bead.links == exported[f"bead:{key}"].links == (f"bead:{key}", f"bead:{epic}")
    assert "Comment: It only fails on Windows." in bead.plain
    for other in (listed, exported):
        assert [t.entries[1].text for t in other.values()] == [
            over_sql[k].entries[1].text for k in other
        ]


def test_a_server_that_is_away_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(TownError, match="the beads of gz cannot be read"):
        copy_beads(Address("gz", "127.0.0.1", find_port()), "", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_address_is_told_from_a_path() -> None:
    assert parse_address("sql:gas_town@127.0.0.1:3307") == Address("gas_town", "127.0.0.1", 3307)
    assert parse_address("rigs/gizmo/.beads") is None
    for wrong in ("sql:", "sql:a@b", "sql:a;b@c:1", "sql:a@b:99999"):
        with pytest.raises(InputError, match="no address"):
            parse_address(wrong)
