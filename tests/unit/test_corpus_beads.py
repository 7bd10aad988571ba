"""Bead rows of every generation, and formulas."""

from __future__ import annotations

import json
import shlex
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation
from gtft.corpus.files import InputFile
from gtft.corpus.sources import beads, formulas
from gtft.corpus.tally import Tally

LONG = "The parser drops the last line when the file has no newline at its end."


def bead(**more: Any) -> dict[str, Any]:
    row = {
        "id": "gz-1",
        "title": "Parser drops last line",
        "description": LONG,
        "status": "open",
        "priority": 0,
        "issue_type": "bug",
        "updated_at": "2026-01-01T00:00:00Z",
    }
    return {**row, **more}


def harvest(tmp: Path, *rows: dict[str, Any]) -> tuple[list[Conversation], Tally]:
    path = tmp / "issues.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows))
    tally = Tally()
    return list(beads.read([InputFile(path, path.name)], tally, Claims())), tally


def test_the_answer_is_a_command_that_a_shell_reads_back(tmp_path: Path) -> None:
    title = 'It\'s "odd"; $(rm) & `x`'
    (talk,), _ = harvest(tmp_path, bead(title=title, labels=["rig:gizmo", "a b"]))
    ask, reply = talk.entries
    assert ask.text.endswith(LONG)
    command = reply.text.removeprefix("```bash\n").removesuffix("\n```")
    words = shlex.split(command)
    assert words[:3] == ["bd", "create", f"--title={title}"]
    assert words[3:9] == ["-t", "bug", "-p", "0", "-l", "a b,rig:gizmo"]
    assert words[9] == f"--description={LONG}"
    assert (talk.evidence.candidates[0].rig, talk.evidence.candidates[0].bead) == ("gizmo", "gz-1")


@pytest.mark.parametrize(
    ("reason", "more"),
    [
        ("wisp", {"ephemeral": 1}),
        ("wisp", {"wisp": True}),
        ("wisp", {"id": "gz-wisp-1"}),
        ("tombstone", {"status": "tombstone"}),
        ("type message", {"issue_type": "message"}),
        ("type agent", {"issue_type": "agent"}),
        ("digest", {"title": "Digest: mol-witness-patrol"}),
        ("heartbeat", {"title": "Heartbeat check"}),
        ("flag as title", {"title": "--help"}),
        ("infrastructure label", {"labels": ["gt:message"]}),
        ("description too short", {"description": None}),
        ("description too short", {"description": "attached_molecule: m\nmode: x\n\nfix"}),
    ],
)
def test_noise_is_dropped_by_name(tmp_path: Path, reason: str, more: dict[str, Any]) -> None:
    talks, tally = harvest(tmp_path, bead(**more))
    assert talks == []
    assert tally.get("dropped", reason) == 1


def test_sling_lines_are_stripped_but_the_text_stays(tmp_path: Path) -> None:
    head = "attached_molecule: gz-wisp-1\nAttachedFormula: f\ndispatched-by: mayor\n\n"
    (talk,), _ = harvest(tmp_path, bead(description=f"{head}{LONG}\nmode: kept"))
    assert talk.entries[0].text == f"File a bead for this.\n\n{LONG}\nmode: kept"


def test_the_newest_of_several_versions_counts_whatever_zone_it_is_written_in(
    tmp_path: Path,
) -> None:
    talks, tally = harvest(
        tmp_path,
        bead(title="old", updated_at="2026-01-01T05:00:00Z"),
        bead(title="new", updated_at="2025-12-31T23:30:00.123456789-07:00"),
        bead(title="unreadable", updated_at="yesterday"),
    )
    assert [shlex.split(t.entries[1].text.split("\n")[1])[2] for t in talks] == ["--title=new"]
    assert tally.get("dropped", "older version") == 2


def test_side_rows_are_known_by_shape_and_unknown_ones_named(tmp_path: Path) -> None:
    talks, tally = harvest(
        tmp_path,
        {"issue_id": "gz-1", "event_type": "closed"},
        {"issue_id": "gz-1", "depends_on_id": "gz-2", "type": "blocks"},
        {"issue_id": "gz-1", "label": "x"},
        {"issue_id": "gz-1", "author": "a", "text": "t"},
        {"key": "k", "value": "v"},
        {"_type": "memory", "key": "k", "value": "v"},
        {"id": "int-1", "kind": "field_change"},
        {"surprise": 1},
    )
    assert talks == []
    assert dict(tally.tables["records"]) == dict.fromkeys(
        ["event", "dependency", "label", "comment", "config", "memory", "interaction", "unknown"], 1
    )
    assert [(n.reason, n.line, n.detail) for n in tally.named] == [
        ("unknown type", 8, "row {surprise}")
    ]


