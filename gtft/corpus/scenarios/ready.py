"""What needs what: which beads are ready, what blocks one, what a close sets free, what would be a cycle."""

from __future__ import annotations

import json
from typing import NamedTuple

from gtft.corpus.scenarios.scene import Act, Case, Scene, compose

KINDS = ("ready", "blockers", "freed", "cycle", "can-start")
ROLES = ("mayor", "witness", "crew", "deacon")
_DONE = ("closed", "pinned")
_IDLE = ("related", "discovered-from", "tracks")


class Graph(NamedTuple):
    """Beads by number. ``needs`` holds (bead, what it points to, type); only ``blocks`` gates work."""

    statuses: tuple[str, ...]
    priorities: tuple[int, ...]
    needs: tuple[tuple[int, int, str], ...]

    def find_blockers(self, bead: int) -> list[int]:
        return [
            b
            for a, b, kind in self.needs
            if a == bead and kind == "blocks" and self.statuses[b] not in _DONE
        ]

    def list_ready(self) -> list[int]:
        return [i for i, s in enumerate(self.statuses) if s == "open" and not self.find_blockers(i)]

    def close(self, bead: int) -> Graph:
        statuses = [*self.statuses]
        statuses[bead] = "closed"
        return self._replace(statuses=tuple(statuses))

    def find_path(self, start: int, goal: int) -> list[int]:
        """The shortest way along ``blocks`` from ``start`` to what it needs; empty when there is none."""
        ways = [[start]]
        seen = {start}
        for way in ways:
            if way[-1] == goal:
                return way
            for a, b, kind in self.needs:
                if a == way[-1] and kind == "blocks" and b not in seen:
                    seen.add(b)
                    ways.append([*way, b])
        return []


def draw(scene: Scene, only_blocks: bool) -> Graph:
    rng = scene.rng
    count = rng.randint(4, 7)
    rank = rng.sample(range(count), count)
    needs = []
    for a in range(count):
        for b in range(count):
            if rank[a] > rank[b] and scene.chance(0.42):
                kind = "blocks" if only_blocks or scene.chance(0.68) else scene.pick(_IDLE)
                needs.append((a, b, kind))
    # What is done needs nothing that is not done.
    statuses = ["open"] * count
    for i in sorted(range(count), key=rank.__getitem__):
        free = all(statuses[b] == "closed" for a, b, kind in needs if a == i and kind == "blocks")
        roll = rng.random()
        if free and roll < 0.45:
            statuses[i] = "closed"
        elif free and roll < 0.55:
            statuses[i] = "in_progress"
        elif roll > 0.94:
            statuses[i] = "deferred"
    return Graph(tuple(statuses), tuple(rng.randrange(4) for _ in range(count)), tuple(needs))


def make(scene: Scene) -> Case:
    kind = KINDS[scene.turn % len(KINDS)]
    # "cycle" and "can-start" have two answers: they take turns.
    wanted = scene.turn // len(KINDS) % 2 == 0
    while True:
        graph = draw(scene, kind == "cycle")
        if (question := _ask(scene, graph, kind, wanted)) is not None:
            break
    return _tell(scene, graph, kind, *question)


def _ask(scene: Scene, g: Graph, kind: str, wanted: bool) -> tuple[list[int], list[int]] | None:
    """(beads asked about, beads answered), or None when this graph makes no good question."""
    if kind == "ready":
        return ([], found) if (found := g.list_ready()) else None
    beads = range(len(g.statuses))
    if kind == "blockers":
        able = [i for i in beads if g.find_blockers(i)]
        return ([i := scene.pick(able)], g.find_blockers(i)) if able else None
    if kind == "freed":
        ready = set(g.list_ready())
        able = [
            i for i in beads if g.statuses[i] in ("open", "in_progress") and not g.find_blockers(i)
        ]
        able = [i for i in able if any(b == i for _, b, _ in g.needs)]
        if not able:
            return None
        i = scene.pick(able)
        return [i], [f for f in g.close(i).list_ready() if f not in ready and f != i]
    if kind == "can-start":
        able = [i for i in beads if g.statuses[i] == "open" and any(a == i for a, _, _ in g.needs)]
        able = [i for i in able if bool(g.find_blockers(i)) != wanted]
        return ([i := scene.pick(able)], g.find_blockers(i)) if able else None
    pairs = [
        (a, b)
        for a in beads
        for b in beads
        if a != b
        and not any((x, y) == (a, b) for x, y, _ in g.needs)
        and bool(g.find_path(b, a)) == wanted
    ]
    if not pairs:
        return None
    a, b = scene.pick(pairs)
    return [a, b], g.find_path(b, a)


