"""Checks on ``bd create`` and ``bd update``: what would bd make of the command, and is that what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gtft.evals.answer import Answer, BadAnswer
from gtft.evals.checks.bead_command import Change, NewBead, parse_create, parse_update

__all__ = ["NEW", "State", "apply_command", "check_bead", "check_bead_state", "parse_create"]

# A bead's fields; one that is empty is absent. labels and links are sorted, a link is [type, other bead].
State = dict[str, Any]
# How the bead that a command makes is called: its id is drawn by bd.
NEW = "new"


def check_bead(answer: Answer, args: Mapping[str, Any]) -> None:
    """Exactly one ``bd create`` and nothing else, valid, with the type, priority and rig of ``args``.

    ``args``: type, priority, rig; a key that is absent or null is not compared.
    """
    bead = parse_create(_take_one(answer))
    _refuse_lost_words(bead)
    for key, found in (("type", bead.type), ("priority", bead.priority)):
        expected = args.get(key)
        if expected is not None and found != expected:
            raise BadAnswer(f"{key} {found}, not {expected}")
    rigs = [x.removeprefix("rig:") for x in bead.labels if x.startswith("rig:")]
    if args.get("rig") is not None and rigs != [args["rig"]]:
        raise BadAnswer(f"rig label {', '.join(rigs) or 'missing'}, not {args['rig']}")


def check_bead_state(answer: Answer, args: Mapping[str, Any]) -> None:
    """Exactly one ``bd create`` or ``bd update``, after which the beads are as they should be.

    ``args``: before and after, {id: state}, where the bead that is made is called ``new``. A field that nothing
    asked for fails as a wrong value does.
    """
    command = _take_one(answer)
    if command[:2] == ["bd", "create"]:
        _refuse_lost_words(parse_create(command))
    else:
        _refuse_strangers(parse_update(command), args["before"])
    found = apply_command(command, args["before"])
    expected: Mapping[str, State] = args["after"]
    if set(found) != set(expected):
        raise BadAnswer(f"{command[1]} where the other of create and update is asked for")
    for name, state in expected.items():
        for key in sorted(set(state) | set(found[name])):
            if state.get(key) != found[name].get(key):
                shown = str(found[name].get(key, "missing"))[:60]
                raise BadAnswer(f"{name}: {key} {shown}, not {str(state.get(key, 'none'))[:60]}")


def apply_command(command: Sequence[str], beads: Mapping[str, State]) -> dict[str, State]:
    """``beads`` after one ``bd create`` or ``bd update``. Raises BadAnswer on what bd would refuse."""
    if list(command[:2]) == ["bd", "update"]:
        return _apply_update(command, beads)
    return _apply_create(parse_create(command), beads)


def _apply_create(bead: NewBead, beads: Mapping[str, State]) -> dict[str, State]:
    after = {k: dict(v) for k, v in beads.items()}
    labels = set(bead.labels)
    state: State = {
        "title": bead.title,
        "type": bead.type,
        "priority": bead.priority,
        "status": "open",
        **bead.fields,
    }
    if bead.parent:
        if bead.parent not in beads:
            raise BadAnswer(f"there is no bead {bead.parent[:40]}")
        state["parent"] = bead.parent
        if bead.inherits:
            labels |= set(beads[bead.parent].get("labels", ()))
    if labels:
        state["labels"] = sorted(labels)
    after[NEW] = state
    for kind, other, backwards in bead.links:
        # bd warns and goes on without the link.
        if other not in beads:
            continue
        if kind == "blocks" and (state["type"] == "epic") != (beads[other]["type"] == "epic"):
            continue
        if kind == "parent-child":
            state["parent"] = other
            continue
        holder, held = (after[other], NEW) if backwards else (state, other)
        links = {tuple(x) for x in holder.get("links", ())} | {(kind, held)}
        holder["links"] = sorted(list(x) for x in links)
    return after


def _apply_update(command: Sequence[str], beads: Mapping[str, State]) -> dict[str, State]:
    change = parse_update(command)
    after = {k: dict(v) for k, v in beads.items()}
    # bd goes on with those that are there.
    known = [name for name in change.ids if name in after]
    if not known:
        raise BadAnswer(f"there is no bead {change.ids[0][:40]}")
    for name in known:
        parent = change.fields.get("parent")
        if parent and (parent not in after or parent == name):
            raise BadAnswer(f"{parent[:40]} cannot be the parent")
        state = after[name]
        state |= change.fields
        labels = set(state.get("labels", ()) if change.labels is None else change.labels)
        state["labels"] = sorted((labels | set(change.added)) - set(change.removed))
        after[name] = {k: v for k, v in state.items() if v not in ("", [])}
    return after


def _take_one(answer: Answer) -> list[str]:
    commands = answer.commands()
    if len(commands) != 1:
        raise BadAnswer(f"{len(commands)} commands where one is asked for")
    return commands[0]


def _refuse_strangers(change: Change, beads: Mapping[str, State]) -> None:
    for name in change.ids:
        if name not in beads:
            raise BadAnswer(f"there is no bead {name[:40]}")


def _refuse_lost_words(bead: NewBead) -> None:
    if bead.dropped:
        raise BadAnswer(f"bd takes one title and drops {bead.dropped[0][:40]}")
    if "$(" in bead.title or "`" in bead.title:
        raise BadAnswer("a shell would run a part of the title")
