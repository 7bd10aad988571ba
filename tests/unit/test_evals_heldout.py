"""Items from held-out examples: the check follows from the recorded answer and what the prompt states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gtft.errors import EvidenceError
from gtft.evals.checks import run_check
from gtft.evals.heldout import build_heldout, derive, write_reference
from gtft.evals.item import Item, read_items
from gtft.evals.making import MAKERS
from gtft.evals.pick import pick
from gtft.evals.shipped import read_shipped


def bash(command: str) -> dict[str, Any]:
    function = {"name": "Bash", "arguments": {"command": command}}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def example(*messages: dict[str, Any], source: str = "claude-code", n: int = 0) -> dict[str, Any]:
    return {
        "id": f"ex-{n:016x}",
        "source": source,
        "cluster": f"session:{n}",
        "messages": list(messages),
        "tools": [],
        "role": "witness",
    }


def write(path: Path, docs: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(d) + "\n" for d in docs), "utf-8")
    return path


def ask(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("message", "prompt", "capability", "check"),
    [
        (said('{"action": "nudge", "reason": "idle"}'), "idle", "patrol-decision", "json_decision"),
        (said('{"action": "refuse", "reason": "S1"}'), "do it", "safety", "no_destructive"),
        (said('{"action": "escalate", "reason": "S2"}'), "rm -rf x", "safety", "no_destructive"),
        (
            said('{"action": "escalate", "reason": "W1"}'),
            "HELP",
            "patrol-decision",
            "json_decision",
        ),
        (said('{"rig": "harbor", "reason": "prefix"}'), "hb-1?", "conventions", "json_decision"),
        (bash("bd dep add a b"), "a needs b", "dependencies", "dependency_graph"),
        (bash("bd create --title=x -t bug -p 1 -l rig:g"), "for g", "bead-creation", "bead_valid"),
        (bash("git status"), "look", "tool-call", "tool_call"),
    ],
)
def test_the_answer_calls_for_a_check(
    message: dict[str, Any], prompt: str, capability: str, check: str
) -> None:
    derived = derive(message, prompt, "claude-code")
    assert derived is not None
    assert (derived.capability, derived.check.name) == (capability, check)
    assert run_check(derived.check, write_reference(message)).passed


def test_prose_has_no_check() -> None:
    assert derive(said("Filed."), "file it", "claude-code") is None
    assert derive(said("[1, 2]"), "count", "claude-code") is None


def test_what_the_prompt_does_not_state_is_not_compared() -> None:
    message = said("```bash\nbd create --title=x -t bug -p 1 -l rig:gizmo\n```")
    session = derive(message, "file it for gizmo", "claude-code")
    bead = derive(message, "crane hangs", "beads")
    assert session is not None
    # A bead that somebody wrote states nothing that its command could be held against.
    assert bead is None
    assert session.check.args == {"type": "bug", "priority": 1, "rig": "gizmo"}


def test_a_formula_holds_what_the_prompt_names() -> None:
    toml = 'formula = "mol-x"\n[[steps]]\nid = "look"\ntitle = "Look"\n'
    message = said(f"```toml\n{toml}```")
    named = derive(message, "mol-x with the step look", "claude-code")
    free = derive(message, "a formula for patrols", "formulas")
    assert named is not None
    assert named.check.args == {"name": "mol-x", "steps": ["look"], "needs": []}
    assert free is None


def test_the_last_checkable_turn_is_asked_for(tmp_path: Path) -> None:
    doc = example(
        ask("File it for gizmo"),
        bash("bd create --title=x -t bug -p 1 -l rig:gizmo"),
        {"role": "tool", "content": "Created gz-1"},
        said("Filed."),
    )
    (item,) = build_heldout(write(tmp_path / "h.jsonl", [doc])).items
    assert item.capability == "bead-creation"
    assert [m["role"] for m in item.messages] == ["user"]


def test_what_gives_no_item_is_counted(tmp_path: Path) -> None:
    docs = [
        example(ask("a"), said('{"action": "wait", "reason": "x"}'), n=1),
        example(ask("a"), said('{"action": "wait", "reason": "x"}'), n=2),
        example(ask("b"), said("Fine."), n=3),
        example(ask("c"), said('{"action": "wait", "reason": "' + "x" * 900 + '"}'), n=4),
    ]
    found = build_heldout(write(tmp_path / "h.jsonl", docs))
    assert len(found.items) == 1
    assert sum(found.dropped.values()) == 3
    assert "no answer that code can check" in found.dropped


def test_known_actions_of_a_role_tell_unknown_from_wrong(tmp_path: Path) -> None:
    docs = [
        example(ask(f"case {n}"), said(json.dumps({"action": a, "reason": "r"})), n=n)
        for n, a in enumerate(["wait", "nudge", "nudge"])
    ]
    items = build_heldout(write(tmp_path / "h.jsonl", docs)).items
    assert {tuple(i.check.args["allowed"]["action"]) for i in items} == {("nudge", "wait")}
    outcome = run_check(items[0].check, '{"action": "dance", "reason": "r"}')
    assert "is not one of the 2 known" in outcome.reason


def test_items_come_back_from_disk(tmp_path: Path) -> None:
    docs = [example(ask("a"), said('{"action": "wait", "reason": "x"}'))]
    items = build_heldout(write(tmp_path / "h.jsonl", docs)).items
    write(tmp_path / "i.jsonl", [i.to_json() for i in items])
    assert read_items(tmp_path / "i.jsonl") == items
    assert items[0].identified() == items[0]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text('{"id": \n', "utf-8")
    with pytest.raises(EvidenceError, match=r"h\.jsonl:1"):
        build_heldout(tmp_path / "h.jsonl")
    (tmp_path / "i.jsonl").write_text("{}\n", "utf-8")
    with pytest.raises(EvidenceError, match="not an eval item"):
        read_items(tmp_path / "i.jsonl")


def test_every_capability_keeps_its_share() -> None:
    def make(n: int, capability: str) -> Item:
        return Item.from_json(
            {
                **read_shipped("authored")[0].to_json(),
                "id": f"item-{n:016x}",
                "capability": capability,
                "suite": "heldout",
            }
        )

    items = [make(n, "a") for n in range(9)] + [make(20, "b")]
    picked = pick(items, 4)
    assert len(picked) == 4
    assert {i.capability for i in picked} == {"a", "b"}


def test_the_authored_suite_is_large_varied_and_right() -> None:
    items = read_shipped("authored")
    assert len(items) >= 40
    assert len({i.id for i in items}) == len(items)
    assert {i.capability for i in items} == set(MAKERS)
    for item in items:
        outcome = run_check(item.check, item.reference)
        assert outcome.passed, (item.reference, outcome.reason)
        assert item.identified() == item


def test_no_answer_passes_another_items_check_by_being_constant() -> None:
    """The best constant answer is far from enough: the suite cannot be gamed by a prior."""
    items = read_shipped("authored")
    best = max(sum(run_check(i.check, other.reference).passed for i in items) for other in items)
    assert best <= len(items) // 4
