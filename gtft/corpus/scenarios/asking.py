"""Requests that point at a bead by what it is: act when it is clear, ask or escalate when something is missing."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import NamedTuple

from gtft.corpus.scenarios.scene import Act, Case, Scene, compose

ROLES = ("polecat", "refinery", "dog", "crew", "witness", "mayor", "deacon")
ANSWERS = ("act", "ask", "escalate")
# What can be missing. Every request has one bead to be found, some a value to be given.


class Row(NamedTuple):
    id: str
    type: str
    priority: int
    status: str
    holder: str


def find(rows: list[Row], wish: dict[str, object]) -> list[Row]:
    """The beads that a wish describes."""
    return [r for r in rows if all(getattr(r, k) == v for k, v in wish.items())]


def decide(fitting: int, value: bool, reachable: bool) -> tuple[str, str]:
    """(decision, gap): a gap is asked about where somebody can answer, and escalated where nobody can."""
    gap = (
        "none fits"
        if not fitting
        else "several fit"
        if fitting > 1
        else ""
        if value
        else "no value"
    )
    if not gap:
        return "act", ""
    return ("ask" if reachable else "escalate"), gap


def make(scene: Scene) -> Case:
    answer = ANSWERS[scene.turn % len(ANSWERS)]
    people = scene.people(4)
    while True:
        rows = [
            Row(
                "",
                scene.pick(_TYPES),
                scene.rng.randrange(4),
                scene.pick(_STATUSES),
                scene.pick(people),
            )
            for _ in range(scene.rng.randint(3, 6))
        ]
        wish = _draw_wish(scene, people)
        fitting = find(rows, wish)
        value, reachable = scene.chance(0.75), scene.chance(0.5)
        if decide(len(fitting), value, reachable)[0] == answer:
            break
    rows = [r._replace(id=scene.bead()) for r in rows]
    fitting = find(rows, wish)
    decision, gap = decide(len(fitting), value, reachable)
    asker = f"{scene.rig.name}/crew/{scene.people(1)[0]}"
    verb, amount, command = scene.pick(_VERBS)
    given = _draw_value(scene, amount)
    others = [
        f"{scene.rig.name}/crew/{p}: {scene.pick(_SEEN)}"
        for p in people[:2]
        if not asker.endswith("/" + p)
    ]
    seen = scene.rng.sample([*others, f"{asker}: {_SEEN[not reachable]}"], len(others) + 1)
    words = ", ".join(_describe(k, v) for k, v in wish.items())
    request = verb.format(f"the bead that is {words}") + (f" {given}" if value else "")
    called = {"none fits": "no bead fits the description", "no value": f"the {amount} is not given",
              "several fit": f"{len(fitting)} beads fit: {', '.join(r.id for r in fitting)}"}  # fmt: skip
    missing = called[gap] if gap else ""
    if decision == "act":
        done = command.format(fitting[0].id, given)
        sentence = f"Nothing is missing: {fitting[0].id} is the only one, so\n\n`{done}`"
    elif decision == "ask":
        done = f'gt nudge {asker} -m "About your request: {missing}. Please tell me."'
        sentence = f"I ask {asker}, who is in session: {missing}.\n\n`{done}`"
    else:
        done = f'gt escalate "Request of {asker} cannot be carried out" --severity medium --reason "{missing}; the asker has no session"'
        sentence = f"I escalate: {missing}, and {asker} has no session.\n\n`{done}`"
    role = scene.pick(ROLES)
    state = f"{_write_rows(scene, rows)}\n\n" + "\n".join(seen)
    entries = compose(
        scene,
        scene.introduce(role, scene.people(1)[0], scene.pick(("request", "a wish", "mail"))),
        state,
        f"{asker} writes: {request}.\n{scene.pick(_QUESTIONS)}",
        {"decision": decision, "missing": missing or None, "command": done},
        sentence,
        act=Act(done, "ok"),
    )
    fits = tuple(r in fitting for r in rows)
    rig = None if role in ("mayor", "deacon", "dog") else scene.rig.name
    return Case(
        "asking",
        (fits, tuple(sorted(wish)), value, reachable),
        f"{decision} {gap}",
        role,
        rig,
        entries,
    )


def _draw_wish(scene: Scene, people: list[str]) -> dict[str, object]:
    options: list[tuple[str, object]] = [
        ("type", scene.pick(_TYPES)),
        ("priority", scene.rng.randrange(4)),
        ("status", scene.pick(_STATUSES)),
        ("holder", scene.pick(people)),
    ]
    return dict(scene.rng.sample(options, scene.rng.randint(1, 2)))


def _describe(key: str, value: object) -> str:
    return {
        "type": f"a {value}",
        "priority": f"P{value}",
        "status": f"{value}",
        "holder": f"with {value}",
    }[key]


def _draw_value(scene: Scene, amount: str) -> str:
    if amount == "day":
        return (scene.now + timedelta(days=scene.rng.randint(2, 40))).strftime("%Y-%m-%d")
    if amount == "priority":
        return str(scene.rng.randrange(5))
    return f"{scene.rig.name}/crew/{scene.pick(scene.people(3))}"


def _write_rows(scene: Scene, rows: list[Row]) -> str:
    n = scene.rng.randrange(3)
    if n == 0:
        return "\n".join(json.dumps({**r._asdict(), "title": scene.title()}) for r in rows)
    if n == 1:
        return "\n".join(
            f"{r.id} | {r.type} | P{r.priority} | {r.status} | {r.holder}" for r in rows
        )
    return "\n".join(
        f"{r.holder} has {r.id}, a {r.type} (P{r.priority}, {r.status}): {scene.title()}"
        for r in rows
    )


_TYPES = ("bug", "task", "feature", "chore")
_STATUSES = ("open", "hooked", "in_progress", "blocked")
_SEEN = ("in session", "no session")
# The wish, what it needs a value for, and the command for it.
_VERBS = (
    ("Put off {} until", "day", "bd defer {} --until={}"),
    ("Take {} out of sight till", "day", "bd defer {} --until={}"),
    ("Set {} to priority", "priority", "bd update {} --priority {}"),
    ("Change the priority of {} to", "priority", "bd update {} --priority {}"),
    ("Give {} to", "name", "bd update {} --assignee {}"),
    ("Hand {} over to", "name", "bd update {} --assignee {}"),
)
_QUESTIONS = (
    "act, ask or escalate? (ask who asked; escalate when that one has no session)",
    "Do you act, ask, or escalate? Only somebody in session can be asked.",
    "Decide: act / ask / escalate. Asking needs a session at the other end.",
    "If anything is missing, ask; escalate when the asker is not in session; else act.",
)
