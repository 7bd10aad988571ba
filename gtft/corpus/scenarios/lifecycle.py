"""A bead's life: what its holder does next, from its record."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import NamedTuple

from gtft.corpus.scenarios.scene import Act, Case, Scene, compose, write_actor

ROLES = ("polecat", "crew")
ANSWERS = (
    "claim", "start", "continue", "hand-in", "close", "reopen", "undefer", "unblock", "wait", "leave",
)  # fmt: skip


class Bead(NamedTuple):
    """``needs``: status of each bead it needs. ``days``: until it may go on, negative = past. ``ticked`` of
    ``criteria`` are met. ``again``: the fault was seen after the close."""

    status: str
    holder: str  # "me", "other" or "nobody"
    needs: tuple[str, ...]
    days: int
    ticked: int
    criteria: int
    merged: bool
    again: bool


def decide(bead: Bead) -> tuple[str, str]:
    """(verb, why): what bd and gt make of this state."""
    waiting = sum(s not in ("closed", "pinned") for s in bead.needs)
    if bead.status == "closed":
        if bead.again:
            return "reopen", "it was closed, and the fault was seen again after that"
        return "leave", "it is closed and nothing was reported since"
    if bead.holder == "other":
        return "leave", "somebody else holds it"
    if bead.status == "pinned":
        return "leave", "a pinned bead is kept as it is"
    if bead.status == "deferred":
        if bead.days > 0:
            return "wait", f"it is put off for {bead.days} more days"
        return "undefer", "the day it was put off to has come"
    if waiting:
        return "wait", f"{waiting} of the beads it needs {'is' if waiting == 1 else 'are'} not done"
    if bead.status == "blocked":
        return "unblock", "all that it needs is done, only the status still says blocked"
    if bead.status == "hooked":
        return "start", "it hangs on my hook and nothing holds it up"
    if bead.status == "open":
        return "claim", "it is open, free of blockers and nobody else's"
    if bead.ticked < bead.criteria:
        return "continue", f"{bead.criteria - bead.ticked} of {bead.criteria} criteria are not met"
    if bead.merged:
        return "close", f"all {bead.criteria} criteria are met and the branch is merged"
    return "hand-in", f"all {bead.criteria} criteria are met, the branch is not merged"


_STATUSES = {
    "claim": ("open",),
    "start": ("hooked",),
    "continue": ("in_progress",),
    "hand-in": ("in_progress",),
    "close": ("in_progress",),
    "reopen": ("closed",),
    "undefer": ("deferred",),
    "unblock": ("blocked",),
    "wait": ("open", "hooked", "blocked", "deferred", "in_progress"),
    "leave": ("open", "hooked", "blocked", "deferred", "in_progress", "closed", "pinned"),
}


def draw(scene: Scene, verb: str) -> Bead:
    """A state whose next verb is ``verb``."""
    rng = scene.rng
    while True:
        criteria = rng.randint(2, 6)
        ticked = criteria if scene.chance(0.5) else rng.randrange(criteria)
        status = scene.pick(_STATUSES[verb])
        holders = (
            ("me", "nobody", "other") if status in ("open", "deferred") else ("me", "me", "other")
        )
        bead = Bead(
            status,
            scene.pick(holders),
            tuple(
                scene.pick(("closed", "closed", "open", "in_progress"))
                for _ in range(rng.randrange(4))
            ),
            rng.choice((-9, -4, -2, -1, 2, 3, 5, 8, 12)),
            ticked,
            criteria,
            ticked == criteria and scene.chance(0.5),
            scene.chance(0.5),
        )
        if decide(bead)[0] == verb:
            return bead


def make(scene: Scene) -> Case:
    verb = ANSWERS[scene.turn % len(ANSWERS)]
    role = scene.pick(ROLES)
    me, other = scene.people(2)
    asked = draw(scene, verb)
    others = [draw(scene, scene.pick(ANSWERS)) for _ in range(scene.rng.randint(1, 2))]
    beads = [asked, *others]
    ids = [scene.bead() for _ in beads]
    holders = {
        "me": write_actor(role, scene.rig.name, me),
        "other": write_actor(scene.pick(ROLES), scene.rig.name, other),
        "nobody": "",
    }
    order = list(range(len(beads)))
    scene.rng.shuffle(order)
    rows = [_describe(scene, beads[i], ids[i], holders[beads[i].holder]) for i in order]
    found, why = decide(asked)
    shape = scene.pick(_SHAPES)
    state = "\n".join(shape(scene, row) for row in rows)
    command, output = _write_command(scene, found, ids[0], role, asked)
    fields = {"bead": ids[0], "next": found, "reason": why, "command": command or None}
    entries = compose(
        scene,
        scene.introduce(role, me, scene.pick(("beads", "next step", "work", "my bead"))),
        state,
        scene.pick(_QUESTIONS).format(ids[0]),
        fields,
        f"{ids[0]}: {_SAYS[found]}, because {why}." + (f"\n\n`{command}`" if command else ""),
        act=Act(command, output) if command else None,
        deeds=True,
    )
    return Case("lifecycle", (role, asked), found, role, scene.rig.name, entries)


_QUESTIONS = (
    "What do you do next with {}? (" + ", ".join(ANSWERS) + ")",
    "Next step for {}, one of: " + " / ".join(ANSWERS) + ".",
    "{}: which verb comes now? " + " ".join(ANSWERS),
    "It is about {}. Choose from " + ", ".join(ANSWERS) + ".",
)
_SAYS = {
    "claim": "take it",
    "start": "begin with it",
    "continue": "go on working",
    "hand-in": "hand the branch in",
    "close": "close it",
    "reopen": "open it again",
    "undefer": "bring it back",
    "unblock": "set it to open",
    "wait": "wait",
    "leave": "leave it alone",
}


def _describe(scene: Scene, bead: Bead, id: str, holder: str) -> dict[str, object]:
    until = (scene.now + timedelta(days=bead.days)).strftime("%Y-%m-%d")
    return {
        "id": id,
        "title": scene.title(),
        "status": bead.status,
        "priority": scene.rng.randrange(5),
        "assignee": holder,
        "needs": [f"{scene.bead()} {s}" for s in bead.needs],
        "put_off_until": until
        if bead.status == "deferred" or (bead.days < 0 and scene.chance(0.6))
        else "",
        "criteria": f"{bead.ticked} of {bead.criteria}",
        "merged": bead.merged,
        "fault_seen_since_close": bead.again if bead.status == "closed" else False,
    }


def _write_json(scene: Scene, row: dict[str, object]) -> str:
    items = list(row.items())
    scene.rng.shuffle(items)
    return json.dumps(dict(items))


def _write_lines(scene: Scene, row: dict[str, object]) -> str:
    rest = [(k, v) for k, v in row.items() if k not in ("id", "title")]
    scene.rng.shuffle(rest)
    lines = [f"  {k.replace('_', ' ')}: {_show(v)}" for k, v in rest]
    return f"{row['id']} {row['title']}\n" + "\n".join(lines)


def _write_row(_: Scene, row: dict[str, object]) -> str:
    return " | ".join(
        f"{k} {_show(v)}" if k not in ("id", "title") else str(v) for k, v in row.items()
    )


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(value) if isinstance(value, list) else str(value)) or "-"


_SHAPES = (_write_json, _write_lines, _write_row)


def _write_command(scene: Scene, verb: str, id: str, role: str, bead: Bead) -> tuple[str, str]:
    if verb == "claim":
        return f"bd update {id} --claim", f"Updated issue: {id}"
    if verb == "start":
        return f"bd update {id} --status in_progress", f"Updated issue: {id}"
    if verb == "unblock":
        return f"bd update {id} --status open", f"Updated issue: {id}"
    if verb == "reopen":
        return (
            f'bd reopen {id} --reason="the fault was seen again after the close"',
            f"Reopened {id}",
        )
    if verb == "undefer":
        return f"bd undefer {id}", f"Undeferred {id}"
    if verb == "close":
        done = f"All {bead.criteria} criteria met, merged as {scene.commit()}"
        return f'bd close {id} --reason="{done}"', f"Closed {id}: {done}"
    if verb == "hand-in":
        command = "gt done" if role == "polecat" else f"gt mq submit --issue {id}"
        return command, f"Submitted to the merge queue: {id}"
    return "", ""
