"""A bead's life in code: what bd does with a command, what is ready then, and checks that compare the outcome.

The rules are bd's own (1.0.5): a claim takes an open bead that nobody else holds; a close waits for open needs
and, on an epic, for open children; the last closed child closes a molecule; a circle of needs is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gtft.evals.answer import Answer, BadAnswer, parse_object
from gtft.evals.checks.graph import has_cycle, parse_edge

_STATUSES = ("open", "in_progress", "blocked", "deferred", "closed", "pinned", "hooked")
_DONE = ("closed", "pinned")
# Kinds that bd ready never lists.
_HIDDEN = ("molecule", "gate", "message")
# A close reason with one of these is read as a failure (bd's conditional-blocks).
FAILURE_WORDS = (
    "failed", "rejected", "wontfix", "won't fix", "canceled", "cancelled", "abandoned", "blocked", "error",
    "timeout", "aborted",
)  # fmt: skip
_VALUES = {
    "-s": "status", "--status": "status", "-a": "assignee", "--assignee": "assignee", "-r": "reason",
    "--reason": "reason", "--until": "until", "--actor": "actor",
}  # fmt: skip
_SWITCHES = ("--claim", "--json")
_ALLOWED = {
    "update": {"status", "assignee", "actor", "--claim", "--json"},
    "close": {"reason", "actor", "--json"},
    "reopen": {"reason", "actor", "--json"},
    "defer": {"until", "actor", "--json"},
    "undefer": {"actor", "--json"},
}


class Refused(Exception):
    """bd would refuse the command; the message says why."""


@dataclass(frozen=True)
class Bead:
    """``outcome`` of a closed bead: how bd reads its reason, "success" or "failure"."""

    status: str = "open"
    assignee: str = ""
    kind: str = "task"
    parent: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class Beads:
    """``needs``: (a, b) when a needs b."""

    rows: Mapping[str, Bead]
    needs: frozenset[tuple[str, str]] = field(default=frozenset())

    def waits_for(self, id: str) -> list[str]:
        """The beads that it needs and that are not done."""
        return sorted(b for a, b in self.needs if a == id and self.rows[b].status not in _DONE)

    def ready(self) -> list[str]:
        """Open beads that wait for nothing; a molecule is never listed, its steps are."""
        return sorted(
            k
            for k, b in self.rows.items()
            if b.status == "open" and b.kind not in _HIDDEN and not self.waits_for(k)
        )

    def blocked(self) -> list[str]:
        """Beads that are not closed and wait for another."""
        return sorted(
            k for k, b in self.rows.items() if b.status not in _DONE and self.waits_for(k)
        )

    def closed(self) -> list[str]:
        return sorted(k for k, b in self.rows.items() if b.status == "closed")

    def to_json(self) -> dict[str, Any]:
        """The form that a check's arguments hold."""
        blank = Bead()
        rows = {
            k: {n: v for n, v in vars(b).items() if v != getattr(blank, n)}
            for k, b in self.rows.items()
        }
        return {"beads": rows, "needs": sorted(map(list, self.needs))}

    @staticmethod
    def from_json(doc: Mapping[str, Any]) -> Beads:
        """The inverse of `to_json`."""
        rows = {k: Bead(**v) for k, v in doc["beads"].items()}
        return Beads(rows, frozenset((a, b) for a, b in doc["needs"]))


def run_command(beads: Beads, command: Sequence[str], actor: str) -> Beads:
    """The state after one bd command. Raises Refused when bd refuses it, BadAnswer when it is no move at all."""
    if list(command[:2]) == ["bd", "dep"]:
        return _run_dep(beads, command)
    verb = command[1] if command[:1] == ["bd"] and len(command) > 1 else ""
    if verb not in _ALLOWED:
        raise BadAnswer(f"not a move: {' '.join(command[:2])[:60]}")
    ids, given = _parse(verb, command[2:])
    for id in ids:
        if id not in beads.rows:
            raise Refused(f"there is no bead {id[:40]}")
        beads = _MOVES[verb](beads, id, given, given.get("actor", actor))
    return beads


def run_commands(
    beads: Beads, commands: Iterable[Sequence[str]], actor: str
) -> tuple[Beads, list[int]]:
    """The state after all of them, and the numbers (from 1) of those that bd refuses."""
    refused = []
    for number, command in enumerate(commands, start=1):
        try:
            beads = run_command(beads, command, actor)
        except Refused:
            refused.append(number)
    return beads, refused


def check_state(answer: Answer, args: Mapping[str, Any]) -> None:
    """One JSON object with exactly the keys and values of ``args["expect"]``.

    A list is compared without its order, unless its key is in ``args["ordered"]``.
    """
    doc, expect = parse_object(answer), args["expect"]
    if sorted(doc) != sorted(expect):
        raise BadAnswer(f"keys {', '.join(sorted(doc))[:60]}, not {', '.join(sorted(expect))}")
    for key, value in expect.items():
        found = doc[key]
        if (
            isinstance(value, list)
            and isinstance(found, list)
            and key not in args.get("ordered", ())
        ):
            value, found = sorted(map(json.dumps, value)), sorted(map(json.dumps, found))
        if json.dumps(found) != json.dumps(value):
            raise BadAnswer(
                f"{key} is {json.dumps(doc[key])[:60]}, not {json.dumps(expect[key])[:60]}"
            )


