"""Advice: what it says, how far to trust it, what is recorded, and that it never stands in an agent's way."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gtft.artifact import stage_artifact, write_json
from gtft.cli.main import main
from gtft.evals.answer import parse_answer
from gtft.runner.advice import ask_advice, find_role
from gtft.service import (
    Address,
    AnswerLine,
    Mode,
    Route,
    Routes,
    find_answers,
    read_answers,
    write_address,
    write_routes,
)
from watch_case import SECRET, stand_in

ADAPTER = "sha256:" + "ab" * 32
MODEL = "witness-7c1f v3"
NUDGE = '{"action": "nudge", "reason": "idle with a live session"}'


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    """A workspace folder as an agent sees it: files only, no store."""
    put_route(tmp_path, "advise")
    return tmp_path


def put_route(workspace: Path, mode: Mode) -> None:
    route = Route(
        role="witness", deployment="dep-1", model=MODEL, adapter=ADAPTER, mode=mode, seconds=5, max_new_tokens=64
    )  # fmt: skip
    write_routes(workspace, Routes(routes=(route,)))


def serve_at(workspace: Path, url: str, *models: str) -> None:
    write_address(workspace, Address(url=url, pid=os.getpid(), models=models or (MODEL,)))


def advise(workspace: Path, *args: str, text: str | None = None) -> Result:
    base = ["--workspace", str(workspace), "advise", "--role", "witness", "--rig", "gizmo"]
    return CliRunner().invoke(main, [*base, *args], input=text)


def read(workspace: Path) -> list[AnswerLine]:
    return list(read_answers(workspace, "dep-1"))


def put_eval(workspace: Path) -> None:
    rate = {"rate": 0.5667, "passed": 34, "low": 0.43, "high": 0.67}
    suites = {
        "heldout": {
            "n": 80,
            "tuned": rate,
            "capabilities": {"patrol-decision": {"n": 60, "tuned": rate}},
        }
    }
    with stage_artifact(workspace / "artifacts", "eval", parents=(ADAPTER,)) as staging:
        write_json(staging.path / "summary.json", {"suites": suites})


def test_the_advice_is_shown_with_how_far_it_can_be_trusted(ws: Path) -> None:
    put_eval(ws)
    with stand_in(lambda asked: NUDGE) as (url, asked):
        serve_at(ws, url)
        done = advise(ws, "nux", "is", "silent")
    assert done.exit_code == 0
    (line,) = read(ws)
    assert line.item in done.output and NUDGE in done.output and MODEL in done.output
    assert (
        "agrees with this town's witness in 57% of 60 held-out decisions (43–67 %)" in done.output
    )
    # As the role's sessions begin: that is how it was trained.
    (body,) = asked
    assert body["model"] == MODEL
    assert body["messages"] == [
        {"role": "user", "content": "[GAS TOWN] witness (rig: gizmo) <- advice\nnux is silent"}
    ]
    assert (line.mode, line.took, line.why, line.output) == ("advise", "nobody", "", NUDGE)
    assert (line.tokens, line.prompt_tokens, len(line.prompt_sha256)) == (7, 30, 64)


def test_what_is_kept_of_it_is_redacted_and_the_agent_sees_it_as_it_came(ws: Path) -> None:
    said = json.dumps({"action": "nudge", "reason": f"ask nux for {SECRET}"})
    with stand_in(lambda asked: said) as (url, _):
        serve_at(ws, url)
        done = advise(ws, "nux is silent")
    assert SECRET in done.output
    assert SECRET not in find_answers(ws, "dep-1").read_text()
    (line,) = read(ws)
    assert json.loads(line.output)["action"] == "nudge"


def test_json_for_programs(ws: Path) -> None:
    with stand_in(lambda asked: '{"action": "escalate", "reason": "r"}') as (url, _):
        serve_at(ws, url)
        done = advise(ws, "--json", "x")
    data = json.loads(done.output)["data"]
    assert data["text"] and data["model"] == MODEL and data["id"] == read(ws)[0].item
    assert read(ws)[0].escalated and not read(ws)[0].abstained
    assert "no evaluation of it is on the shelf" in data["trust"]


def test_a_call_is_advice_too(ws: Path) -> None:
    function = {"name": "Bash", "arguments": '{"command": "gt peek gizmo/nux"}'}
    call = {"id": "call-0", "type": "function", "function": function}
    with stand_in(lambda asked: {"content": None, "tool_calls": [call]}) as (url, _):
        serve_at(ws, url)
        done = advise(ws, "x")
    assert "gt peek gizmo/nux" in done.output
    (line,) = read(ws)
    calls = parse_answer(line.output).calls
    assert [c.arguments for c in calls] == [{"command": "gt peek gizmo/nux"}]


def test_half_a_character_in_a_call_is_advice_all_the_same(ws: Path) -> None:
    function = {"name": "Bash", "arguments": '{"command": "gt peek \\ud800"}'}
    call = {"id": "call-0", "type": "function", "function": function}
    with stand_in(lambda asked: {"content": None, "tool_calls": [call]}) as (url, _):
        serve_at(ws, url)
        assert "gt peek ?" in advise(ws, "x").output


@pytest.mark.parametrize(
    ("reply", "why", "said"),
    [
        (500, "error", "could not be asked"),
        ("", "abstained", "does not know"),
        ('{"action": "abstain", "missing": "age"}', "abstained", "does not know"),
    ],
)
def test_trouble_is_no_advice_and_no_error(ws: Path, reply: str | int, why: str, said: str) -> None:
    with stand_in(lambda asked: reply) as (url, _):
        serve_at(ws, url)
        done = advise(ws, "x")
    assert done.exit_code == 0 and "There is no advice" in done.output and said in done.output
    assert [a.why for a in read(ws)] == [why]


def test_a_server_that_takes_too_long_is_not_waited_for(ws: Path) -> None:
    # It accepts and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        serve_at(ws, f"http://127.0.0.1:{silent.getsockname()[1]}")
        done = advise(ws, "--seconds", "0.3", "x")
    assert done.exit_code == 0 and "did not answer within 0.3 s" in done.output
    assert [a.why for a in read(ws)] == ["timeout"]


def test_what_is_not_there_blocks_nobody(ws: Path) -> None:
    assert "is not served now" in advise(ws, "x").output
    serve_at(ws, "http://127.0.0.1:9", "another model")
    assert "is not served now" in advise(ws, "x").output
    put_route(ws, "shadow")
    assert "no model advises the role witness" in advise(ws, "x").output
    (ws / "service" / "routes.json").write_text("{")
    done = advise(ws, "x")
    assert done.exit_code == 0 and "is not what gtft writes" in done.output
    assert "nothing was asked" not in done.output
    assert not find_answers(ws, "dep-1").exists()


def test_the_situation_may_come_on_standard_input(ws: Path) -> None:
    def ask(text: str) -> str:
        return ask_advice(ws, "witness", "", text, {}, redact=str, clock=lambda: 0.0).why

    with stand_in(lambda asked: NUDGE) as (url, asked):
        serve_at(ws, url)
        assert ask("what now?\n") == ""
        assert ask("  \n") == "nothing was asked"
    assert [b["messages"][0]["content"] for b in asked] == [
        "[GAS TOWN] witness <- advice\nwhat now?"
    ]


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"GT_ROLE": "gizmo/witness"}, ("witness", "gizmo")),
        ({"GT_ROLE": "mayor"}, ("mayor", "")),
        ({"GT_ROLE": "gizmo/polecats/nux"}, ("polecat", "gizmo")),
        ({"GT_ROLE": "witness", "GT_RIG": "gizmo"}, ("witness", "gizmo")),
        ({}, ("", "")),
    ],
)
def test_an_agent_need_not_say_who_it_is(environ: dict[str, str], found: tuple[str, str]) -> None:
    assert find_role("", "", environ) == found
    assert find_role("refinery", "x", environ) == ("refinery", "x")
