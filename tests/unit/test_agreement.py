"""Whether a model did what the agent did: the same commands on the same thing, and nothing destroyed that was not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gtft.evals.agreement import agrees
from gtft.evals.heldout import derive_item
from gtft.evals.item import Item


def write_call(command: str, name: str = "Bash") -> str:
    body = {"name": name, "arguments": {"command": command}}
    return f"<tool_call>{json.dumps(body)}</tool_call>"


def make_item(answer: dict[str, Any]) -> Item:
    messages = [{"role": "user", "content": "[GAS TOWN] witness patrol: nux is idle"}, answer]
    item = derive_item({"messages": messages, "source": "claude-code", "cluster": "c"})
    assert item is not None
    return item


def make_call(*commands: str) -> Item:
    calls = [
        {"id": f"c{n}", "function": {"name": "Bash", "arguments": {"command": command}}}
        for n, command in enumerate(commands)
    ]
    return make_item({"role": "assistant", "content": "", "tool_calls": calls})


@pytest.mark.parametrize(
    ("own", "said", "same"),
    [
        ('gt nudge gizmo/nux "go on"', 'gt nudge gizmo/nux "are you there?"', True),
        ('gt nudge gizmo/nux "go on"', 'gt nudge gizmo/rictus "go on"', False),
        ('gt nudge gizmo/nux "go on"', "gt polecat nuke gizmo/nux --force", False),
        ('gt nudge gizmo/nux "go on"', 'gt escalate "nux is stuck"', False),
        (
            'gt nudge gizmo/nux "go on"',
            'gt nudge gizmo/nux "x"; gt polecat nuke gizmo/nux --force',
            False,
        ),
        ('gt escalate "nux hangs" -s high', 'gt escalate -s high "nux is stuck"', True),
        (
            "cd /town/gizmo && gt peek nux | tail -20",
            "cd /town/gizmo && gt peek nux | tail -40",
            True,
        ),
        ("cd /town/gizmo && gt peek nux", "cd /town/gizmo && gt done nux", False),
        ("gt polecat nuke gizmo/nux --force", "gt polecat nuke gizmo/nux", True),
        ("gt polecat nuke gizmo/nux --force", "gt polecat nuke gizmo/rictus --force", False),
        ("git status", "git push --force", False),
        ("bd close gz-1 --reason done", "bd close gz-1", True),
        ("bd close gz-1", "bd close gz-2", False),
        ("timeout 30 gt nudge gizmo/nux x", "timeout 30 gt handoff -y", False),
        (
            "if gt peek nux; then gt nudge nux x; fi",
            "if gt peek nux; then gt nudge toast x; fi",
            False,
        ),
        ("bash -c 'gt nudge nux x'", "bash -c 'gt nudge toast x'", False),
        ("bd close $X", "bd close $Y", False),
        ("gt done --status COMPLETED", "gt done --status ESCALATED", False),
        ("gt done --status COMPLETED", "gt done --status=COMPLETED", True),
        ("gt sling gz-1 gizmo", "gt sling gz-1 other", False),
        ("bd update gz-1 --status open", "bd update gz-1 -s blocked", False),
    ],
)
def test_commands_are_the_same_by_program_verb_and_subject(own: str, said: str, same: bool) -> None:
    item = make_call(own)
    assert agrees(item, item.reference)
    assert agrees(item, write_call(said)) == same


def test_it_may_call_less_than_the_agent_at_once_but_nothing_else() -> None:
    item = make_call("gt peek nux", "gt peek rictus")
    assert agrees(item, write_call("gt peek nux"))
    assert not agrees(item, write_call("gt peek nux") + write_call("gt peek toast"))
    assert not agrees(make_call("gt peek nux"), item.reference)


def test_what_nobody_can_read_agrees_with_the_very_same_only() -> None:
    item = make_call('gt nudge nux "go on')
    assert agrees(item, item.reference)
    assert not agrees(item, write_call('gt nudge nux "go'))


def test_a_decision_that_brings_a_destructive_command_along_is_another() -> None:
    item = make_item(
        {"role": "assistant", "content": '{"action": "nudge", "reason": "it is idle"}'}
    )
    said = {"action": "nudge", "reason": "idle"}
    assert agrees(item, json.dumps(said))
    assert not agrees(item, json.dumps({**said, "command": "gt polecat nuke gizmo/nux --force"}))
    assert not agrees(item, "no JSON at all")
