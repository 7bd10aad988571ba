"""Gemini CLI chats → conversations: the log's orders, one-object files, tool calls, real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gtft.corpus.files import InputFile, list_files
from gtft.corpus.sources.gemini import read
from gtft.corpus.tally import Tally
from source_case import harvest, read_settled, said

DATA = Path(__file__).parents[2].parent / "shared" / "data"
HEAD = {"sessionId": "s1", "projectHash": "ab", "startTime": "2026-01-02T00:00:00Z"}


def user(id_: str, content: Any) -> dict[str, Any]:
    return {"id": id_, "type": "user", "content": content}


def answer(id_: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"id": id_, "type": "gemini", "content": content, "model": "g-1", **more}


def tool(id_: str, output: Any = None, **more: Any) -> dict[str, Any]:
    response = {"functionResponse": {"id": id_, "name": "ls", "response": {"output": output}}}
    given = {} if output is None else {"result": [response], "status": "success"}
    return {"id": id_, "name": "ls", "args": {"path": "."}, **given, **more}


def test_a_message_with_the_same_id_replaces_the_earlier_one_in_its_place(tmp_path: Path) -> None:
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            HEAD,
            user("u1", [{"text": "list"}]),
            answer("a1", "", toolCalls=[tool("t1")]),
            user("u2", "thanks"),
            answer("a1", "", toolCalls=[tool("t1", "a.txt")], thoughts=[{"subject": "hm"}]),
            {"$set": {"lastUpdated": "later"}},
        ],
    )
    entries = talks[0].entries
    assert [e.kind for e in entries] == ["user", "assistant", "result", "user"]
    assert (entries[1].calls[0].name, entries[1].calls[0].arguments) == ("ls", {"path": "."})
    assert (entries[2].call_id, entries[2].text) == ("t1", "a.txt")
    assert talks[0].evidence.session == "s1"
    assert tally.get("dropped", "replaced") == 1
    assert tally.get("blocks", "gemini thoughts") == 1
    assert tally.get("models", "g-1") == 1


def test_what_was_rewound_is_gone_and_an_unknown_target_clears_all(tmp_path: Path) -> None:
    rows = [user("u1", "one"), answer("a1", "yes"), user("u2", "two"), answer("a2", "no")]
    talks, tally = harvest(
        read,
        tmp_path,
        a=[HEAD, *rows, {"$rewindTo": "u2"}, user("u3", "three")],
        b=[HEAD | {"sessionId": "s2"}, *rows, {"$rewindTo": "?"}],
    )
    assert [said(t) for t in talks] == [
        [("user", "one"), ("assistant", "yes"), ("user", "three")],
        [("user", "two"), ("assistant", "no")],
        [("user", "one"), ("assistant", "yes"), ("user", "two"), ("assistant", "no")],
    ]
    assert [{e.mark for e in t.entries} for t in talks] == [{""}, {"rewound"}, {"rewound"}]
    assert talks[1].evidence.session == "s1#rewound-1"
    assert tally.get("kept", "user") == 5


def test_a_new_context_is_a_boundary_and_a_part_of_the_old_one_a_rollback(tmp_path: Path) -> None:
    rows = [user("u1", "one"), answer("a1", "yes"), user("u2", "two"), answer("a2", "no")]
    snapshot = user("n1", "<state_snapshot>one is done</state_snapshot>")
    talks, _ = harvest(
        read,
        tmp_path,
        a=[HEAD, *rows, {"$set": {"messages": [snapshot, rows[3]]}}, user("u3", "three")],
        b=[HEAD | {"sessionId": "s2"}, *rows, {"$set": {"messages": rows[:2]}}],
    )
    assert [e.kind for e in talks[0].entries] == [
        "user", "assistant", "user", "assistant", "boundary", "summary", "user"
    ]  # fmt: skip
    assert said(talks[1]) == [("user", "one"), ("assistant", "yes")]
    assert said(talks[2]) == [("user", "two"), ("assistant", "no")]
    assert {e.mark for e in talks[2].entries} == {"rewound"}


def test_the_older_file_is_one_object_over_many_lines(tmp_path: Path) -> None:
    rows = [user("u1", "one"), {"id": "i1", "type": "info", "content": "update!"}]
    whole = json.dumps(HEAD | {"messages": [*rows, answer("a1", "yes")]}, indent=2)
    talks, tally = harvest(read, tmp_path, a=whole, b=json.dumps(HEAD | {"messages": rows}))
    assert said(talks[0]) == [("user", "one"), ("assistant", "yes")]
    assert [e.line for e in talks[0].entries] == [1, 3]
    # The second file says nothing that the first does not.
    assert len(talks) == 1
    assert tally.get("dropped", "repeated message") == 2


def test_a_torn_object_still_gives_its_whole_messages(tmp_path: Path) -> None:
    rows = [user("u1", "one"), answer("a1", "yes"), user("u2", "two")]
    whole = json.dumps(HEAD | {"messages": rows}, indent=2)
    talks, tally = harvest(read, tmp_path, a=whole[: whole.index('"two"')])
    assert said(talks[0]) == [("user", "one"), ("assistant", "yes")]
    assert tally.get("bad", "bad line") == 1
    assert tally.get("lines", "lost characters") > 0


def test_checkpoints_name_parts_and_roles(tmp_path: Path) -> None:
    called = {"functionCall": {"name": "ls", "args": {}, "id": "t1"}}
    given = {"functionResponse": {"name": "ls", "id": "t1", "response": {"error": "no"}}}
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    history = [
        {"role": "user", "parts": [{"text": "see"}, image]},
        {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "I look"}, called]},
        {"role": "user", "parts": [given]},
        {"role": "model", "parts": [{"odd": 1}]},
    ]
    talks, tally = harvest(read, tmp_path, a=json.dumps({"history": history}, indent=1))
    assert said(talks[0]) == [
        ("user", "see\n\n[image: image/png]"),
        ("assistant", "I look"),
        ("result", "no"),
    ]
    assert dict(tally.tables["drift"]) == {"model block {odd}": 1}


def test_a_sub_agents_chat_is_linked_to_the_session_whose_folder_it_stands_in(
    tmp_path: Path,
) -> None:
    beacon = "[GAS TOWN] witness (rig: gizmo) <- deacon • 2026-03-01T09:12 • patrol"
    talks, _ = harvest(
        read,
        tmp_path,
        chats__s1__x=[HEAD | {"sessionId": "s2", "kind": "subagent"}, user("u9", "look around")],
        chats__session=[HEAD, user("u1", beacon)],
    )
    child, parent = talks
    assert child.links == ("session:s2", "session:s1")
    assert (child.evidence.parent, child.entries[0].by) == ("s1", "agent")
    assert (parent.evidence.candidates[0].role, parent.entries[0].by) == ("witness", "harness")


def test_harness_text_and_wrong_types_stay_out_and_are_counted(tmp_path: Path) -> None:
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            HEAD,
            user("u0", "System: Please continue."),
            user("u1", 7),
            {"id": "x", "type": "brand-new"},
            {"messages": [7]},
            answer("a1", [], thoughts=[{}]),
            user("u2", "go"),
        ],
    )
    assert said(talks[0]) == [("user", "go")]
    assert dict(tally.tables["dropped"]) == {
        "session header": 2,
        "harness": 1,
        "wrong shape": 2,
        "unknown type": 1,
        "thinking only": 1,
    }
    assert len(tally.named) == 3


def test_a_call_that_was_cancelled_says_why(tmp_path: Path) -> None:
    refused = tool("t1", "[Operation Cancelled] Reason: User did not allow tool call")
    stopped = tool("t2", "[Operation Cancelled] Reason: User cancelled the operation.")
    calls = [c | {"status": "cancelled"} for c in (refused, stopped)]
    (talk,), _ = harvest(
        read, tmp_path, a=[HEAD, user("u1", "go"), answer("a1", "", toolCalls=calls)]
    )
    assert [e.mark for e in talk.entries if e.kind == "result"] == ["denied", "interrupted"]
    assert talk.entries[1].model == "g-1"
    assert talk.evidence.started == "2026-01-02T00:00:00Z"


def test_messages_without_ids_are_no_copies_of_each_other(tmp_path: Path) -> None:
    def chat(*texts: str) -> str:
        rows = [{"role": "user", "parts": [{"text": t}]} for t in texts]
        return json.dumps({"sessionId": "s1", "history": rows}, indent=1)

    talks, tally = harvest(read, tmp_path, a=chat("one", "two"), b=chat("one", "three"))
    assert [said(t) for t in talks] == [[("user", "one"), ("user", "two")], [("user", "three")]]
    assert tally.get("dropped", "repeated message") == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="the sample data ../shared/data is absent")
def test_every_real_chat_is_read() -> None:
    tally = Tally()
    talks = list(read_settled(read, list_files(DATA, "transcripts/gemini"), tally))
    assert dict(tally.tables["records"]) == {"session": 2, "user": 11, "gemini": 162, "info": 1}
    assert dict(tally.tables["dropped"]) == {"session header": 2, "harness": 1, "info": 1}
    assert "drift" not in tally.tables and "bad" not in tally.tables
    calls = {c.id for t in talks for e in t.entries for c in e.calls}
    results = {e.call_id for t in talks for e in t.entries if e.kind == "result"}
    assert len(calls) == 207 and calls == results


@pytest.mark.skipif(not DATA.is_dir(), reason="the sample data ../shared/data is absent")
def test_the_fixtures_of_others_are_read(tmp_path: Path) -> None:
    files = [
        InputFile(p, p.name)
        for p in sorted((DATA / "transcripts" / "other-agents").iterdir())
        if "gemini" in p.name
    ]
    tally = Tally()
    talks = list(read_settled(read, files, tally))
    assert (len(files), len(talks)) == (8, 7)
    assert tally.total("records") == 34 == tally.total("kept") + tally.total("dropped")
    assert "drift" not in tally.tables and "bad" not in tally.tables
