"""Claude Code records → conversations: identity, pairing, what is left out, labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gtft.corpus.example import Conversation
from gtft.corpus.files import InputFile
from gtft.corpus.sources.claude_code import read
from gtft.corpus.tally import Tally


def user(uuid: str, content: Any, **more: Any) -> dict[str, Any]:
    return {
        "type": "user",
        "uuid": uuid,
        "sessionId": "s1",
        "version": "2.1.7",
        "message": {"role": "user", "content": content},
        **more,
    }


def answer(uuid: str, response: str, *blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "assistant",
        "uuid": uuid,
        "sessionId": "s1",
        "version": "2.1.7",
        "message": {"id": response, "role": "assistant", "content": list(blocks)},
        **more,
    }


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def use(id_: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "Bash", "input": arguments}


def harvest(tmp: Path, **files: list[dict[str, Any]]) -> tuple[list[Conversation], Tally]:
    inputs = []
    for name, rows in files.items():
        path = tmp / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(r) for r in rows))
        inputs.append(InputFile(path, path.name))
    tally = Tally()
    return list(read(inputs, tally)), tally


def said(talk: Conversation) -> list[tuple[str, str]]:
    return [(e.kind, e.text) for e in talk.entries]


def test_a_repeated_uuid_is_kept_from_the_lowest_version_whatever_the_file_order(
    tmp_path: Path,
) -> None:
    copy = user("u1", "hello", version="2.1.90", cwd="/home/other")
    talks, tally = harvest(tmp_path, a=[copy], b=[user("u1", "hello", version="2.1.9", cwd="/w")])
    assert [t.file for t in talks] == ["b.jsonl"]
    assert tally.get("dropped", "repeated uuid") == 1


def test_sessions_that_share_records_are_linked_into_one_cluster(tmp_path: Path) -> None:
    forked = user("u1", "hello", sessionId="s2")
    talks, _ = harvest(
        tmp_path,
        a=[user("u1", "hello")],
        b=[forked, user("u2", "go on", sessionId="s2")],
    )
    assert talks[0].links == ("session:s1", "session:s2")
    assert talks[1].links == ("session:s2", "session:s1")


def test_thinking_synthetic_meta_and_harness_text_stay_out_and_are_counted(tmp_path: Path) -> None:
    synthetic = answer("a2", "m2", text("API Error"))
    synthetic["message"]["model"] = "<synthetic>"
    talks, tally = harvest(
        tmp_path,
        a=[
            user("u1", "do it"),
            answer("a1", "m1", {"type": "thinking", "thinking": "hm", "signature": "x"}),
            answer("a3", "m1", text("done")),
            synthetic,
            answer("a4", "m4", text("oops"), isApiErrorMessage=True),
            user("u2", "<command-name>/exit</command-name>"),
            user("u3", "base folder", isMeta=True),
            {"type": "progress", "uuid": "p1", "sessionId": "s1", "data": {}},
            {"type": "brand-new", "uuid": "n1", "sessionId": "s1"},
        ],
    )
    assert said(talks[0]) == [("user", "do it"), ("assistant", "done")]
    assert dict(tally.tables["dropped"]) == {
        "thinking only": 1,
        "synthetic": 1,
        "API error": 1,
        "harness": 1,
        "meta": 1,
        "progress": 1,
        "unknown type": 1,
    }
    assert [(n.reason, n.line) for n in tally.named] == [("unknown record type", 9)]


def test_images_become_a_typed_placeholder(tmp_path: Path) -> None:
    image = {"type": "image", "source": {"media_type": "image/png", "data": "AAAA"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("shot"), image]}
    talks, _ = harvest(
        tmp_path,
        a=[user("u1", [text("see"), image]), answer("a1", "m", use("t1")), user("u2", [result])],
    )
    assert talks[0].entries[0].text == "see\n\n[image: image/png]"
    assert talks[0].entries[2].text == "shot\n[image: image/png]"


def test_a_sub_agent_is_a_conversation_of_its_own_in_the_cluster_of_its_session(
    tmp_path: Path,
) -> None:
    side = {"isSidechain": True, "agentId": "ab12"}
    beacon = "[GAS TOWN] witness (rig: gizmo) <- deacon • 2026-03-01T09:12 • patrol"
    talks, _ = harvest(
        tmp_path,
        a=[
            user("u1", beacon),
            answer("a1", "m1", text("one")),
            user("u2", "look around", **side),
            answer("a2", "m2", text("seen"), **side),
        ],
    )
    assert [t.session for t in talks] == ["s1", "s1#ab12"]
    assert talks[0].links == talks[1].links
    assert (talks[1].labels.role, talks[1].labels.rung) == ("witness", "parent session")


def test_text_typed_in_mid_turn_is_kept_once(tmp_path: Path) -> None:
    def queue(operation: str, when: str, content: str | None = None) -> dict[str, Any]:
        row = {"type": "queue-operation", "operation": operation, "timestamp": when}
        return {**row, "sessionId": "s1", **({"content": content} if content else {})}

    rows = [
        user("u1", "go"),
        queue("enqueue", "1", "rebase first"),
        queue("remove", "2"),
        queue("enqueue", "3", "<task-notification>x"),
        queue("remove", "4"),
        queue("enqueue", "5", "later"),
        queue("dequeue", "6"),
    ]
    talks, _ = harvest(tmp_path, a=rows, b=rows)
    assert len(talks) == 1
    assert said(talks[0]) == [("user", "go"), ("user", "rebase first")]


def test_a_response_replayed_under_new_uuids_is_one_response(tmp_path: Path) -> None:
    talks, tally = harvest(
        tmp_path,
        a=[user("u1", "go"), answer("a1", "m1", text("yes"))],
        b=[user("u2", "go", sessionId="s2"), answer("a2", "m1", text("yes"), sessionId="s2")],
    )
    assert [len(t.entries) for t in talks] == [2, 1]
    assert tally.get("dropped", "replayed response") == 1


def test_a_compaction_is_a_boundary_and_its_summary_no_prompt(tmp_path: Path) -> None:
    talks, _ = harvest(
        tmp_path,
        a=[
            user("u1", "first"),
            {"type": "system", "subtype": "compact_boundary", "uuid": "x", "sessionId": "s1"},
            user("u2", "This session is being continued from …", isCompactSummary=True),
            answer("a1", "m1", text("on")),
        ],
    )
    assert [e.kind for e in talks[0].entries] == ["user", "boundary", "summary", "assistant"]
    assert talks[0].header == "first"
