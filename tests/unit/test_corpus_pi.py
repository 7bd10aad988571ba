"""Sessions of pi and omp → conversations: trees, forks, compactions, cut-off answers, real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gtft.corpus.files import list_files
from gtft.corpus.sources.pi import read
from gtft.corpus.tally import Tally
from source_case import harvest, read_settled, said

DATA = Path(__file__).parents[2].parent / "shared" / "data"
HEAD = {"type": "session", "version": 3, "id": "s1", "cwd": "/town/gizmo/crew/max"}


def entry(id_: str, parent: str | None, kind: str = "message", **more: Any) -> dict[str, Any]:
    return {"type": kind, "id": id_, "parentId": parent, "timestamp": f"t-{id_}", **more}


def user(id_: str, parent: str | None, text: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return entry(id_, parent, message={"role": "user", "content": content})


def answer(
    id_: str, parent: str | None, *blocks: dict[str, Any], stop: str = "stop"
) -> dict[str, Any]:
    said = {"role": "assistant", "content": list(blocks), "model": "m-1", "stopReason": stop}
    return entry(id_, parent, message=said)


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_the_trunk_is_whole_and_each_branch_starts_where_it_left(tmp_path: Path) -> None:
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            HEAD,
            user("u1", None, "one"),
            answer("a1", "u1", text("yes")),
            user("u2", "a1", "first try"),
            answer("a2", "u2", text("meh")),
            entry("l1", "a2", "label", label="x"),
            user("u3", "a1", "second try"),
            answer("a3", "u3", text("good")),
        ],
    )
    assert [t.evidence.session for t in talks] == ["s1", "s1#l1"]
    assert [x for _, x in said(talks[0])] == ["one", "yes", "second try", "good"]
    assert [x for _, x in said(talks[1])] == ["first try", "meh"]
    assert [t.header for t in talks] == ["one", "one"]
    assert talks[0].links == talks[1].links == ("session:s1",)
    assert (talks[1].evidence.candidates[0].role, talks[1].evidence.candidates[0].rig) == (
        "crew",
        "gizmo",
    )
    assert [{e.mark for e in t.entries} for t in talks] == [{""}, {"rewound"}]
    assert dict(tally.tables["tree"]) == {"trunks": 1, "branches": 1}


def test_version_1_is_a_line(tmp_path: Path) -> None:
    rows = [user("u1", None, "one"), answer("a1", None, text("yes")), user("u2", None, "two")]
    bare = [{k: v for k, v in r.items() if k not in ("id", "parentId")} for r in rows]
    talks, _ = harvest(read, tmp_path, a=[{"type": "session", "id": "s1"}, *bare])
    assert [x for _, x in said(talks[0])] == ["one", "yes", "two"]


def test_a_fork_keeps_its_own_entries_once_and_is_linked(tmp_path: Path) -> None:
    rows = [user("u1", None, "one"), answer("a1", "u1", text("yes"))]
    copies = [rows[0] | {"id": "x1"}, rows[1] | {"id": "x2", "parentId": "x1"}]
    parent = "/home/a/.pi/agent/sessions/--x--/2026-01-01T00-00-00-000Z_0123abcd-0000.jsonl"
    talks, tally = harvest(
        read,
        tmp_path,
        a=[HEAD, *rows],
        b=[HEAD | {"id": "s2", "parentSession": parent}, *copies, user("u2", "x2", "two")],
    )
    assert [said(t) for t in talks] == [[("user", "one"), ("assistant", "yes")], [("user", "two")]]
    assert talks[1].links == ("session:s2", "session:0123abcd-0000", "session:s1")
    assert talks[1].header == "one"
    assert tally.get("dropped", "copied history") == 2


def test_calls_results_and_the_humans_own_commands(tmp_path: Path) -> None:
    call = {"type": "toolCall", "id": "t1", "name": "bash", "arguments": {"command": "ls"}}
    image = {"type": "image", "mimeType": "image/png", "data": "AAAA"}
    result = {"role": "toolResult", "toolCallId": "t1", "content": [text("a.txt"), image]}
    shell = {"role": "bashExecution", "command": "make", "output": "boom\n", "exitCode": 2}
    hidden = {**shell, "excludeFromContext": True}
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            HEAD,
            user("u1", None, "list"),
            answer("a1", "u1", {"type": "thinking", "thinking": "hm"}, call, stop="toolUse"),
            entry("r1", "a1", message=result),
            entry("b1", "r1", message=shell),
            entry("b2", "b1", message=hidden),
            entry("c1", "b2", "custom_message", content="context of an extension"),
        ],
    )
    assert said(talks[0]) == [
        ("user", "list"),
        ("assistant", ""),
        ("result", "a.txt\n[image: image/png]"),
        ("user", "Ran `make`\n```\nboom\n```\nCommand exited with code 2"),
    ]
    assert talks[0].entries[1].calls[0].arguments == {"command": "ls"}
    assert talks[0].entries[2].call_id == "t1"
    assert tally.get("dropped", "not in context") == tally.get("dropped", "harness") == 1


def test_answers_that_were_cut_off_stay_out(tmp_path: Path) -> None:
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            HEAD,
            user("u1", None, "one"),
            answer("a1", "u1", text("Excellent! The new"), stop="aborted"),
            answer("a2", "a1", stop="error"),
            answer("a3", "a2", {"type": "thinking", "thinking": "hm"}),
            answer("a4", "a3", text("yes")),
        ],
    )
    assert said(talks[0]) == [("user", "one"), ("assistant", "yes")]
    assert dict(tally.tables["dropped"]) == {
        "session header": 1, "answer aborted": 1, "answer error": 1, "thinking only": 1
    }  # fmt: skip


def test_a_compaction_is_a_boundary_with_its_summary(tmp_path: Path) -> None:
    talks, _ = harvest(
        read,
        tmp_path,
        a=[
            HEAD,
            user("u1", None, "one"),
            entry("c1", "u1", "compaction", summary="We did one.", firstKeptEntryId="u1"),
            entry("b1", "c1", "branch_summary", summary="The other way failed.", fromId="u9"),
            entry("r1", "b1", "reset_boundary"),
            user("u2", "r1", "two"),
        ],
    )
    assert said(talks[0]) == [
        ("user", "one"),
        ("boundary", ""),
        ("summary", "We did one."),
        ("summary", "The other way failed."),
        ("boundary", ""),
        ("user", "two"),
    ]


def test_torn_trees_unknown_records_and_wrong_types_are_counted(tmp_path: Path) -> None:
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            HEAD,
            user("u1", "gone", "one"),
            user("u1", None, "same id"),
            user("u2", "gone too", "two"),
            entry("m1", "u2", message="text"),
            entry("m2", "m1", message={"role": "brand-new"}),
            entry("m3", "m2", message={"role": "user", "content": 7}),
            entry("n1", "m3", "brand-new"),
            {"type": 7},
        ],
    )
    assert [x for _, x in said(talks[0])] == ["one", "same id", "two"]
    assert tally.get("tree", "missing parents") == 2
    assert sorted(n.reason for n in tally.named) == [
        "content is neither text nor blocks",
        "message is not an object",
        "repeated entry id",
        "unknown type",
        "unknown type",
        "unknown type",
    ]


def test_an_interruption_marks_the_answer_before_it(tmp_path: Path) -> None:
    call = {"type": "toolCall", "id": "c1", "name": "sh", "arguments": {}}
    result = {"role": "toolResult", "toolCallId": "c1", "content": "ok"}
    (talk,), tally = harvest(
        read,
        tmp_path,
        a=[
            HEAD,
            user("u1", None, "one"),
            answer("a1", "u1", text("yes")),
            user("u2", "a1", "two"),
            answer("a2", "u2", call),
            entry("r2", "a2", message=result),
            answer("a3", "r2", text("half an ans"), stop="aborted"),
            user("u3", "a3", "three"),
            answer("a4", "u3", stop="aborted"),
        ],
    )
    assert [(e.kind, e.mark) for e in talk.entries] == [
        ("user", ""),
        ("assistant", ""),
        ("user", ""),
        ("assistant", "interrupted"),
        ("result", ""),
        ("user", ""),
    ]
    assert tally.get("dropped", "answer aborted") == 2


def test_entries_without_a_time_are_no_copies_of_those_of_another_file(tmp_path: Path) -> None:
    def bare(words: str) -> dict[str, Any]:
        return {k: v for k, v in user("x", None, words).items() if k != "timestamp"}

    talks, _ = harvest(read, tmp_path, a=[bare("one")], b=[bare("one")])
    assert [len(t.entries) for t in talks] == [1, 1]


@pytest.mark.skipif(not DATA.is_dir(), reason="the sample data ../shared/data is absent")
@pytest.mark.parametrize("folder", ["pi", "omp"])
def test_every_real_session_is_read(folder: str) -> None:
    tally = Tally()
    talks = list(read_settled(read, list_files(DATA, f"transcripts/{folder}"), tally))
    assert dict(tally.tables["records"]) == {
        "session": 2, "message": 1904, "thinking_level_change": 108, "model_change": 6, "compaction": 2
    }  # fmt: skip
    assert tally.total("kept") == 1865
    assert "drift" not in tally.tables and "bad" not in tally.tables
    assert [t.header[:7] for t in talks] == ["alright", "/mode"]
    calls = {c.id for t in talks for e in t.entries for c in e.calls}
    results = {e.call_id for t in talks for e in t.entries if e.kind == "result"}
    assert len(results) == 821 and results <= calls
