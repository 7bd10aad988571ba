"""Which files are offered, and what each is by what it holds."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus.files import InputFile, list_files
from gtft.corpus.sources import FORMATS, tell_format
from gtft.corpus.sources.sniff import sniff
from gtft.corpus.tally import Tally
from gtft.errors import InputError

DATA = Path(__file__).parents[2].parent / "shared" / "data"
BEAD = {"id": "gz-1", "title": "t", "status": "open", "description": "d"}
PAGE = "# The mill\n\nIt grinds. See `make`.\n\n## Parts\n\n- a wheel\n- a stone\n"
FORMULA = 'formula = "mol-mill"\ndescription = "Watches."\n[[steps]]\nid = "a"\n'


def write(tmp: Path, data: Any, name: str = "x") -> InputFile:
    path = tmp / name
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        rows = data if isinstance(data, list) else [data]
        text = data if isinstance(data, str) else "\n".join(json.dumps(r) for r in rows)
        path.write_text(text)
    return InputFile(path, name)


CASES: list[tuple[str, Any]] = [
    ("claude-code", {"type": "user", "uuid": "u", "sessionId": "s", "message": {"content": "x"}}),
    ("claude-code", {"type": "summary", "summary": "x", "leafUuid": "u"}),
    ("claude-code", {"timestamp": "t", "sessionId": "s", "message": {"role": "assistant"}}),
    ("claude-code", [{"type": "later-on", "n": 1}, {"type": "mode", "sessionId": "s"}]),
    ("codex", {"timestamp": "t", "type": "session_meta", "payload": {"id": "s"}}),
    ("codex", {"id": "s", "timestamp": "t", "instructions": None}),
    ("codex", {"created_at": "t", "role": "user", "message": "x"}),
    ("codex", {"role": "user", "content": [{"type": "input_text", "text": "x"}]}),
    ("gemini", {"sessionId": "s", "projectHash": "h", "kind": "main"}),
    ("gemini", json.dumps({"messages": [{"type": "user", "content": "x"}]}, indent=2)),
    ("gemini", json.dumps({"history": [{"role": "user", "parts": []}]}, indent=2)),
    ("pi", {"type": "session", "version": 3, "id": "s", "timestamp": "t", "cwd": "/x"}),
    ("opencode", {"id": "m", "sessionID": "s", "role": "user"}),
    ("opencode", {"id": "s", "directory": "/x", "time": {"created": 1}}),
    ("opencode", {"id": "p", "messageID": "m", "type": "text", "text": "x"}),
    ("beads", BEAD),
    ("beads", {"issue_id": "gz-1", "depends_on_id": "gz-2", "type": "blocks"}),
    ("beads", {"key": "issue_prefix", "value": "gz"}),
    ("beads", json.dumps([BEAD], indent=2)),
    ("beads", {"schema_version": 1, "data": [BEAD]}),
    ("interactions", {"id": "int-1", "kind": "llm_call", "issue_id": "gz-1"}),
    ("formulas", FORMULA),
    ("formulas", "# kept short\n\n" + FORMULA),
    ("formulas", {"formula": "x", "description": "d", "steps": []}),
    ("docs", PAGE),
    ("docs", "---\nname: mill\n---\n" + PAGE),
]


@pytest.mark.parametrize(("kind", "data"), CASES)
def test_a_file_is_what_it_holds(tmp_path: Path, kind: str, data: Any) -> None:
    assert sniff(write(tmp_path, data, "wrong.png")) == kind
    if kind != "docs":
        nul = write(tmp_path, b"\x00\x00\xef\xbb\xbf" + (tmp_path / "wrong.png").read_bytes(), "n")
        assert sniff(nul) == kind


OTHERS: list[Any] = [
    {"type": "session.start", "data": {"sessionId": "s"}},
    [
        {"type": "session_start", "id": "d", "cwd": "/x"},
        {"type": "message", "parentId": "d", "timestamp": "t", "message": {"role": "user"}},
    ],
    {"type": "user", "uuid": "u", "sessionId": "s", "message": {"role": "user", "parts": []}},
    {"role": "user", "message": {"content": []}},
    {"ts": "t", "source": "gt", "type": "sling", "actor": "mayor", "payload": {"bead": "gz-1"}},
    {"last_dolt_commit": "x", "counts": {}},
    {},
    "",
    "[tool.ruff]\nline-length = 100\n",
    "# a comment\nimport os\n\n# another\nx = 1\n",
    "package main\n\n// ## no heading\nfunc main() {\n}\n",
    "one,two\n1,2\n",
    b"\x7fELF\x00\x00",
]


@pytest.mark.parametrize("data", OTHERS)
def test_what_no_reader_knows_is_no_format(tmp_path: Path, data: Any) -> None:
    assert sniff(write(tmp_path, data)) is None


@pytest.mark.parametrize(("kind", "data"), CASES)
def test_a_record_that_is_longer_than_the_head_is_told_by_its_keys(
    tmp_path: Path, kind: str, data: Any
) -> None:
    if not isinstance(data, dict) or "key" in data:
        return
    long = {**data, "zzz": "x" * 200_000}
    assert sniff(write(tmp_path, long)) == kind


@pytest.mark.parametrize(("kind", "data"), CASES)
def test_a_torn_first_line_does_not_hide_the_next(tmp_path: Path, kind: str, data: Any) -> None:
    if isinstance(data, dict):
        assert sniff(write(tmp_path, '{"type": "us\n' + json.dumps(data))) == kind


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda t: t.encode())),
    st.sampled_from([b"", b"{", b'{"type":', b"[[", b"# x\n\n", b"a = ", b'{"a":' * 5000]),
)
def test_any_bytes_are_some_format_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes
) -> None:
    file = InputFile(tmp_path_factory.getbasetemp() / "any", "any")
    file.path.write_bytes(head + data)
    found = sniff(file)
    assert found is None or found in FORMATS
    for kind in FORMATS:
        assert tell_format(file, kind) in (found, kind)


def test_databases_are_told_by_their_tables(tmp_path: Path) -> None:
    for kind, tables in {
        "opencode": ("session", "message", "part"),
        "beads": ("issues", "labels"),
        "none": ("other",),
    }.items():
        db = sqlite3.connect(tmp_path / kind)
        for table in tables:
            db.execute(f"CREATE TABLE {table} (id TEXT)")
        db.commit()
        db.close()
        assert sniff(InputFile(tmp_path / kind, kind)) == (None if kind == "none" else kind)
    (tmp_path / "torn").write_bytes(b"SQLite format 3\x00" + b"x" * 50)
    assert sniff(InputFile(tmp_path / "torn", "torn")) is None


def test_a_file_that_says_nothing_is_what_its_source_says(tmp_path: Path) -> None:
    unknown = write(tmp_path, {"type": "brand-new"})
    assert tell_format(unknown, "codex") == "codex"
    assert tell_format(unknown, "auto") is None
    assert tell_format(unknown, "docs") is None
    note = write(tmp_path, "Turn the mill off before you read the gauge. It is hot.", "note")
    assert tell_format(note, "docs") == "docs"
    assert tell_format(note, "codex") is None
    assert tell_format(write(tmp_path, OTHERS[0], "copilot"), "codex") is None


def test_a_folder_offers_plain_files_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("b/.beads/issues.jsonl", "a.txt", ".git/config", "node_modules/x/readme.md"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    (home / "empty").write_text("")
    (home / "picture").write_bytes(b"\x89PNG\x00\x00")
    (home / "nul").write_bytes(b'\x00\x00{"a": 1}')
    (tmp_path / "secret").write_text("x")
    (home / "out").symlink_to(tmp_path / "secret")
    (home / "again").symlink_to(home / "a.txt")
    (home / "loop").symlink_to(home)
    os.mkfifo(home / "pipe")
    tally = Tally()
    files = list_files(tmp_path, "home", tally)
    assert [f.name for f in files] == [
        "home/a.txt", "home/b/.beads/issues.jsonl", "home/nul", "home/picture"
    ]  # fmt: skip
    assert sniff(files[-1]) is None
    assert dict(tally.tables["files"]) == {
        "empty file": 1,
        "folder .git": 1,
        "folder node_modules": 1,
        "link that leaves the folder": 1,
        "link to what is read anyway": 2,
        "no plain file": 1,
    }
    assert sorted(n.file for n in tally.named) == ["home/empty", "home/out", "home/pipe"]


def test_a_workspace_below_a_source_is_not_read(tmp_path: Path) -> None:
    for name in ("town/notes.md", ".gtft/redaction.key", ".gtft/artifacts/corpus-1/base.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("The key of the mill is under the mat.")
    tally = Tally()
    assert [f.name for f in list_files(tmp_path, ".", tally)] == ["town/notes.md"]
    assert dict(tally.tables["files"]) == {"folder of a gtft workspace": 1}


def test_a_folder_without_files_and_one_that_is_not_there_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        list_files(tmp_path, "empty")
    with pytest.raises(InputError, match="does not exist"):
        list_files(tmp_path, "gone")


@pytest.mark.skipif(not DATA.is_dir(), reason="the sample data ../shared/data is absent")
@pytest.mark.parametrize(
    ("folder", "kind", "misfits"),
    [
        ("transcripts/claude-code", "claude-code", 0),
        ("transcripts/claude-code-real", "claude-code", 0),
        ("transcripts/codex", "codex", 0),
        ("transcripts/gemini", "gemini", 0),
        ("transcripts/pi", "pi", 0),
        ("transcripts/omp", "pi", 0),
        # The state of a backup says nothing about beads.
        ("beads", "beads", 1),
        ("formulas", "formulas", 0),
    ],
)
def test_real_files_are_told_by_what_they_hold(folder: str, kind: str, misfits: int) -> None:
    files = [f for f in list_files(DATA, folder) if "LICENSE" not in f.name]
    found = [sniff(f) for f in files]
    assert found.count(kind) == len(files) - misfits
    assert set(found) <= {kind, None}
