"""Files of every format, torn, glued, NUL-filled, flipped, nested and full of wrong types: counted, never fatal."""

from __future__ import annotations

import functools
import json
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus import jsonl
from gtft.corpus.claims import Claims
from gtft.corpus.files import InputFile
from gtft.corpus.reading import Setup, Unit, prepare
from gtft.corpus.redaction.redactor import RedactionConfig
from gtft.corpus.segment import Limits
from gtft.corpus.sources import FORMATS
from gtft.corpus.sources.sniff import sniff
from gtft.corpus.tally import NAMED_PER_REASON, Tally
from source_case import read_settled

SAMPLES: dict[str, list[dict[str, Any]]] = {
    "claude-code": [
        {"type": "user", "uuid": "u1", "sessionId": "s1", "version": "2.1.7", "cwd": "/x",
         "timestamp": "1", "message": {"role": "user", "content": "go"}, "origin": {"kind": "human"}},
        {"type": "assistant", "uuid": "a1", "parentUuid": "u1", "sessionId": "s1", "version": "2.1.7",
         "message": {"id": "m1", "model": "m", "content": [
             {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "on it"},
             {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": ["ls"]}}]}},
        {"type": "user", "uuid": "u2", "sessionId": "s1", "isSidechain": True, "agentId": "ab",
         "toolUseResult": {"stdout": "ok"}, "toolDenialKind": None, "message": {"content": [
             {"type": "tool_result", "tool_use_id": "t1", "is_error": False, "content": [
                 {"type": "text", "text": "ok"},
                 {"type": "image", "source": {"media_type": "image/png", "data": "AA"}}]}]}},
        {"type": "system", "subtype": "compact_boundary", "uuid": "x", "sessionId": "s1"},
        {"type": "queue-operation", "operation": "remove", "timestamp": "2", "content": "wait"},
        {"type": "tool_use", "uuid": "o1", "name": "bash", "input": {}},
        {"type": "tool_result", "uuid": "o2", "output": "x"},
        {"type": "attachment", "attachment": {"type": "file"}, "supersedesUuids": ["a1"]},
        {"type": "brand-new", "n": 1},
    ],
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
    "beads": [
        {"id": "gt-1", "title": "Fix the gate of the mill", "issue_type": "bug", "status": "closed",
         "description": "The gate does not close when it rains, as it should do.", "priority": 1,
         "labels": ["a"], "dependencies": [{"depends_on_id": "gt-2", "type": "blocks"}],
         "created_at": "2026-01-01T00:00:00Z", "owner": "a@example.com"},
        {"issue_id": "gt-1", "event_type": "closed", "actor": "x", "created_at": "1"},
        {"_type": "memory", "key": "k", "value": "v"},
    ],
    "interactions": [
        {"id": "int-1", "kind": "llm_call", "created_at": "2026-01-01T00:00:00Z", "actor": "mayor",
         "issue_id": "gt-1", "model": "m", "prompt": "What next?", "response": "Close it."},
        {"id": "int-2", "kind": "label", "parent_id": "int-1", "label": "good", "reason": "r"},
    ],
}  # fmt: skip
TEXTS = {
    "formulas": b'formula = "patrol"\ntype = "workflow"\nversion = 1\ndescription = "Walk the rounds of the mill, gate by gate, and note what is open."\n'
    b'[[steps]]\nid = "a"\ntitle = "Look"\ndescription = "Look at each gate"\nneeds = ["b"]\n',
    "docs": b"# How to mill\n\nOpen the gate.\n\n```sh\nbd ready\n```\n",
}


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


def test_every_format_is_tried() -> None:
    assert SAMPLES.keys() | TEXTS.keys() == FORMATS.keys()


@functools.cache
def find_harvest() -> Callable[[Unit], object]:
    return prepare(Setup(b"k" * 32, RedactionConfig(), Limits(2000, 200)))


def read_all(kind: str, files: list[bytes]) -> Tally:
    """Read the files of one source, and again into a shard; every record is accounted for."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as tmp:
        inputs = []
        for number, data in enumerate(files):
            path = Path(tmp) / f"f{number}{'.json' if kind == 'opencode' else '.jsonl'}"
            path.write_bytes(data)
            inputs.append(InputFile(path, path.name))
            sniff(inputs[-1])
        read = FORMATS[kind].read
        alone = FORMATS[kind].alone
        for talk in read_settled(read, inputs, tally) if alone else read(inputs, tally, Claims()):
            msgspec.json.encode(talk)
        find_harvest()(Unit(0, 0, kind, tuple(inputs), Path(tmp) / "shard"))
    msgspec.json.encode(tally.as_dict())
    assert tally.total("records") == tally.total("kept") + tally.total("dropped")
    named = sum(min(n, NAMED_PER_REASON) for n in tally.tables.get("bad", {}).values())
    assert len(tally.named) == named
    return tally


def write_files(kind: str) -> list[bytes]:
    """What a sound source holds: opencode has a file for each record, the others a line."""
    if kind in TEXTS:
        return [TEXTS[kind]]
    rows = [json.dumps(r).encode() for r in SAMPLES[kind]]
    return rows if kind == "opencode" else [b"\n".join(rows) + b"\n"]


NOISE = st.one_of(
    st.sampled_from(
        [
            b"", b"\x00", b"\x00" * 4096, b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"}", b"}{", b"\n", b"\n{\n",
            b"[" * 70, b"[" * 5000, b'{"type":' * 300, b"9" * 5000, b"1e999", b"NaN", b"-0", b"\\ud800", b'"',
            b"\\", b"null", b"\r\n", b"\xe2\x80\xa8",
        ]
    ),
    st.binary(max_size=12),
)  # fmt: skip
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["cut", "put", "flip", "glue", "repeat", "nest"]),
        st.floats(0, 1),
        st.integers(0, 60),
        NOISE,
    ),
    max_size=5,
)


def damage(data: bytes, operations: list[tuple[str, float, int, bytes]]) -> bytes:
    for what, where, size, noise in operations:
        at = int(where * len(data))
        if what == "cut":
            data = data[:at] + noise + data[at + size :]
        elif what == "put":
            data = data[:at] + noise + data[at:]
        elif what == "flip" and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << size % 8)]) + data[at + 1 :]
        elif what == "glue":
            end = data.find(b"\n", at)
            data = data[:end] + data[end + 1 :] if end >= 0 else data
        elif what == "repeat":
            begin, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at) + 1
            data = data[:end] + data[begin:end] + data[end:]
        elif what == "nest":
            colon = data.find(b": ", at) + 2
            data = data[:colon] + b'[{"a":' * size + b"1" + b"}]" * size + b"," + data[colon:]
    return data


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_sound_files_are_read_without_a_complaint(kind: str) -> None:
    tally = read_all(kind, write_files(kind))
    assert tally.total("kept") > 0
    assert "bad" not in tally.tables or set(tally.tables["bad"]) == {"unknown type"}


@pytest.mark.parametrize("kind", sorted(FORMATS))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_files_are_counted(kind: str, data: st.DataObject) -> None:
    files = [damage(raw, data.draw(OPERATIONS)) for raw in write_files(kind)]
    if data.draw(st.booleans()):
        files += write_files(kind)
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


@pytest.mark.parametrize("kind", sorted(SAMPLES))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_values_of_any_type_anywhere_are_counted(kind: str, data: st.DataObject) -> None:
    rows = [json.dumps(poison(r, data)).encode() for r in SAMPLES[kind]]
    read_all(kind, rows if kind == "opencode" else [b"\n".join(rows)])


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_every_field_of_every_type(kind: str) -> None:
    """One wrong value at a time, everywhere."""
    wrong: list[Any] = [
        None,
        True,
        7,
        -1.5,
        10**30,
        "x",
        "\ud800",
        [],
        ["x", 7, [{}]],
        {},
        {"a": {"b": 1}},
    ]
    for number, row in enumerate(SAMPLES[kind]):
        for path in list_paths(row):
            rows = []
            for value in wrong:
                changed = json.loads(json.dumps(row))
                put_value(changed, path, value)
                rows.append(json.dumps(changed).encode())
            others = [json.dumps(r).encode() for r in SAMPLES[kind][:number]]
            read_all(kind, [*others, *rows] if kind == "opencode" else [b"\n".join(others + rows)])


def list_paths(value: Any) -> list[tuple[Any, ...]]:
    inside = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    return [p for k, v in inside for p in [(k,), *((k, *rest) for rest in list_paths(v))]]


def put_value(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_deep_nesting_and_huge_lines_are_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 8192)
    rows = [json.dumps(r).encode() for r in SAMPLES[kind]]
    deep = b'{"type":' + b"[" * 300 + b"]" * 300 + b"}"
    deeper = b'{"type":' + b"[" * 3_000 + b"]" * 3_000 + b"}"
    huge = json.dumps({"type": "user", "text": "x" * 20_000}).encode()
    rows = [rows[0], deep, deeper, huge, b"7", *rows[1:]]
    tally = read_all(kind, rows if kind == "opencode" else [b"\n".join(rows)])
    bad = tally.tables["bad"]
    assert bad["nested too deep"] + bad["bad line"] == 2
    assert bad["line too long"] + bad["document too long"] == 1
    assert bad["not an object"] == 1
    assert tally.total("records") >= len(SAMPLES[kind])


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
        list(FORMATS["opencode"].read([InputFile(path, path.name)], tally, Claims()))
        assert tally.total("records") == tally.total("kept") + tally.total("dropped")
        assert "kept" in tally.tables or tally.named or not path.stat().st_size
