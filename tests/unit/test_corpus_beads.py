"""Bead rows of every generation, and formulas."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

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
    return list(beads.read([InputFile(path, path.name)], tally)), tally


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
    assert (talk.labels.rig, talk.labels.bead) == ("gizmo", "gz-1")


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
        ("row of unknown shape", 8, "surprise")
    ]


def test_a_person_files_as_human_and_an_address_as_agent(tmp_path: Path) -> None:
    talks, _ = harvest(
        tmp_path,
        bead(created_by="ann"),
        bead(id="gz-2", created_by="gizmo/polecats/nux"),
        bead(id="gz-3"),
    )
    assert [(t.provenance, t.labels.role) for t in talks] == [
        ("human", None),
        ("agent", "polecat"),
        ("agent", None),
    ]


def test_formulas_that_are_no_toml_or_say_nothing_are_counted(tmp_path: Path) -> None:
    for name, body in {
        "good": 'description = "Watches the gauges of the mill."\nformula = "mol-mill"\nversion = 1\n',
        "bad": "description = \n",
        "mute": 'formula = "x"\n',
    }.items():
        (tmp_path / f"{name}.formula.toml").write_text(body)
    files = [InputFile(p, p.name) for p in sorted(tmp_path.glob("*.toml"))]
    tally = Tally()
    (talk,) = formulas.read(files, tally)
    assert talk.links == ("formula:mol-mill",)
    assert talk.entries[1].text.startswith("```toml\ndescription")
    assert dict(tally.tables["dropped"]) == {"not TOML": 1, "no description": 1}
