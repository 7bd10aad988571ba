"""What shadow counts as no answer is what live hands on: the same answers through both."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from gtft.runner import watching
from gtft.runner.watching import look_after
from gtft.service import Address, read_answers, write_address
from gtft.serving.engine import Ask, Served
from serving_case import Script, fall_back, make_route, serve
from serving_case import deploy as set_route
from watch_case import deploy, open_town, run_bash, stand_in, work_here, write_patrol

CALL = '<tool_call>{"name": "Bash", "arguments": {"command": "gt peek nux"}}</tool_call>'
# An answer, and why the previous agent is asked instead.
ANSWERS = (
    ('{"action": "nudge", "reason": "idle"}', ""),
    ('{"action": "escalate", "reason": "it burns"}', ""),
    ('{"action": "escalate", "reason": "r", "missing": "the log"}', "abstained"),
    ('{"action": "abstain"}', "abstained"),
    (CALL, ""),
    (CALL.replace("Bash", "Rm"), "error"),
    (CALL[:40], "error"),
    (CALL.replace("}}", "}"), "error"),
    ("", "error"),
    ("on and on " * 60, "error"),
)
TOOL = {"type": "function", "function": {"name": "Bash", "parameters": {"type": "object"}}}
SIGN = "Sign number {}. "


def answer(ask: Ask) -> str:
    said = "\n".join(str(m.get("content")) for m in ask.messages)
    (number,) = set(re.findall(r"Sign number (\d+)", said))
    return ANSWERS[int(number)][0]


def test_the_same_answers_fall_back_in_shadow_and_in_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "run_worker", work_here)
    ws, model = open_town(tmp_path, "[gtft.deploy]\nmax_new_tokens = 64")
    sessions = [
        write_patrol(
            tmp_path, n, seen=SIGN.format(n), before=run_bash(n, f"gt peek nux{n}", "quiet")
        )
        for n in range(len(ANSWERS))
    ]
    row = deploy(ws, model, "shadow")
    script = Script(
        say=answer, models=(Served(model.name, model.adapter_id, "witness", "role", 4096),)
    )
    live = tmp_path / "live"
    with stand_in(lambda _: json.dumps("the previous agent")) as (before, _), serve(script, live) as server:  # fmt: skip
        route = make_route(
            model=model.name, adapter=model.adapter_id, fallback=fall_back(f"{before}/v1")
        )
        set_route(live, route)
        for n in range(len(ANSWERS)):
            server.chat(SIGN.format(n), below="/roles/witness", tools=[TOOL], max_tokens=4096)
        write_address(ws.path, Address(url=server.url, pid=os.getpid(), models=(model.name,)))
        assert not look_after(ws, row).error
        found = [line.why for line in server.read_lines()]
    expected = [why for _, why in ANSWERS]
    assert found == expected
    beside = {a.session: a.why for a in read_answers(ws.path, row.id)}
    assert [beside[s] for s in sessions] == expected
