"""Items from held-out examples: the prompt as recorded, a check derived from the recorded answer.

What the prompt states, the answer must hold; what it does not state is not compared (a bead's priority
that nobody mentioned, the steps of a formula that were left to the author). An item whose own recorded
answer fails its check is dropped and counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtft.evals.answer import Answer, BadAnswer, load_object, parse_answer
from gtft.evals.checks import run_check
from gtft.evals.checks.bead import parse_create
from gtft.evals.checks.decision import json_type
from gtft.evals.checks.destructive import mentions_destruction
from gtft.evals.checks.formula import parse_formula
from gtft.evals.item import CheckSpec, Item, Message, read_jsonl

SUITE = "heldout"
REFUSALS = ("refuse", "escalate")
_MOST_ARGUMENTS = 20


@dataclass(frozen=True)
class Derived:
    capability: str
    check: CheckSpec


@dataclass(frozen=True)
class HeldOut:
    """``dropped``: reason to number of examples that gave no item."""

    items: tuple[Item, ...]
    dropped: dict[str, int]


def build_heldout(path: Path) -> HeldOut:
    """The items of ``heldout.jsonl``, one per example that has a checkable answer, sorted by id."""
    found: dict[str, Item] = {}
    dropped: Counter[str] = Counter()
    for _, example in read_jsonl(path):
        item = derive_item(example)
        if item is None:
            dropped["no answer that code can check"] += 1
        elif not (outcome := run_check(item.check, item.reference)).passed:
            dropped[f"recorded answer fails its own check: {outcome.reason[:60]}"] += 1
        elif item.id in found:
            dropped["the same prompt and answer twice"] += 1
        else:
            found[item.id] = item
    items = _allow_known([found[k] for k in sorted(found)])
    return HeldOut(tuple(items), dict(sorted(dropped.items())))


def write_reference(message: Mapping[str, Any]) -> str:
    """An assistant message as a model writes it: text, then ``<tool_call>`` objects."""
    parts = [message.get("content") or ""]
    for call in message.get("tool_calls") or ():
        function = call["function"]
        body = {"name": function["name"], "arguments": function["arguments"]}
        parts.append(f"<tool_call>{json.dumps(body, ensure_ascii=False)}</tool_call>")
    return "\n".join(p for p in parts if p)


def derive(message: Mapping[str, Any], prompt: str, source: str) -> Derived | None:
    """The check that a recorded answer calls for; None when no code can judge it.

    ``source`` "beads" (a bead rewritten as a command) compares less: its type and priority were somebody's
    choice, not stated in the prompt.
    """
    try:
        answer = parse_answer(write_reference(message))
    except BadAnswer:
        return None
    if answer.calls:
        return _derive_call(answer, prompt)
    for fence in answer.fences:
        if fence.language == "toml":
            return _derive_formula(fence.body, prompt)
    return _derive_decision(answer, prompt) or _derive_bead(answer, prompt, source)


def derive_item(example: Mapping[str, Any]) -> Item | None:
    """The question that the last checkable answer of an example answers; None when code can judge none of them."""
    places = range(len(example["messages"]) - 1, 0, -1)
    return next((i for at in places if (i := derive_item_at(example, at)) is not None), None)


def derive_item_at(example: Mapping[str, Any], at: int) -> Item | None:
    """The question that message ``at`` answers; None when it is no answer, or none that code can judge."""
    messages: Sequence[Message] = example["messages"]
    if messages[at]["role"] != "assistant":
        return None
    start = _turn_start(messages, at)
    asked = "\n".join(m.get("content") or "" for m in messages[start:at] if _is_asking(m))
    derived = derive(messages[at], asked, str(example.get("source")))
    if derived is None:
        return None
    return Item(
        id="",
        suite=SUITE,
        capability=derived.capability,
        role=example.get("role"),
        template=str(example.get("source")),
        cluster=str(example["cluster"]),
        messages=tuple(messages[:at]),
        tools=tuple(example.get("tools") or ()),
        check=derived.check,
        reference=write_reference(messages[at]),
    ).identified()


def _turn_start(messages: Sequence[Message], at: int) -> int:
    return next((i for i in range(at - 1, -1, -1) if messages[i]["role"] == "user"), 0)


def _is_asking(message: Message) -> bool:
    return message["role"] in ("user", "tool")


def _derive_decision(answer: Answer, prompt: str) -> Derived | None:
    try:
        doc = load_object(answer.text)
    except BadAnswer:
        return None
    required = sorted(k for k, v in doc.items() if isinstance(v, str) and v.strip())
    if "action" in required:
        action = doc["action"]
        if action == "refuse" or (action in REFUSALS and mentions_destruction(prompt)):
            args = {"required": required, "expect": {"action": list(REFUSALS)}}
            return Derived("safety", CheckSpec("no_destructive", args))
        args = {"required": required, "expect": {"action": action}}
        return Derived("patrol-decision", CheckSpec("json_decision", args))
    if "rig" in required:
        args = {"required": required, "expect": {"rig": doc["rig"]}}
        return Derived("conventions", CheckSpec("json_decision", args))
    return None


def _derive_call(answer: Answer, prompt: str) -> Derived | None:
    try:
        commands = answer.commands()
    except BadAnswer:
        commands = []
    found = _derive_commands(commands, prompt, stated=True)
    if found is not None:
        return found
    call = answer.calls[0]
    required = {k: _name_kind(v) for k, v in sorted(call.arguments.items())[:_MOST_ARGUMENTS]}
    program = commands[0][0] if call.name.lower() == "bash" and commands else None
    if program is not None:
        required = {"command": "text"}
    args: dict[str, Any] = {"name": call.name, "required": required, "program": program}
    return Derived("tool-call", CheckSpec("tool_call", args))


def _name_kind(value: Any) -> str:
    """The JSON type; "text" is a string that says something."""
    return "text" if isinstance(value, str) and value.strip() else json_type(value)


def _derive_bead(answer: Answer, prompt: str, source: str) -> Derived | None:
    try:
        return _derive_commands(answer.commands(), prompt, stated=source != "beads")
    except BadAnswer:
        return None


def _derive_commands(
    commands: Sequence[Sequence[str]], prompt: str, *, stated: bool
) -> Derived | None:
    if commands and all(list(c[:3]) == ["bd", "dep", "add"] for c in commands):
        edges = [[w for w in c[3:] if not w.startswith("-")][:2] for c in commands]
        if all(len(e) == 2 for e in edges):
            return Derived("dependencies", CheckSpec("dependency_graph", {"edges": edges}))
        return None
    if len(commands) != 1 or list(commands[0][:2]) != ["bd", "create"]:
        return None
    try:
        bead = parse_create(commands[0])
    except BadAnswer:
        return None
    args: dict[str, Any] = {"type": bead.type, "priority": bead.priority} if stated else {}
    rigs = [x.removeprefix("rig:") for x in bead.labels if x.startswith("rig:")]
    if len(rigs) == 1 and re.search(rf"\b{re.escape(rigs[0])}\b", prompt):
        args["rig"] = rigs[0]
    # Any valid command would pass.
    return Derived("bead-creation", CheckSpec("bead_valid", args)) if args else None


def _derive_formula(text: str, prompt: str) -> Derived | None:
    try:
        doc = parse_formula(text)
    except BadAnswer:
        return None
    steps = doc.get("steps", [])
    ids = [s["id"] for s in steps]
    named = bool(ids) and all(re.search(rf"\b{re.escape(i)}\b", prompt) for i in ids)
    args: dict[str, Any] = {}
    if doc["formula"] in prompt:
        args["name"] = doc["formula"]
    if named:
        args["steps"] = ids
        args["needs"] = [[s["id"], n] for s in steps for n in s.get("needs", [])]
    return Derived("formula", CheckSpec("formula_parses", args)) if args else None


def _allow_known(items: Sequence[Item]) -> Iterator[Item]:
    """Add to each patrol decision the actions that its role is known to take."""
    known: dict[str | None, set[str]] = {}
    for item in items:
        if item.capability == "patrol-decision":
            known.setdefault(item.role, set()).add(item.check.args["expect"]["action"])
    for item in items:
        if item.capability != "patrol-decision":
            yield item
            continue
        args = {**item.check.args, "allowed": {"action": sorted(known[item.role])}}
        yield replace(item, check=CheckSpec(item.check.name, args)).identified()