def test_a_person_files_as_human_and_an_address_as_agent(tmp_path: Path) -> None:
    talks, _ = harvest(
        tmp_path,
        bead(created_by="ann"),
        bead(id="gz-2", created_by="gizmo/polecats/nux"),
        bead(id="gz-3"),
    )
    assert [(t.provenance, t.evidence.candidates[0].role) for t in talks] == [
        ("human", None),
        ("agent", "polecat"),
        ("agent", None),
    ]


def read_files(tmp: Path, **texts: str) -> tuple[list[Conversation], Tally]:
    files = []
    for name, text in texts.items():
        (tmp / name).write_text(text)
        files.append(InputFile(tmp / name, name))
    tally = Tally()
    talks = list(beads.read(files, tally, Claims()))
    assert tally.total("records") == tally.total("kept") + tally.total("dropped")
    return talks, tally


SIDE = [
    {"issue_id": "gz-1", "label": "rig:gizmo"},
    {"issue_id": "gz-1", "author": "gizmo/crew/ann", "text": "It only fails on Windows."},
    {"issue_id": "gz-1", "depends_on_id": "gz-9", "type": "parent-child"},
    {"issue_id": "gz-8", "depends_on_id": "gz-1", "type": "tracks"},
    {"issue_id": "gone", "label": "x"},
]


def test_side_files_join_their_bead(tmp_path: Path) -> None:
    row = bead(close_reason="The last line is read now.", design="Look for the end of the file.")
    (talk,), tally = read_files(
        tmp_path, a="\n".join(map(json.dumps, SIDE)), b=json.dumps(row | {"labels": ["parser"]})
    )
    assert talk.links == ("bead:gz-1", "bead:gz-8", "bead:gz-9")
    assert "-l parser,rig:gizmo" in talk.entries[1].text
    assert talk.evidence.candidates[0].rig == "gizmo"
    assert talk.plain.splitlines()[2:] == [
        "Design: Look for the end of the file.",
        "Comment: It only fails on Windows.",
        "Closed: The last line is read now.",
    ]
    assert tally.get("dropped", "label of a bead that is not here") == 1
    assert tally.total("kept") == 4


def test_a_label_of_a_side_file_can_make_a_bead_noise(tmp_path: Path) -> None:
    talks, tally = read_files(
        tmp_path,
        a=json.dumps(bead()),
        b=json.dumps({"issue_id": "gz-1", "label": "gt:message"}),
    )
    assert talks == []
    assert tally.get("dropped", "infrastructure label") == 1


@pytest.mark.parametrize(
    "shape",
    [
        lambda rows: json.dumps(rows),
        lambda rows: json.dumps(rows, indent=2),
        lambda rows: json.dumps({"schema_version": 1, "data": rows}),
        lambda rows: json.dumps({"schema_version": 1, "data": rows}, indent=2),
        lambda rows: json.dumps({"issues": rows}, indent=2),
        lambda rows: "\n".join(json.dumps(r, indent=2) for r in rows),
    ],
)
def test_what_bd_prints_is_read_in_every_shape(tmp_path: Path, shape: Any) -> None:
    talks, tally = read_files(tmp_path, a=shape([bead(), bead(id="gz-2")]))
    assert [t.links[0] for t in talks] == ["bead:gz-1", "bead:gz-2"]
    assert "bad" not in tally.tables


def test_a_torn_array_gives_what_is_whole(tmp_path: Path) -> None:
    talks, tally = read_files(tmp_path, a=json.dumps([bead(), bead(id="gz-2")])[:-40])
    assert [t.links[0] for t in talks] == ["bead:gz-1"]
    assert [n.reason for n in tally.named] == ["document torn"]


