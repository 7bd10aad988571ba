"""Transcripts that are torn, glued, NUL-filled or full of wrong types: counted, never fatal, in every format."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus import jsonl
from gtft.corpus.files import InputFile, list_files
from gtft.corpus.redact import Redactor
from gtft.corpus.segment import Limits, cut
from gtft.corpus.sources import FORMATS
from gtft.corpus.tally import Tally

TRANSCRIPTS = ("codex", "gemini", "opencode", "pi")
SAMPLES: dict[str, list[dict[str, Any]]] = {
    "codex": [
        {"type": "session_meta", "payload": {"id": "s1", "cwd": "/x", "timestamp": "1"}},
        {"type": "response_item", "payload": {"type": "message", "role": "user", "content": "go"}},
        {
            "type": "response_item",
            "payload": {"type": "function_call", "name": "sh", "arguments": "{}", "call_id": "c"},
        },
        {
            "type": "response_item",
            "payload": {"type": "function_call_output", "call_id": "c", "output": "ok"},
        },
        {"type": "compacted", "payload": {"message": "so far"}},
        {"type": "event_msg", "payload": {"type": "thread_rolled_back", "num_turns": 1}},
    ],
    "gemini": [
        {"sessionId": "s1", "projectHash": "ab"},
        {"id": "u1", "type": "user", "content": [{"text": "go"}]},
        {
            "id": "a1",
            "type": "gemini",
            "content": "",
            "toolCalls": [{"id": "t", "name": "ls", "args": {}, "result": [{"text": "ok"}]}],
        },
        {"$set": {"messages": [{"id": "n1", "type": "user", "content": "x"}]}},
        {"$rewindTo": "u1"},
        {"messages": [{"id": "u2", "type": "user", "content": "again"}]},
    ],
    "opencode": [
        {"id": "s1", "directory": "/x", "parentID": None},
        {"id": "m1", "sessionID": "s1", "role": "assistant", "time": {"created": 1}},
        {
            "id": "p1",
            "messageID": "m1",
            "type": "tool",
            "callID": "c",
            "tool": "sh",
            "state": {"status": "completed", "input": {}, "output": "ok"},
        },
        {"id": "p2", "messageID": "m1", "type": "text", "text": "done"},
    ],
    "pi": [
        {"type": "session", "id": "s1", "cwd": "/x"},
        {"type": "message", "id": "1", "parentId": None, "timestamp": "1",
         "message": {"role": "user", "content": [{"type": "text", "text": "go"}]}},
        {"type": "message", "id": "2", "parentId": "1", "timestamp": "2",
         "message": {"role": "assistant", "model": "m", "stopReason": "toolUse", "content": [
             {"type": "toolCall", "id": "c", "name": "sh", "arguments": {}}]}},
        {"type": "message", "id": "3", "parentId": "2", "timestamp": "3",
         "message": {"role": "toolResult", "toolCallId": "c", "content": "ok"}},
        {"type": "compaction", "id": "4", "parentId": "1", "timestamp": "4", "summary": "so far"},
    ],
}  # fmt: skip

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.just("\ud800"),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def read_all(kind: str, files: list[bytes]) -> Tally:
    """Read the files of one source, cut what they say, and see that every record is accounted for."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as tmp:
        inputs = []
        suffix = ".json" if kind == "opencode" else ".jsonl"
        for number, data in enumerate(files):
            path = Path(tmp) / f"f{number}{suffix}"
            path.write_bytes(data)
            inputs.append(InputFile(path, path.name))
        for talk in FORMATS[kind].read(inputs, tally):
            list(cut(talk, Limits(2000, 200), Redactor(), Tally()))
            json.dumps([e.text for e in talk.entries]).encode()
    assert tally.total("records") == tally.total("kept") + tally.total("dropped")
    return tally


def as_files(kind: str, rows: list[bytes]) -> list[bytes]:
    """opencode has a file for each record; the others a line."""
    return rows if kind == "opencode" else [b"\n".join(rows)]


def encode(rows: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(r).encode() for r in rows]


@pytest.mark.parametrize("kind", TRANSCRIPTS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_torn_glued_and_nul_filled_files_are_counted(kind: str, data: st.DataObject) -> None:
    files = []
    for raw in as_files(kind, encode(SAMPLES[kind])):
        start = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.integers(start, len(raw)))
        noise = data.draw(
            st.sampled_from([b"", b"\x00" * 9, b"\xff\xfe", b"{", b"}\n", raw[:30], b"\n{\n"])
        )
        files.append(raw[:start] + noise + raw[end:] + data.draw(st.sampled_from([b"", raw])))
    read_all(kind, files)


def poison(value: Any, data: st.DataObject) -> Any:
    """The same tree with some of its values of another type."""
    if data.draw(st.integers(0, 5)) == 0:
        return data.draw(VALUES)
    if isinstance(value, dict):
        return {k: poison(v, data) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(v, data) for v in value]
    return value


@pytest.mark.parametrize("kind", TRANSCRIPTS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_values_of_any_type_anywhere_are_counted(kind: str, data: st.DataObject) -> None:
    rows = [poison(r, data) for r in SAMPLES[kind]]
    read_all(kind, as_files(kind, [json.dumps(r).encode() for r in rows]))


@pytest.mark.parametrize("kind", TRANSCRIPTS)
def test_deep_nesting_and_huge_lines_are_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 4096)
    rows = encode(SAMPLES[kind])
    deep = b'{"type":' + b"[" * 300 + b"]" * 300 + b"}"
    deeper = b'{"type":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    huge = json.dumps({"type": "user", "text": "x" * 20_000}).encode()
    tally = read_all(kind, as_files(kind, [rows[0], deep, deeper, huge, b"7", *rows[1:]]))
    bad = tally.tables["bad"]
    assert bad["nested too deep"] == 1
    assert bad["line too long"] + bad["document too long"] == 2
    assert bad["not an object"] == 1
    assert tally.total("records") >= len(rows)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_broken_opencode_database_is_named(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "opencode.db"
        db = sqlite3.connect(path)
        db.executescript(
            "CREATE TABLE session (id TEXT, time_created INTEGER);"
            "CREATE TABLE message (id TEXT, session_id TEXT, time_created INTEGER, data TEXT);"
            "CREATE TABLE part (id TEXT, message_id TEXT, data TEXT);"
            "INSERT INTO session VALUES ('s1', 1);"
        )
        for n in range(40):
            said = json.dumps({"role": "user"})
            db.execute("INSERT INTO message VALUES (?, 's1', ?, ?)", (f"m{n}", n, said))
            part = json.dumps({"type": "text", "text": f"{n} " + "x" * 300})
            db.execute("INSERT INTO part VALUES (?, ?, ?)", (f"p{n}", f"m{n}", part))
        db.commit()
        db.close()
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(0, 40))):
            raw[data.draw(st.integers(16, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
        tally = Tally()
        list(FORMATS["opencode"].read(list_files(Path(tmp), ".", (".db",)), tally))
        assert tally.total("records") == tally.total("kept") + tally.total("dropped")
        assert "kept" in tally.tables or tally.named
