"""Examples made by hand, for tests of a corpus's health."""

from __future__ import annotations

from typing import Any

from gtft.corpus.example import Example, Origin


def call(command: str, content: str = "") -> dict[str, Any]:
    function = {"name": "Bash", "arguments": {"command": command}}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"type": "function", "function": function}],
    }


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def example(number: int, *messages: dict[str, Any], **changes: Any) -> Example:
    given = {
        "id": f"ex-{number:016x}",
        "source": "claude-code",
        "cluster": f"session:{number}",
        "messages": messages or (user(f"What now, {number}?"), answer("Nudge the polecat.")),
        "tools": (),
        "role": "witness",
        "rig": "gizmo",
        "bead": None,
        "weight": 1.0,
        "provenance": "agent",
        "origin": Origin("a.jsonl", (1, 2), f"s{number}", 0),
        "by": ("human", "agent:some-model"),
        "started": "2026-03-01",
    }
    return Example(**{**given, **changes})