def check_moves(answer: Answer, args: Mapping[str, Any]) -> None:
    """bd commands that bring the beads of ``args`` to its goal, none of them refused.

    ``args``: beads and needs as in `Beads.to_json`, actor, goal (the same form), reason (least length of a close
    reason, absent: not compared), most (commands).
    """
    beads = Beads.from_json(args)
    commands = answer.commands()
    if not commands:
        raise BadAnswer("no bd command")
    if len(commands) > args.get("most", len(commands)):
        raise BadAnswer(f"{len(commands)} commands where {args['most']} are enough")
    for command in commands:
        try:
            if command[:2] == ["bd", "close"] and args.get("reason"):
                _check_reason(command, args["reason"])
            beads = run_command(beads, command, args["actor"])
        except Refused as e:
            raise BadAnswer(f"bd refuses {' '.join(command[:3])[:60]}: {e}") from e
    goal = Beads.from_json(args["goal"])
    for id, bead in goal.rows.items():
        if beads.rows[id] != bead:
            raise BadAnswer(f"{id} is then {_show(beads.rows[id])}, not {_show(bead)}")
    if beads.needs != goal.needs:
        raise BadAnswer("the needs are then not the ones asked for")


def _check_reason(command: Sequence[str], least: int) -> None:
    reason = _parse("close", command[2:])[1].get("reason", "")
    if len(reason.strip()) < least:
        raise BadAnswer(f"a close reason of {len(reason.strip())} characters, not {least} or more")


def _parse(verb: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    ids: list[str] = []
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.partition("=")
        key = _VALUES.get(flag, word if word in _SWITCHES else "")
        if not word.startswith("-"):
            ids.append(word)
            continue
        if key not in _ALLOWED[verb]:
            raise BadAnswer(f"not a flag for this: bd {verb} {flag[:40]}")
        if key not in _SWITCHES and not has_value:
            if not rest:
                raise BadAnswer(f"{flag} without a value")
            value = rest.pop(0)
        if key in given:
            raise BadAnswer(f"{flag} is given twice")
        given[key] = value
    if not ids or (verb != "close" and len(ids) > 1):
        raise BadAnswer(f"bd {verb} with {len(ids)} ids")
    return ids, given


def _put(beads: Beads, id: str, **changes: str) -> Beads:
    return replace(beads, rows={**beads.rows, id: replace(beads.rows[id], **changes)})


def _update(beads: Beads, id: str, given: Mapping[str, str], actor: str) -> Beads:
    bead = beads.rows[id]
    status, assignee = given.get("status", bead.status), given.get("assignee", bead.assignee)
    if "--claim" in given:
        if "status" in given or "assignee" in given:
            raise BadAnswer("a claim sets status and assignee itself")
        if bead.assignee not in ("", actor):
            raise Refused(f"it is claimed by {bead.assignee}")
        if bead.status not in ("open", "in_progress") or (
            bead.status != "open" and not bead.assignee
        ):
            raise Refused(f"it cannot be claimed: status {bead.status}")
        return _put(beads, id, status="in_progress", assignee=actor)
    if status not in _STATUSES:
        raise Refused(f"there is no status {status[:40]}")
    if status == "closed" and bead.status != "closed":
        raise BadAnswer("update --status closed goes past bd's checks; bd close is the way")
    outcome = bead.outcome if status == "closed" else ""
    return _put(beads, id, status=status, assignee=assignee, outcome=outcome)


def _close(beads: Beads, id: str, given: Mapping[str, str], actor: str) -> Beads:
    bead = beads.rows[id]
    if bead.status == "pinned":
        raise Refused("it is pinned")
    waiting = beads.waits_for(id) if bead.status != "closed" else []
    if waiting:
        raise Refused(f"it waits for {', '.join(waiting)[:60]}")
    children = [k for k, b in beads.rows.items() if b.parent == id and b.status != "closed"]
    if bead.kind == "epic" and children and bead.status != "closed":
        raise Refused(f"{len(children)} of its children are open")
    reason = given.get("reason", "").lower()
    outcome = "failure" if any(w in reason for w in FAILURE_WORDS) else "success"
    beads = _put(beads, id, status="closed", outcome=outcome)
    return _close_molecule(beads, bead.parent)


def _close_molecule(beads: Beads, id: str) -> Beads:
    """bd closes a molecule with its last child."""
    root = beads.rows.get(id)
    if root is None or root.kind != "molecule" or root.status == "closed":
        return beads
    if any(b.status != "closed" for b in beads.rows.values() if b.parent == id):
        return beads
    return _put(beads, id, status="closed", outcome="success")


def _reopen(beads: Beads, id: str, given: Mapping[str, str], actor: str) -> Beads:
    return (
        _put(beads, id, status="open", outcome="") if beads.rows[id].status == "closed" else beads
    )


def _defer(beads: Beads, id: str, given: Mapping[str, str], actor: str) -> Beads:
    return _put(beads, id, status="deferred")


def _undefer(beads: Beads, id: str, given: Mapping[str, str], actor: str) -> Beads:
    return _put(beads, id, status="open") if beads.rows[id].status == "deferred" else beads


_MOVES = {
    "update": _update,
    "close": _close,
    "reopen": _reopen,
    "defer": _defer,
    "undefer": _undefer,
}


def _run_dep(beads: Beads, command: Sequence[str]) -> Beads:
    verb, edge, kind = parse_edge(command)
    if kind != "blocks":
        raise BadAnswer(f"a dependency of type {kind} does not say what needs what")
    for id in edge:
        if id not in beads.rows:
            raise Refused(f"there is no bead {id[:40]}")
    if verb == "remove":
        return replace(beads, needs=beads.needs - {edge})
    if has_cycle([*beads.needs, edge]):
        raise Refused("the needs would form a circle")
    return replace(beads, needs=beads.needs | {edge})


def _show(bead: Bead) -> str:
    parts = [bead.status, f"held by {bead.assignee}" if bead.assignee else "held by nobody"]
    return ", ".join([*parts, f"read as {bead.outcome}"] if bead.outcome else parts)
