"""Reading JSON lines as agents leave them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus import jsonl
from gtft.corpus.claims import Claims
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import read_rows
from gtft.corpus.sources import claude_code
from gtft.corpus.tally import Tally
from gtft.errors import InputError


def read(tmp: Path, data: bytes) -> tuple[list[dict[str, object]], Tally]:
    path = tmp / "x.jsonl"
    path.write_bytes(data)
    tally = Tally()
    return [r.value for r in read_rows(InputFile(path, "x.jsonl"), tally)], tally


def record(**more: object) -> bytes:
    return json.dumps({"type": "user", "uuid": "u", **more}).encode()


def test_two_records_glued_on_a_line_are_both_recovered(tmp_path: Path) -> None:
    rows, tally = read(tmp_path, record(n=1) + record(n=2) + b"\n" + record(n=3) + b"\n")
    assert [r["n"] for r in rows] == [1, 2, 3]
    assert tally.get("bad", "bad line") == 1
    assert tally.get("lines", "recovered") == 2
    assert tally.named[0].line == 1


def test_a_torn_record_is_skipped_up_to_the_next_whole_one(tmp_path: Path) -> None:
    torn = record(n=1, text="x" * 50)[:40]
    rows, tally = read(tmp_path, torn + record(n=2) + b"\n")
    assert [r["n"] for r in rows] == [2]
    assert tally.get("lines", "lost characters") == 40


def test_nul_runs_are_stripped_and_counted(tmp_path: Path) -> None:
    rows, tally = read(tmp_path, b"\x00" * 9 + record(n=1) + b"\n")
    assert [r["n"] for r in rows] == [1]
    assert tally.get("bad", "NUL bytes") == 1


def test_what_cannot_be_written_again_is_made_writable(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, b'{"type":"a","t":"\\ud800","n":NaN,"big":1e400}\n')
    assert rows == [{"type": "a", "t": "\ufffd", "n": "NaN", "big": "1e400"}]
    json.dumps(rows, allow_nan=False).encode()


def test_deep_nesting_and_non_objects_are_counted_not_fatal(tmp_path: Path) -> None:
    deep = b'{"type":' + b"[" * 300 + b"]" * 300 + b"}"
    deeper = b'{"type":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    rows, tally = read(tmp_path, b"\n".join([deep, deeper, b"[1]", b"7", record(n=1)]))
    assert [r["n"] for r in rows] == [1]
    assert tally.get("bad", "nested too deep") == 1
    assert tally.get("bad", "not an object") == 2


def test_bytes_that_are_not_utf8_are_kept_readable(tmp_path: Path) -> None:
    rows, tally = read(tmp_path, b'{"type":"a","t":"\xff"}\n')
    assert rows[0]["t"] == "\ufffd"
    assert tally.get("bad", "not UTF-8") == 1


def test_a_folder_in_the_place_of_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(InputError, match=r"x\.jsonl"):
        list(read_rows(InputFile(tmp_path / "x.jsonl", "x.jsonl"), Tally()))


def test_lines_keep_their_numbers_over_blocks_and_blank_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "BLOCK", 64)
    path = tmp_path / "x.jsonl"
    lines = [record(n=n, pad="x" * (n % 90)) if n % 7 else b" " for n in range(200)]
    path.write_bytes(b"\r\n".join(lines))
    rows = list(read_rows(InputFile(path, "x.jsonl"), Tally()))
    assert [(r.line, r.value["n"]) for r in rows] == [(n + 1, n) for n in range(200) if n % 7]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), max_size=12),
    block=st.integers(1, 200),
    longest=st.integers(1, 200),
    closed=st.booleans(),
)
def test_long_lines_are_left_out_and_every_other_line_is_whole(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    block: int,
    longest: int,
    closed: bool,
) -> None:
    lines = [bytes([65 + n]) * length for n, length in enumerate(lengths)]
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    path.write_bytes(b"\n".join(lines) + (b"\n" if closed else b""))
    tally = Tally()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BLOCK", block)
        patch.setattr(jsonl, "LONGEST_LINE", longest)
        got = [x for b in jsonl.read_lines(InputFile(path, "x"), tally) for x in b.split()]
    numbered = list(enumerate(lines, start=1))
    assert got == [(n, x) for n, x in numbered if 0 < len(x) <= longest]
    assert [n.line for n in tally.named] == [n for n, x in numbered if len(x) > longest]


def test_a_line_of_200_mb_takes_no_more_memory_than_the_longest_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as f:
        f.write(record(n=1) + b"\n" + b'{"type":"user","x":"')
        for _ in range(200):
            f.write(b"y" * 1_000_000)
        f.write(b'"}\n' + record(n=2) + b"\n")
    tally = Tally()
    tracemalloc.start()
    rows = [r.value["n"] for r in read_rows(InputFile(path, "x.jsonl"), tally)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == [1, 2]
    assert [(n.reason, n.line) for n in tally.named] == [("line too long", 2)]
    assert peak < 3 * jsonl.LONGEST_LINE


def test_a_line_of_a_million_lists_is_named_and_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MOST_VALUES", 10_000)
    dense = b'{"type":"user","x":[' + b"[]," * 1_000_000 + b"0]}"
    rows, tally = read(tmp_path, record(n=1) + b"\n" + dense + b"\n" + record(n=2) + b"\n" + dense)
    assert [r["n"] for r in rows] == [1, 2]
    assert [(n.reason, n.line) for n in tally.named] == [
        ("too many values in a line", 2),
        ("too many values in a line", 4),
    ]


def test_a_torn_line_full_of_beginnings_is_given_up(tmp_path: Path) -> None:
    rows, tally = read(tmp_path, b'{"type":[' * 100_000 + b"\n" + record(n=1))
    assert [r["n"] for r in rows] == [1]
    assert tally.get("lines", "lost characters") == 900_000


messages = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["user", "assistant", "system", "tool_use", "queue-operation", "?"]
        ),
        "uuid": st.one_of(st.none(), st.sampled_from(["a", "b", "c"]), st.integers()),
        "sessionId": st.one_of(st.none(), st.sampled_from(["s", "t"]), st.booleans()),
        "message": st.recursive(
            st.one_of(st.none(), st.text(max_size=5), st.integers()),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(
                    st.sampled_from(
                        ["role", "content", "id", "type", "text", "input", "tool_use_id"]
                    ),
                    inner,
                    max_size=4,
                ),
            ),
            max_leaves=8,
        ),
        "isMeta": st.one_of(st.none(), st.booleans(), st.text(max_size=2)),
        "version": st.one_of(st.none(), st.text(max_size=6), st.just("2.1.7")),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(messages, max_size=6),
    cuts=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 40)), max_size=3),
    noise=st.sampled_from([b"", b"\x00\x00", b"\n", b"{", b"\xff", b'{"type":']),
)
def test_any_damage_is_counted_and_the_ledger_adds_up(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, object]],
    cuts: list[tuple[int, int]],
    noise: bytes,
) -> None:
    data = b"\n".join(json.dumps(r).encode() for r in rows)
    for at, length in cuts:
        data = data[:at] + noise + data[at + length :]
    path = tmp_path_factory.mktemp("fuzz") / "x.jsonl"
    path.write_bytes(data)
    tally = Tally()
    for talk in claude_code.read([InputFile(path, "x.jsonl")], tally, Claims()):
        assert talk.entries
    assert tally.total("records") == tally.total("kept") + tally.total("dropped")