def test_an_old_database_is_read_and_a_newer_export_wins(tmp_path: Path) -> None:
    path = tmp_path / "gz.db"
    db = sqlite3.connect(path)
    db.executescript(
        "CREATE TABLE issues (id TEXT PRIMARY KEY, title TEXT, description TEXT, status TEXT,"
        " priority INT, issue_type TEXT, updated_at TEXT);"
        "CREATE TABLE labels (issue_id TEXT, label TEXT);"
        "CREATE TABLE dependencies (issue_id TEXT, depends_on_id TEXT, type TEXT);"
        f"INSERT INTO issues VALUES ('gz-1', 'Old', '{LONG}', 'open', 1, 'bug', '2025-10-01 10:00:00');"
        f"INSERT INTO issues VALUES ('gz-2', 'Two', '{LONG}', 'open', 1, 'bug', '2025-10-01 10:00:00');"
        "INSERT INTO labels VALUES ('gz-2', 'parser');"
    )
    db.close()
    export = tmp_path / "issues.jsonl"
    export.write_text(json.dumps(bead(title="New")))
    files = [InputFile(path, "gz.db"), InputFile(export, "issues.jsonl")]
    tally = Tally()
    talks = list(beads.read(files, tally, Claims()))
    assert [t.plain.splitlines()[0] for t in talks] == ["Two", "New"]
    assert "-l parser" in talks[0].entries[1].text
    # That database has no comments yet.
    assert [n.reason for n in tally.named] == ["unreadable database"]


def test_memories_are_prose(tmp_path: Path) -> None:
    text = "Formula files are TOML; every variable is declared in vars."
    talks, tally = read_files(
        tmp_path,
        a="\n".join(
            json.dumps(r)
            for r in (
                {"_type": "memory", "key": "toml", "value": text},
                {"key": "kv.memory.toml", "value": text},
                {"key": "kv.memory.short", "value": "x"},
                {"key": "issue_prefix", "value": "gz"},
            )
        ),
    )
    assert [(t.plain, t.entries, t.links) for t in talks] == [(text, (), ("memory:toml",))]
    assert dict(tally.tables["dropped"]) == {
        "copy of another memory": 1,
        "memory too short": 1,
        "config row": 1,
    }


def test_a_bead_says_when_and_whose_it_is(tmp_path: Path) -> None:
    row = bead(
        created_at="2026-01-01T01:00:00+02:00", owner="ann@example.com", closed_by_session="ses-1"
    )
    (talk,), _ = read_files(tmp_path, a=json.dumps(row))
    assert talk.evidence.started == "2025-12-31T23:00:00+00:00"
    assert talk.contributor == "ann@example.com"
    assert talk.links == ("bead:gz-1", "session:ses-1")


def test_formulas_of_the_oldest_kind_are_json(tmp_path: Path) -> None:
    doc = {"formula": "mol-mill", "description": "Watches the gauges of the mill.", "steps": []}
    (tmp_path / "x.formula.json").write_text(json.dumps(doc))
    tally = Tally()
    (talk,) = formulas.read([InputFile(tmp_path / "x.formula.json", "x")], tally, Claims())
    assert talk.links == ("formula:mol-mill",)
    assert talk.entries[1].text.startswith("```json\n{")


def test_formulas_that_are_no_toml_or_say_nothing_are_counted(tmp_path: Path) -> None:
    for name, body in {
        "good": 'description = "Watches the gauges of the mill."\nformula = "mol-mill"\nversion = 1\n',
        "bad": "description = \n",
        "long": "a" + ".a" * 100_000 + " = 1\n",
        "digits": "a = " + "9" * 5000,
        "mute": 'formula = "x"\n',
    }.items():
        (tmp_path / f"{name}.formula.toml").write_text(body)
    files = [InputFile(p, p.name) for p in sorted(tmp_path.glob("*.toml"))]
    tally = Tally()
    (talk,) = formulas.read(files, tally, Claims())
    assert talk.links == ("formula:mol-mill",)
    assert talk.entries[1].text.startswith("```toml\ndescription")
    assert dict(tally.tables["dropped"]) == {"not TOML": 3, "no description": 1}


def test_a_bead_is_of_the_agent_who_filed_it(tmp_path: Path) -> None:
    # Without it, nobody could withdraw the beads that an agent filed.
    talks, _ = harvest(
        tmp_path,
        bead(created_by="gizmo/crew/ann"),
        bead(id="gz-2", created_by="mayor"),
        bead(id="gz-3", created_by="ann"),
    )
    actors = {t.evidence.candidates[0].bead: t.evidence.candidates[0].actor for t in talks}
    assert actors == {"gz-1": "gizmo/crew/ann", "gz-2": "mayor", "gz-3": None}
