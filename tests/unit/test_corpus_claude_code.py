"""Claude Code records → conversations: identity, pairing, what is left out, labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation
from gtft.corpus.files import InputFile
from gtft.corpus.sources.claude_code import read
from gtft.corpus.tally import Tally
from source_case import read_settled


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
    return list(read_settled(read, inputs, tally)), tally


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
    assert [(n.reason, n.line) for n in tally.named] == [("unknown type", 9)]
    assert list(tally.tables["drift"]) == ["record brand-new {sessionId, type, uuid}"]


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
    assert [t.evidence.session for t in talks] == ["s1", "s1#ab12"]
    assert [t.evidence.parent for t in talks] == [None, "s1"]
    assert talks[0].links == talks[1].links
    assert [c.role for c in talks[0].evidence.candidates if c.rung == "beacon"] == ["witness"]
    assert [e.by for t in talks for e in t.entries] == ["harness", "", "agent", ""]


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


def test_a_file_with_a_later_but_older_copy_keeps_the_older_one(tmp_path: Path) -> None:
    talks, tally = harvest(
        tmp_path,
        a=[
            user("u1", "moved", version="2.1.90"),
            user("u2", "between"),
            user("u1", "hello", version="2.1.7"),
        ],
    )
    assert said(talks[0]) == [("user", "between"), ("user", "hello")]
    assert tally.get("dropped", "repeated uuid") == 1
    assert tally.total("records") == 3


def test_an_answer_goes_to_the_first_file_that_keeps_a_piece_of_it(tmp_path: Path) -> None:
    """File a loses its copy of the piece to the older b; then the answer cannot be a's."""
    talks, _ = harvest(
        tmp_path,
        a=[user("u1", "go", version="2.1.90"), answer("a1", "m1", text("yes"), version="2.1.90")],
        b=[user("u1", "go"), answer("a1", "m1", text("yes"))],
    )
    assert [(t.file, len(t.entries)) for t in talks] == [("b.jsonl", 2)]


def test_sessions_of_one_file_share_a_cluster(tmp_path: Path) -> None:
    talks, _ = harvest(tmp_path, a=[user("u1", "one"), user("u2", "two", sessionId="s2")])
    assert [t.links for t in talks] == [("session:s1",), ("session:s2", "session:s1")]


def test_a_sub_agent_without_an_id_is_kept_apart_by_its_first_record(tmp_path: Path) -> None:
    side = {"isSidechain": True}
    talks, _ = harvest(
        tmp_path,
        a=[
            user("u1", "go"),
            user("x1", "look here", **side),
            user("y1", "look there", **side),
            answer("x2", "m1", text("here"), parentUuid="x1", **side),
            answer("y2", "m2", text("there"), parentUuid="y1", **side),
        ],
    )
    assert [said(t)[-1][1] for t in talks] == ["go", "here", "there"]
    assert [t.evidence.session for t in talks] == ["s1", "s1#x1", "s1#y1"]


def test_who_wrote_a_prompt_is_told_by_its_origin(tmp_path: Path) -> None:
    talks, _ = harvest(
        tmp_path,
        a=[
            user("u1", "typed", origin={"kind": "human"}),
            user("u2", "a task ended", origin={"kind": "task-notification"}),
            user("u3", "from another", origin={"kind": "peer", "from": "worker"}),
            user("u4", "by a program", promptSource="sdk"),
            user("u5", "a skill's text", sourceToolUseID="t1"),
            user("u6", "older versions do not say"),
        ],
    )
    assert [e.by for e in talks[0].entries] == ["", "harness", "agent", "harness", "harness", ""]


def test_what_became_of_a_turn_is_marked_on_it(tmp_path: Path) -> None:
    refusal = {"type": "tool_result", "tool_use_id": "t1", "is_error": True}
    refusal["content"] = "The user doesn't want to proceed with this tool use. It was rejected"
    newer = {"type": "tool_result", "tool_use_id": "t2", "content": "no"}
    talks, _ = harvest(
        tmp_path,
        a=[
            user("u1", "go"),
            answer("a1", "m1", use("t1")),
            user("u2", [refusal]),
            answer("a2", "m2", use("t2")),
            user("u3", [newer], toolDenialKind="user-rejected"),
            answer("a3", "m3", text("as I was")),
            user("u4", [text("[Request interrupted by user]")]),
            answer("a4", "m4", text("long")),
            user("u5", "stop", interruptedMessageId="a4"),
            answer("a5", "m5", text("first try")),
            answer("a6", "m6", text("second try"), supersedesUuids=["a5"]),
            answer("a7", "m7", text("half a"), isAbortedMidStream=True),
        ],
    )
    answers = [e for e in talks[0].entries if e.kind == "assistant"]
    assert [(e.response, e.mark) for e in answers] == [
        ("m1", "denied"), ("m2", "denied"), ("m3", "interrupted"), ("m4", "interrupted"),
        ("m5", "rewound"), ("m6", ""), ("m7", "interrupted"),
    ]  # fmt: skip


