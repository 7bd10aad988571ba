"""Codex rollouts → conversations: pairing, repeats, forks, harness text, old shapes, real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gtft.corpus.files import list_files
from gtft.corpus.sources.codex import read
from gtft.corpus.tally import Tally
from source_case import harvest, read_settled, said

DATA = Path(__file__).parents[2].parent / "shared" / "data"
HEAD = {"id": "s1", "timestamp": "2026-01-02T00:00:00Z", "cwd": "/town/gizmo/polecats/nux"}


def line(kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": "2026-01-02T00:00:01Z", "type": kind, "payload": payload}


def item(kind: str, **payload: Any) -> dict[str, Any]:
    return line("response_item", type=kind, **payload)


def message(role: str, *texts: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return item("message", role=role, content=[{"type": kind, "text": t} for t in texts])


def call(call_id: str, command: str) -> dict[str, Any]:
    arguments = json.dumps({"command": command})
    return item("function_call", name="shell", arguments=arguments, call_id=call_id)


def output(call_id: str, text: Any) -> dict[str, Any]:
    return item("function_call_output", call_id=call_id, output=text)


def test_calls_and_results_are_paired_and_one_answer_ends_at_its_results(tmp_path: Path) -> None:
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            line("session_meta", **HEAD),
            line("turn_context", model="m-1", cwd="/elsewhere"),
            message("user", "look"),
            item("reasoning", summary=[{"type": "summary_text", "text": "hm"}]),
            message("assistant", "I look."),
            call("c1", "ls"),
            call("c2", "pwd"),
            output("c1", "a.txt"),
            output("c2", [{"type": "output_text", "text": "/town"}]),
            message("assistant", "Done."),
        ],
    )
    entries = talks[0].entries
    assert [e.kind for e in entries] == [
        "user", "assistant", "assistant", "assistant", "result", "result", "assistant"
    ]  # fmt: skip
    assert len({e.response for e in entries[1:4]}) == 1
    assert entries[-1].response != entries[1].response
    assert entries[2].calls[0].arguments == {"command": "ls"}
    assert [(e.call_id, e.text) for e in entries[4:6]] == [("c1", "a.txt"), ("c2", "/town")]
    assert (talks[0].evidence.candidates[0].role, talks[0].evidence.candidates[0].rung) == (
        "polecat",
        "cwd",
    )
    assert tally.get("models", "m-1") == 1
    assert tally.get("dropped", "reasoning") == 1


def test_events_developer_and_harness_text_stay_out_and_an_abort_is_counted(
    tmp_path: Path,
) -> None:
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            line("session_meta", **HEAD),
            message("developer", "<permissions instructions>"),
            message("user", "# AGENTS.md instructions for /x", "<environment_context>"),
            line("event_msg", type="user_message", message="go"),
            message("user", "<environment_context>", "go"),
            message("assistant", "gone"),
            line("event_msg", type="agent_message", message="gone"),
            line("event_msg", type="turn_aborted", reason="interrupted"),
            line("event_msg", type="brand_new"),
            line("brand_new"),
        ],
    )
    assert said(talks[0]) == [("user", "go"), ("assistant", "gone")]
    assert talks[0].header == "go"
    assert dict(tally.tables["dropped"]) == {
        "session header": 1,
        "developer": 1,
        "harness": 1,
        "event": 2,
        "interruption": 1,
        "unknown type": 2,
    }
    assert [(n.reason, n.line, n.detail) for n in tally.named] == [
        ("unknown type", 9, "record event_msg brand_new {type}"),
        ("unknown type", 10, "record brand_new {payload, timestamp, type}"),
    ]


def test_a_custom_tool_takes_raw_text_and_a_shell_call_its_action(tmp_path: Path) -> None:
    shell = {"type": "exec", "command": ["ls"]}
    talks, _ = harvest(
        read,
        tmp_path,
        a=[
            item("custom_tool_call", name="apply_patch", input='{"a": 1}', call_id="c1"),
            item("custom_tool_call_output", call_id="c1", output={"content": "ok"}),
            item("local_shell_call", action=shell, call_id="c2"),
            item("function_call", name="odd", arguments="not json", call_id="c3"),
        ],
    )
    calls = [c for e in talks[0].entries for c in e.calls]
    assert [(c.name, c.arguments) for c in calls] == [
        ("apply_patch", {"input": '{"a": 1}'}),
        ("local_shell", shell),
        ("odd", {"input": "not json"}),
    ]
    assert talks[0].entries[1].text == "ok"


def test_a_fork_keeps_only_what_its_original_does_not_hold(tmp_path: Path) -> None:
    shared = [message("user", "one"), message("assistant", "yes"), call("c1", "ls")]
    fork = {"id": "s2", "timestamp": "2026-01-03T00:00:00Z", "forked_from_id": "s1"}
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            line("session_meta", **fork),
            line("session_meta", **HEAD),
            *shared,
            message("user", "another way"),
            message("assistant", "yes"),
        ],
        b=[line("session_meta", **HEAD), *shared, output("c1", "a.txt")],
    )
    assert said(talks[0]) == [("user", "another way"), ("assistant", "yes")]
    assert talks[0].header == "one"
    assert talks[0].links == ("session:s2", "session:s1")
    assert len(talks[1].entries) == 4
    assert tally.get("dropped", "copied history") == 3


def test_two_files_that_claim_to_be_forks_of_each_other_lose_nothing(tmp_path: Path) -> None:
    same = [message("user", "one"), message("assistant", "yes")]
    at = {"timestamp": "2026-01-02T00:00:00Z"}
    talks, _ = harvest(
        read,
        tmp_path,
        a=[line("session_meta", id="s1", forked_from_id="s2", **at), *same],
        b=[line("session_meta", id="s2", forked_from_id="s1", **at), *same],
    )
    assert [len(t.entries) for t in talks] == [2, 2]


def test_the_active_copy_of_a_session_wins_over_the_archived_one(tmp_path: Path) -> None:
    rows = [line("session_meta", **HEAD), message("user", "one"), message("assistant", "yes")]
    more = [*rows, message("user", "two"), message("assistant", "no")]
    talks, tally = harvest(read, tmp_path, archived_sessions__a=rows, sessions__b=more)
    assert [t.file for t in talks] == ["sessions/b.jsonl"]
    assert len(talks[0].entries) == 4
    assert tally.get("dropped", "copied history") == 2


def test_a_sub_agent_is_linked_to_the_session_that_started_it(tmp_path: Path) -> None:
    source = {"subagent": {"thread_spawn": {"parent_thread_id": "s1", "depth": 1}}}
    talks, _ = harvest(
        read,
        tmp_path,
        a=[line("session_meta", **HEAD), message("user", "one")],
        b=[line("session_meta", id="s2", source=source), message("user", "look around")],
    )
    assert talks[1].links == ("session:s2", "session:s1")
    assert (talks[1].evidence.parent, talks[1].entries[0].by) == ("s1", "agent")


def test_a_compaction_is_a_boundary_and_turns_that_were_taken_back_are_gone(
    tmp_path: Path,
) -> None:
    history = [{"type": "message", "role": "user", "content": "one"}]
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            message("user", "one"),
            message("assistant", "yes"),
            line("compacted", message="We did one.", replacement_history=history),
            message("user", "wrong turn"),
            message("assistant", "off"),
            line("event_msg", type="thread_rolled_back", num_turns=1),
            message("user", "two"),
            message("assistant", "good"),
        ],
    )
    assert said(talks[0]) == [
        ("user", "one"),
        ("assistant", "yes"),
        ("boundary", ""),
        ("summary", "We did one."),
        ("user", "two"),
        ("assistant", "good"),
    ]
    assert said(talks[1]) == [("user", "wrong turn"), ("assistant", "off")]
    assert {e.mark for e in talks[0].entries} == {""}
    assert {e.mark for e in talks[1].entries} == {"rewound"}
    assert talks[1].links[0] == talks[0].links[0]
    assert tally.total("kept") == 7


def test_the_oldest_shape_is_read_and_only_a_lone_open_call_is_paired_without_id(
    tmp_path: Path,
) -> None:
    def old(name: str) -> dict[str, Any]:
        return {"type": "function_call", "function": {"name": name}, "arguments": {"n": 1}}

    result = {"type": "function_result", "name": "x", "result": "out"}
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            {"id": "s9", "timestamp": "2025-05-01T00:00:00Z", "instructions": None},
            {"record_type": "state"},
            {"role": "user", "message": "go", "created_at": "2025-05-01T00:00:01Z"},
            old("x"),
            result,
            old("x"),
            old("x"),
            result,
            {"role": "assistant", "content": "done"},
        ],
    )
    assert talks[0].evidence.session == "s9"
    results = [e for e in talks[0].entries if e.kind == "result"]
    assert [e.call_id for e in results] == [talks[0].entries[1].calls[0].id]
    assert tally.get("dropped", "result without a call id") == 1


def test_values_of_the_wrong_type_are_named(tmp_path: Path) -> None:
    _, tally = harvest(
        read,
        tmp_path,
        a=[
            {"type": "response_item", "payload": "text"},
            item("message", role="user", content=7),
            item("message", role=7, content="x"),
            item("function_call_output", call_id="c", output=None),
            line("event_msg", type="thread_rolled_back", num_turns="all"),
        ],
    )
    assert {n.reason for n in tally.named} == {
        "unknown type",
        "content is neither text nor blocks",
    }


def test_the_model_of_each_turn_and_what_became_of_it(tmp_path: Path) -> None:
    (talk,), _ = harvest(
        read,
        tmp_path,
        a=[
            line("session_meta", **HEAD, git={"branch": "polecat/nux"}),
            line("turn_context", model="m-1"),
            message("user", "look"),
            call("c1", "ls"),
            output("c1", "exec command rejected by user"),
            line("turn_context", model="m-2"),
            message("user", "then that"),
            call("c2", "pwd"),
            output("c2", "/town"),
            call("c3", "make"),
            output("c3", "aborted by user after 2.1s"),
            message("assistant", "I go on."),
            line("event_msg", type="turn_aborted", reason="interrupted"),
            message("user", "stop"),
            message("assistant", "Stopped."),
            line("event_msg", type="turn_aborted", reason="replaced"),
        ],
    )
    assert [(e.kind, e.model, e.mark) for e in talk.entries if e.kind != "user"] == [
        ("assistant", "m-1", ""),
        ("result", "", "denied"),
        ("assistant", "m-2", ""),
        ("result", "", ""),
        ("assistant", "m-2", ""),
        ("result", "", "interrupted"),
        ("assistant", "m-2", "interrupted"),
        ("assistant", "m-2", ""),
    ]
    evidence = talk.evidence
    assert (evidence.started, evidence.branch) == ("2026-01-02T00:00:01Z", "polecat/nux")


def test_a_fork_of_a_fork_keeps_only_its_own_turns(tmp_path: Path) -> None:
    one, two = message("user", "one"), message("user", "two")
    first = {"id": "s2", "timestamp": "2026-01-03T00:00:00Z", "forked_from_id": "s1"}
    second = {"id": "s3", "timestamp": "2026-01-04T00:00:00Z", "forked_from_id": "s2"}
    heads = [line("session_meta", **h) for h in (second, first, HEAD)]
    talks, tally = harvest(
        read,
        tmp_path,
        a=[*heads, one, two, message("user", "three")],
        b=[*heads[1:], one, two],
        c=[heads[2], one],
    )
    assert [said(t) for t in talks] == [[("user", "three")], [("user", "two")], [("user", "one")]]
    assert tally.get("dropped", "copied history") == 3


def test_two_sessions_that_start_alike_are_no_copies(tmp_path: Path) -> None:
    other = {"id": "s2", "timestamp": "2026-01-03T00:00:00Z"}
    same = [message("user", "hello"), message("assistant", "hi")]
    talks, _ = harvest(
        read,
        tmp_path,
        a=[line("session_meta", **HEAD), *same],
        b=[line("session_meta", **other), *same],
    )
    assert [len(t.entries) for t in talks] == [2, 2]


@pytest.mark.skipif(not DATA.is_dir(), reason="the sample data ../shared/data is absent")
def test_every_real_rollout_is_read() -> None:
    tally = Tally()
    talks = list(read_settled(read, list_files(DATA, "transcripts/codex"), tally))
    assert tally.total("records") == 254 == tally.total("kept") + tally.total("dropped")
    assert dict(tally.tables["drift"]) == {"record future_synthetic_record {safe}": 1}
    assert "bad line" not in tally.tables["bad"]
    assert len(talks) == 10
    real = next(t for t in talks if t.file.endswith("5-codex-website-codex.jsonl"))
    assert [e.kind for e in real.entries].count("result") == 7
    called = {c.id for e in real.entries for c in e.calls}
    assert called == {e.call_id for e in real.entries if e.kind == "result"}
    assert real.header.startswith("update @plan.md")
