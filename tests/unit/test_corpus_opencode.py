"""opencode → conversations: the database, the older folders, steps, files that would run something."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation
from gtft.corpus.files import list_files
from gtft.corpus.sources.opencode import read
from gtft.corpus.tally import Tally

DATA = Path(__file__).parents[2].parent / "shared" / "data"
SCHEMA = """
CREATE TABLE session (id TEXT PRIMARY KEY, parent_id TEXT, directory TEXT, time_created INTEGER);
CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT, time_created INTEGER, data TEXT);
CREATE TABLE part (id TEXT PRIMARY KEY, message_id TEXT, session_id TEXT, data TEXT);
"""
DIRECTORY = "/town/gizmo/witness"

Message = tuple[dict[str, Any], list[dict[str, Any]]]


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def tool(call: str, status: str = "completed", **state: Any) -> dict[str, Any]:
    given = {"status": status, "input": {"command": "ls"}, **state}
    return {"type": "tool", "callID": call, "tool": "bash", "state": given}


def user(*parts: dict[str, Any]) -> Message:
    return {"role": "user"}, list(parts)


def answer(*parts: dict[str, Any], **more: Any) -> Message:
    return {"role": "assistant", "modelID": "m-1", **more}, list(parts)


TALK: list[Message] = [
    user(text("list"), text("injected", synthetic=True), {"type": "file", "mime": "image/png"}),
    answer(
        {"type": "step-start"},
        {"type": "reasoning", "text": "hm"},
        text("I look."),
        tool("c1", output="a.txt"),
        {"type": "step-finish"},
        {"type": "step-start"},
        tool("c2", "error", error="boom"),
        tool("c3", "running"),
    ),
    user({"type": "compaction", "auto": True}),
    answer(text("We listed."), summary=True),
    user(text("go on")),
    answer(text("half an ans"), error={"name": "MessageAbortedError"}),
]


def write_database(path: Path, talk: list[Message], session: str = "ses1", more: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.executescript(SCHEMA + more)
    db.execute("INSERT INTO session VALUES (?, NULL, ?, 1)", (session, DIRECTORY))
    for n, (said, parts) in enumerate(talk):
        key = f"msg{n}"
        db.execute("INSERT INTO message VALUES (?, ?, ?, ?)", (key, session, n, json.dumps(said)))
        for i, part in enumerate(parts):
            row = (f"prt{n}.{i}", key, session, json.dumps(part))
            db.execute("INSERT INTO part VALUES (?, ?, ?, ?)", row)
    db.commit()
    db.close()
    return path


def write_folders(root: Path, talk: list[Message], session: str = "ses1") -> Path:
    def put(path: Path, value: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2))

    put(root / "session" / "p" / f"{session}.json", {"id": session, "directory": DIRECTORY})
    for n, (said, parts) in enumerate(talk):
        key = f"msg{n}"
        row = {"id": key, "sessionID": session, "time": {"created": n}, **said}
        put(root / "message" / session / f"{key}.json", row)
        for i, part in enumerate(parts):
            put(root / "part" / key / f"prt{n}.{i}.json", part)
    return root


def harvest(path: Path) -> tuple[list[Conversation], Tally]:
    tally = Tally()
    talks = list(read(list_files(path.parent, str(path)), tally, Claims()))
    assert tally.total("records") == tally.total("kept") + tally.total("dropped")
    return talks, tally


@pytest.mark.parametrize("write", [write_database, write_folders])
def test_both_layouts_say_the_same(tmp_path: Path, write: Any) -> None:
    talks, tally = harvest(write(tmp_path / "opencode.db", TALK))
    entries = talks[0].entries
    assert [(e.kind, e.text, e.line) for e in entries] == [
        ("user", "list", 1),
        ("user", "[image: image/png]", 1),
        ("assistant", "I look.", 2),
        ("assistant", "", 2),
        ("result", "a.txt", 2),
        ("assistant", "", 2),
        ("result", "boom", 2),
        ("assistant", "", 2),
        ("boundary", "", 3),
        ("summary", "We listed.", 4),
        ("user", "go on", 5),
    ]
    # The text and the first call are one step, the other calls the next.
    steps = [e.response for e in entries if e.kind == "assistant"]
    assert steps[0] == steps[1] != steps[2] == steps[3]
    assert entries[3].calls[0].arguments == {"command": "ls"}
    assert (talks[0].evidence.session, talks[0].links, talks[0].header) == (
        "ses1",
        ("session:ses1",),
        "list",
    )
    assert (talks[0].evidence.candidates[0].role, talks[0].evidence.candidates[0].rung) == (
        "witness",
        "cwd",
    )
    for reason in ("synthetic", "thinking", "answer cut short", "step-finish"):
        assert tally.get("dropped", reason) == 1
    assert tally.get("models", "m-1") == 3
    assert "bad" not in tally.tables and "drift" not in tally.tables


def test_a_session_of_the_database_is_not_read_again_from_the_folders(tmp_path: Path) -> None:
    write_folders(tmp_path / "storage", TALK)
    write_database(tmp_path / "opencode.db", TALK)
    talks, tally = harvest(tmp_path)
    assert [t.file.split("/")[-1] for t in talks] == ["opencode.db"]
    assert tally.get("dropped", "session of the database too") == len(TALK)


def test_rows_and_files_without_an_owner_are_counted(tmp_path: Path) -> None:
    loose = """
    INSERT INTO part VALUES ('p9', 'gone', 'ses1', '{}');
    INSERT INTO message VALUES ('m9', 'gone', 1, '{"role": "user"}');
    INSERT INTO part VALUES ('p8', 'm9', 'gone', '{"type": "text", "text": "hi"}');
    """
    talks, tally = harvest(write_database(tmp_path / "a.db", TALK[:1], more=loose))
    assert [t.evidence.session for t in talks] == ["ses1", "gone"]
    assert tally.get("dropped", "part without a message") == 1

    root = write_folders(tmp_path / "storage", TALK[:1])
    (root / "part" / "gone").mkdir()
    (root / "part" / "gone" / "p9.json").write_text('{"type": "text", "text": "hi"}')
    (root / "odd.json").write_text('{"odd": 1}')
    (root / "auth.json").write_text('{"vendor": {"type": "api", "key": "made-up"}}')
    talks, tally = harvest(root)
    assert len(talks) == 1
    assert tally.get("dropped", "part without a message") == 1
    assert tally.get("dropped", "side file") == 1
    assert [(n.reason, n.detail) for n in tally.named] == [("unknown type", "file {odd}")]


def test_a_database_runs_nothing_and_is_not_written(tmp_path: Path) -> None:
    path = write_database(tmp_path / "a.db", TALK)
    db = sqlite3.connect(path)
    db.executescript(
        "ALTER TABLE part RENAME TO real_part;"
        "CREATE VIEW part AS SELECT id, message_id, session_id, upper(data) AS data FROM real_part;"
    )
    db.close()
    before = path.read_bytes()
    talks, tally = harvest(path)
    assert talks == []
    assert [(n.reason, n.detail) for n in tally.named] == [("tables missing or not plain", "part")]

    computed = tmp_path / "b" / "b.db"
    write_database(computed, TALK)
    db = sqlite3.connect(computed)
    db.execute("ALTER TABLE session ADD COLUMN bad TEXT AS (upper(id)) VIRTUAL")
    db.commit()
    db.close()
    talks, tally = harvest(computed)
    assert talks == []
    assert [(n.reason, n.detail) for n in tally.named] == [
        ("tables missing or not plain", "session")
    ]
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db", "b"]


def test_what_is_no_database_or_has_an_open_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database")
    assert [n.reason for n in harvest(tmp_path / "x.db")[1].named] == ["bad line"]
    path = write_database(tmp_path / "opencode.db", TALK)
    (tmp_path / "opencode.db-wal").write_bytes(b"1")
    talks, tally = harvest(path)
    assert len(talks) == 1
    assert tally.named[0].reason.startswith("write-ahead log not read")


def test_columns_of_the_wrong_type_are_named(tmp_path: Path) -> None:
    more = """
    INSERT INTO message VALUES ('m1', 'ses1', 2, x'00ff');
    INSERT INTO message VALUES ('m2', 'ses1', 3, '{"role": "user"');
    INSERT INTO message VALUES ('m3', 'ses1', 4, '{"role": "user"}');
    INSERT INTO part VALUES ('p1', 'm3', 'ses1', '[1]');
    INSERT INTO part VALUES ('p2', 'm3', 'ses1', '{"type": "brand-new"}');
    """
    talks, tally = harvest(write_database(tmp_path / "a.db", TALK[:1], more=more))
    assert len(talks[0].entries) == 2
    assert {n.reason for n in tally.named} == {
        "column is no text", "bad line", "not an object", "unknown type"
    }  # fmt: skip


def test_pages_in_a_circle_are_named_and_not_read_for_ever(tmp_path: Path) -> None:
    path = write_database(tmp_path / "a.db", [user(text("x" * 900)) for _ in range(40)])
    db = sqlite3.connect(path)
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'part'").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    raw = bytearray(path.read_bytes())
    at = (root - 1) * size
    assert raw[at] == 5  # an inner page: the last of its children becomes the page itself
    raw[at + 8 : at + 12] = root.to_bytes(4, "big")
    path.write_bytes(raw)
    talks, tally = harvest(path)
    assert talks == []
    (named,) = tally.named
    assert named.reason in ("damaged database", "unreadable database")


def test_what_became_of_a_call_and_who_asked_a_sub_agent(tmp_path: Path) -> None:
    refused = "The user rejected permission to use this specific tool call."
    talk = [
        user(text("go")),
        answer(tool("c1", "error", error=refused)),
        answer(tool("c2", output="ok"), error={"name": "MessageAbortedError"}),
    ]
    child = "INSERT INTO session VALUES ('ses2', 'ses1', '/x', 2);" + (
        'INSERT INTO message VALUES (\'m9\', \'ses2\', 1, \'{"role": "user", "time": {"created": 1000}}\');'
        "INSERT INTO part VALUES ('p9', 'm9', 'ses2', '{\"type\": \"text\", \"text\": \"hi\"}');"
    )
    talks, _ = harvest(write_database(tmp_path / "a.db", talk, more=child))
    assert [(e.kind, e.model, e.mark) for e in talks[0].entries] == [
        ("user", "", ""),
        ("assistant", "m-1", ""),
        ("result", "", "denied"),
        ("assistant", "m-1", "interrupted"),
        ("result", "", "interrupted"),
    ]
    assert (talks[1].evidence.parent, talks[1].entries[0].by) == ("ses1", "agent")
    assert talks[1].evidence.started == "1970-01-01T00:00:01.000+00:00"


@pytest.mark.skipif(not DATA.is_dir(), reason="the sample data ../shared/data is absent")
def test_the_fixtures_of_others_are_read(tmp_path: Path) -> None:
    """Their names hold the folders: the tree is set up again."""
    for path in sorted((DATA / "transcripts" / "other-agents").iterdir()):
        _, found, inner = path.name.partition("~opencode~")
        if found:
            target = tmp_path / inner.replace("~", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    files = list_files(tmp_path, ".")
    tally = Tally()
    talks = list(read(files, tally, Claims()))
    assert (len(files), len(talks)) == (27, 3)
    assert tally.total("records") == 27 == tally.total("kept") + tally.total("dropped")
    assert "drift" not in tally.tables and "bad" not in tally.tables
    assert sum(e.kind == "result" for t in talks for e in t.entries) == 3