def test_the_model_and_the_evidence_are_taken_as_the_file_states_them(tmp_path: Path) -> None:
    said_by = answer(
        "a1", "m1", text("yes"), timestamp="2026-03-01T10:01:00Z", gitBranch="polecat/x"
    )
    said_by["message"]["model"] = "claude-x"
    first = user("u1", "go", timestamp="2026-03-01T10:00:00Z", cwd="/t/gizmo/witness")
    link = {"type": "pr-link", "sessionId": "s1", "prUrl": "https://example.com/r/pull/1"}
    talks, _ = harvest(tmp_path, a=[first, said_by, link])
    seen = talks[0].evidence
    assert (seen.started, seen.ended) == ("2026-03-01T10:00:00Z", "2026-03-01T10:01:00Z")
    assert (seen.branch, seen.candidates[0].actor) == ("polecat/x", "gizmo/witness")
    assert [e.model for e in talks[0].entries] == ["", "claude-x"]
    assert talks[0].links == ("session:s1", "pr:https://example.com/r/pull/1")


def test_calls_of_version_1_are_paired_with_their_results(tmp_path: Path) -> None:
    old = {"sessionId": "s1", "version": "1.9.0"}
    talks, tally = harvest(
        tmp_path,
        a=[
            user("u1", "read it"),
            {"type": "tool_use", "uuid": "t1", "name": "bash", "input": {"command": "ls"}, **old},
            {"type": "tool_result", "uuid": "r1", "name": "bash", "output": "README", **old},
        ],
    )
    call, result = talks[0].entries[1:]
    assert (call.calls[0].arguments, result.text) == ({"command": "ls"}, "README")
    assert call.calls[0].id == result.call_id == "t1"
    assert tally.get("drift", "version 1 tool_use") == 1


def test_records_with_fields_of_wrong_types_keep_what_is_right(tmp_path: Path) -> None:
    talks, tally = harvest(
        tmp_path,
        a=[
            user("u1", ["plain", {"type": "text", "text": "words"}, 7], cwd=5, isMeta="no"),
            {**answer("a1", "m1"), "message": {"id": "m1", "content": [use("t1"), text("on")]}},
            {**answer("a2", "m2"), "message": "torn"},
            user("u2", [{"type": "tool_result", "tool_use_id": "t1", "content": [None, "x"]}]),
        ],
    )
    assert [e.text for e in talks[0].entries] == ["plain\n\nwords", "on", "[no object]\nx"]
    assert tally.get("bad", "message is not an object") == 1
    assert tally.get("drift", "user block no object") == 1


def test_arguments_that_are_nested_too_deep_are_left_out_and_named(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(80):
        deep = [deep]
    talks, tally = harvest(tmp_path, a=[user("u1", "go"), answer("a1", "m1", use("t1", x=deep))])
    assert talks[0].entries[1].calls[0].arguments == {}
    assert tally.get("bad", "nested too deep") == 1


def test_a_file_claims_the_same_whatever_it_has_to_give_up(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [user("u1", "hello"), answer("a1", "m1", text("yes"), parentUuid="gone")]
    path.write_text("\n".join(json.dumps(r) for r in rows))
    first, second = Claims(), Claims()
    list(read([InputFile(path, path.name)], Tally(), first))
    second.lost = frozenset(memoryview(first.records).cast("Q"))
    assert list(read([InputFile(path, path.name)], Tally(), second)) == []
    assert (first.records, first.parents) == (second.records, second.parents)
    assert len(first.parents) == 8


def test_a_sub_agent_that_names_itself_belongs_to_the_session_of_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "s1" / "subagents" / "agent-ab12.jsonl"
    path.parent.mkdir(parents=True)
    side = user("u1", "look", sessionId="agent-ab12", isSidechain=True, agentId="ab12")
    path.write_text(json.dumps(side))
    talk = next(read([InputFile(path, "agent-ab12.jsonl")], Tally(), Claims()))
    assert (talk.evidence.session, talk.evidence.parent) == ("s1#ab12", "s1")
    assert talk.links == ("session:s1",)


def test_a_session_that_the_web_exported_is_one_object(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    rows = [user("u1", "go"), answer("a1", "m1", text("yes")), {"type": "brand-new"}]
    path.write_text(json.dumps({"loglines": [*rows, 7], "source": "web"}, indent=2))
    tally = Tally()
    talk = next(read([InputFile(path, path.name)], tally, Claims()))
    assert [(e.line, e.text) for e in talk.entries] == [(1, "go"), (2, "yes")]
    assert list(tally.tables["drift"]) == ["record brand-new {type}"]
    assert tally.get("bad", "not an object") == 1


def test_records_with_an_empty_session_id_are_a_session_of_the_file(tmp_path: Path) -> None:
    rows = [
        user("u1", "Mend the pump", sessionId=""),
        answer("a1", "m1", text("Done"), sessionId=""),
    ]
    talks, _ = harvest(tmp_path, x=rows)
    assert [said(t) for t in talks] == [[("user", "Mend the pump"), ("assistant", "Done")]]
    assert talks[0].evidence.session == "x.jsonl"


def test_what_is_no_time_is_not_taken_for_one(tmp_path: Path) -> None:
    when = "2026-03-01T09:00:00.000Z"
    talks, _ = harvest(
        tmp_path,
        a=[
            user("u1", "Mend the pump", timestamp="Ada of the mill"),
            answer("a1", "m1", text("Done"), timestamp=when),
        ],
    )
    assert (talks[0].evidence.started, talks[0].evidence.ended) == ("", when)