def _tell(scene: Scene, g: Graph, kind: str, asked: list[int], found: list[int]) -> Case:
    ids = [scene.bead() for _ in g.statuses]
    if kind == "ready":
        found = sorted(found, key=lambda i: (g.priorities[i], ids[i]))
    elif kind != "cycle":
        found = sorted(found, key=ids.__getitem__)
    named = [ids[i] for i in found]
    at = [ids[i] for i in asked]
    role = scene.pick(ROLES)
    question = scene.pick(_QUESTIONS[kind]).format(*at)
    act = None
    if kind == "ready":
        fields: dict[str, object] = {"ready": named}
        sentence = f"Ready: {', '.join(named)}. Each is open, and whatever it needs is done."
    elif kind == "blockers":
        fields = {"bead": at[0], "blocked_by": named}
        sentence = f"{at[0]} waits for {' and '.join(named)}; the rest is done or does not gate it."
    elif kind == "freed":
        fields = {"closed": at[0], "now_ready": named}
        sentence = (
            f"Closing {at[0]} makes {' and '.join(named)} ready."
            if named
            else f"Nothing: no open bead waits for {at[0]} alone."
        )
    elif kind == "can-start":
        fields = {"bead": at[0], "can_start": not named, "blocked_by": named}
        sentence = (
            f"No, {at[0]} still needs {', '.join(named)}."
            if named
            else f"Yes, nothing open holds {at[0]}."
        )
        if not named:
            act = Act(f"bd update {at[0]} --claim", f"Updated issue: {at[0]}")
    else:
        way = [at[0], *named] if named else []
        fields = {"allowed": not named, "cycle": way}
        sentence = (
            f"No: that closes a circle, {' needs '.join(way)}."
            if named
            else f"Yes, {at[1]} does not lead back to {at[0]}."
        )
        if not named:
            act = Act(
                f"bd dep add {at[0]} {at[1]}", f"Added dependency: {at[0]} depends on {at[1]}"
            )
    layout = scene.pick(_LAYOUTS)
    entries = compose(
        scene,
        scene.introduce(
            role, scene.people(1)[0], scene.pick(("order of work", "board", "what needs what"))
        ),
        layout(scene, g, ids),
        question,
        fields,
        sentence,
        look="bd export" if layout is _write_export else "",
        act=act,
        deeds=kind in ("can-start", "cycle"),
    )
    rig = None if role in ("mayor", "deacon") else scene.rig.name
    return Case("ready", (kind, g, tuple(asked)), f"{kind} {found}", role, rig, entries)


_QUESTIONS = {
    "ready": (
        "Which beads are ready? Most urgent first, equals by id.",
        "List what could be started now, by priority and then id.",
        "What would bd ready show? Order: priority, id.",
    ),
    "blockers": (
        "What is {} still waiting for? By id.",
        "Name all open blockers of {}, by id.",
        "Why can {} not start: which beads hold it? Sorted.",
    ),
    "freed": (
        "Suppose {} is closed now. What becomes ready by it?",
        "If {} were done, which beads would be new in bd ready?",
        "{} is about to be closed: what does that set free?",
    ),
    "can-start": (
        "May somebody begin {}? If not, what is in the way?",
        "Is {} ready to be taken?",
        "Can {} be started, or what holds it?",
    ),
    "cycle": (
        "Somebody wants {} to need {}. Is that possible?",
        "Check before adding: {} shall wait for {}.",
        "Would bd accept it when {} is made to need {}?",
    ),
}


def _write_table(scene: Scene, g: Graph, ids: list[str]) -> str:
    lines = [f"{'id':<12}| P | status      | needs | other links"]
    for i in _shuffle(scene, ids):
        mine = [(ids[b], kind) for a, b, kind in g.needs if a == i]
        needs = " ".join(b for b, kind in mine if kind == "blocks") or "-"
        other = " ".join(f"{kind}:{b}" for b, kind in mine if kind != "blocks") or "-"
        lines.append(f"{ids[i]:<12}| {g.priorities[i]} | {g.statuses[i]:<12}| {needs} | {other}")
    return "\n".join(lines)


def _write_sentences(scene: Scene, g: Graph, ids: list[str]) -> str:
    lines = [
        f"{ids[i]} (P{g.priorities[i]}, {g.statuses[i]}): {scene.title()}"
        for i in _shuffle(scene, ids)
    ]
    links = [
        f"{ids[a]} needs {ids[b]}."
        if kind == "blocks"
        else f"{ids[a]} is only linked ({kind}) to {ids[b]}."
        for a, b, kind in g.needs
    ]
    scene.rng.shuffle(links)
    return "\n".join([*lines, *links])


def _write_export(scene: Scene, g: Graph, ids: list[str]) -> str:
    return "\n".join(
        json.dumps(
            {
                "_type": "issue",
                "id": ids[i],
                "title": scene.title(),
                "status": g.statuses[i],
                "priority": g.priorities[i],
                "dependencies": [
                    {"issue_id": ids[i], "depends_on_id": ids[b], "type": kind}
                    for a, b, kind in g.needs
                    if a == i
                ],
            }
        )
        for i in _shuffle(scene, ids)
    )


def _shuffle(scene: Scene, ids: list[str]) -> list[int]:
    return scene.rng.sample(range(len(ids)), len(ids))


_LAYOUTS = (_write_table, _write_sentences, _write_export)
