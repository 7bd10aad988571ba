"""Items on needs between beads: the right blocker, the right direction, no circle, and what a graph says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from gtft.evals.checks.graph import has_cycle
from gtft.evals.checks.lifecycle import Bead, Beads
from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import THINGS, draw_ids, draw_rigs

CAPABILITY = "dependencies"
_ADD = "Answer with `bd dep add` commands only, one on a line and nothing else."
_OBJECT = "Answer with one JSON object and nothing else: {}"

Edge = tuple[str, str]

# A sentence about two beads; {a} needs {b}. Half of them name the needed one first.
_SAYINGS = (
    "{a} ({at}) cannot begin until {b} ({bt}) is closed.",
    "{b} ({bt}) holds up {a} ({at}).",
    "Before anybody takes {a} ({at}), {b} ({bt}) has to land.",
    "{b} ({bt}) comes first, {a} ({at}) builds on it.",
    "{a} ({at}) is no use without what {b} ({bt}) delivers.",
    "{b} ({bt}) is a blocker of {a} ({at}).",
    "{a} ({at}) waits for {b} ({bt}).",
    "As long as {b} ({bt}) is open, nobody should start {a} ({at}).",
    "{a} ({at}) calls a function that {b} ({bt}) is going to add.",
    "Close {b} ({bt}), and only then {a} ({at}) is free to go.",
    "{b} ({bt}) must not come after {a} ({at}): the second one reads the table that the first one makes.",
    "{a} ({at}) has been blocked by {b} ({bt}) all along, but no edge says so.",
)
_ALONE = (
    "{c} has nothing to do with either.",
    "{c} can be done at any time.",
    "{c} was mentioned too, but it touches other files and waits for nobody.",
)
# What a bead makes, and the words of another that uses it.
_MADE = (
    ("adds the column `shelf_no` to the stock table", "fills the column `shelf_no` from the old notes"),
    ("writes the module `tariff.py`", "imports `tariff.py` in the order form"),
    ("sets up the message queue `outgoing`", "puts each receipt on the queue `outgoing`"),
    ("defines the JSON form of a booking", "reads bookings in their JSON form from the partner"),
    ("builds the container image `press`", "starts three copies of the image `press` at night"),
    ("draws the icon set in four sizes", "puts the new icons into the toolbar"),
    ("gives every page a stable address", "lets the search box link to pages by their stable address"),
    ("moves the settings into one file", "adds a switch to the settings file for quiet hours"),
)  # fmt: skip


def make(dice: random.Random) -> Iterator[Made]:
    for number, saying in enumerate(_SAYINGS):
        yield _one_edge(dice, saying, alone=number % 3 == 2)
    for size in (2, 2, 3, 3, 3, 4, 4):
        yield _several(dice, size)
    for pair in _MADE:
        yield _right_blocker(dice, pair)
    for size in (4, 5, 6, 6, 7, 8, 9):
        yield _ready_now(dice, size)
    for size in (5, 6, 6, 7, 8, 9):
        yield _unblocks_most(dice, size)
    for size in (4, 4, 5, 5, 6, 7):
        yield _closing_edge(dice, size)
    for size in (3, 4, 4, 5, 6):
        yield _turn_round(dice, size)
    for size in (4, 5, 6, 7, 8):
        yield _rounds(dice, size)


def write_edges(edges: Sequence[Edge]) -> str:
    """The commands that enter them."""
    return "\n".join(f"bd dep add {a} {b}" for a, b in edges)


def draw_graph(dice: random.Random, ids: Sequence[str], chance: float) -> list[Edge]:
    """Needs without a circle: a bead may need those that stand before it in a random order."""
    order = dice.sample(list(ids), len(ids))
    edges = [(a, b) for i, a in enumerate(order) for b in order[:i] if dice.random() < chance]
    return dice.sample(edges, len(edges))


def _draw(dice: random.Random, count: int) -> tuple[str, list[str], list[str]]:
    rig = draw_rigs(dice, 1)[0]
    return rig.name, draw_ids(dice, rig.prefix, count), dice.sample(THINGS, count)


def _edges_check(edges: Sequence[Edge]) -> CheckSpec:
    return CheckSpec("dependency_graph", {"edges": [list(e) for e in edges], "type": "blocks"})


def _one_edge(dice: random.Random, saying: str, *, alone: bool) -> Made:
    rig, (a, b, c), (at, bt, ct) = _draw(dice, 3)
    said = saying.format(a=a, at=at, b=b, bt=bt)
    if alone:
        said += " " + dice.choice(_ALONE).format(c=f"{c} ({ct})")
    prompt = f"In the rig {rig}: {said}\nRecord that in beads. {_ADD}"
    misses = (
        f"bd dep add {b} {a}",
        f"bd dep add {a} {c}",
        f"bd dep add {a} {b}\nbd dep add {b} {a}",
        f"bd dep add {a} {b} -t related",
        f"You should run bd dep add {a} {b} now.",
    )
    return draft(
        CAPABILITY, None, "one-edge", "medium" if alone else "easy", prompt, _edges_check([(a, b)]),
        f"bd dep add {a} {b}", misses,
    )  # fmt: skip


def _several(dice: random.Random, size: int) -> Made:
    rig, ids, things = _draw(dice, size + 1)
    names = dict(zip(ids, things, strict=True))
    edges: list[Edge] = []
    while len(edges) != size:
        edges = draw_graph(dice, ids, 0.5)[:size]
    said = " ".join(
        dice.choice(_SAYINGS[:8]).format(a=a, at=names[a], b=b, bt=names[b]) for a, b in edges
    )
    prompt = f"Notes from the planning of {rig}. {said}\nEnter exactly these edges. {_ADD}"
    turned = [(edges[0][1], edges[0][0]), *edges[1:]]
    misses = (
        write_edges(turned),
        write_edges(edges[:-1]),
        write_edges([(b, a) for a, b in edges]),
        write_edges([*edges, edges[0]]),
        write_edges(edges) + f"\nbd close {ids[0]}",
    )
    return draft(
        CAPABILITY, "mayor", "several-edges", "medium" if size < 4 else "hard", prompt, _edges_check(edges),
        write_edges(edges), misses,
    )  # fmt: skip


def _right_blocker(dice: random.Random, pair: tuple[str, str]) -> Made:
    rig, ids, _ = _draw(dice, 4)
    others = dice.sample([m for m, _ in _MADE if m != pair[0]], 2)
    rows = dict(zip(ids, (pair[1], pair[0], *others), strict=True))
    listed = "\n".join(f"- {i}: {rows[i]}" for i in dice.sample(ids, 4))
    a, b = ids[0], ids[1]
    prompt = (
        f"Open beads of {rig}:\n{listed}\n"
        f"Nobody has linked {a} yet. It needs exactly one of the others: find out which from what they do, and "
        f"add that edge. {_ADD}"
    )
    misses = (
        f"bd dep add {b} {a}",
        *(f"bd dep add {a} {x}" for x in ids[2:]),
        f"bd dep add {a} {b} {ids[2]}",
    )
    return draft(
        CAPABILITY, "crew", "right-blocker", "medium", prompt, _edges_check([(a, b)]), f"bd dep add {a} {b}",
        misses,
    )  # fmt: skip


def _describe(ids: Sequence[str], edges: Sequence[Edge], closed: Sequence[str] = ()) -> str:
    lines = []
    for i in ids:
        needs = [b for a, b in edges if a == i]
        state = "closed" if i in closed else "open"
        lines.append(f"{i} [{state}]" + (f" needs {', '.join(needs)}" if needs else ""))
    return "\n".join(lines)


def _state(ids: Sequence[str], edges: Sequence[Edge], closed: Sequence[str] = ()) -> Beads:
    rows = {i: Bead(status="closed" if i in closed else "open") for i in ids}
    return Beads(rows, frozenset(edges))


def _object(doc: dict[str, Any]) -> str:
    return json.dumps(doc)


def _draw_state(dice: random.Random, size: int) -> tuple[str, list[str], list[Edge], list[str]]:
    """A graph whose closed part is closed under needs, with something ready and something waiting."""
    while True:
        rig, ids, _ = _draw(dice, size)
        edges = draw_graph(dice, ids, 0.4)
        closed: list[str] = []
        for _ in range(size // 3):
            closed += dice.sample(_state(ids, edges, closed).ready(), 1)
        beads = _state(ids, edges, closed)
        if beads.ready() and len(beads.blocked()) > 1:
            return rig, ids, edges, closed


def _ready_now(dice: random.Random, size: int) -> Made:
    rig, ids, edges, closed = _draw_state(dice, size)
    beads = _state(ids, edges, closed)
    ready, waiting = beads.ready(), beads.blocked()
    prompt = (
        f"All beads of {rig}, nobody holds one:\n{_describe(ids, edges, closed)}\n"
        'Which would `bd ready` list? "ready": their ids. "waiting": the ids of the open ones that it leaves out. '
        + _OBJECT.format('{"ready": [ids], "waiting": [ids]}')
    )
    right = {"ready": ready, "waiting": waiting}
    misses = (
        _object({"ready": waiting, "waiting": ready}),
        _object({"ready": [*ready, waiting[0]], "waiting": waiting[1:]}),
        _object({"ready": ready}),
        _object({"ready": [*ready, *closed], "waiting": waiting}),
        _object(right) + "\nThese are free.",
    )
    hard = "easy" if size < 5 else "medium" if size < 7 else "hard"
    return draft(
        CAPABILITY, None, "ready-now", hard, prompt, CheckSpec("state_object", {"expect": right}),
        _object(right), misses,
    )  # fmt: skip


def _unblocks_most(dice: random.Random, size: int) -> Made:
    while True:
        rig, ids, edges, closed = _draw_state(dice, size)
        before = _state(ids, edges, closed)
        gains = {
            i: sorted({*_state(ids, edges, [*closed, i]).ready()} - {*before.ready()})
            for i in before.ready()
        }
        best = max(gains, key=lambda i: len(gains[i]))
        counts = sorted(len(g) for g in gains.values())
        if len(counts) > 1 and counts[-1] > counts[-2]:
            break
    other = next(i for i in gains if i != best)
    prompt = (
        f"State of {rig}:\n{_describe(ids, edges, closed)}\n"
        "One polecat is free and will close one bead that is ready. Closing which one makes the most other beads "
        'ready at once? "close": its id. "freed": the ids that become ready by that. '
        + _OBJECT.format('{"close": id, "freed": [ids]}')
    )
    right = {"close": best, "freed": gains[best]}
    misses = (
        _object({"close": other, "freed": gains[other]}),
        _object({"close": best, "freed": []}),
        _object({"close": best, "freed": [*gains[best], other]}),
        _object({"close": [best], "freed": gains[best]}),
    )
    return draft(
        CAPABILITY, "mayor", "unblocks-most", "hard" if size > 6 else "medium", prompt,
        CheckSpec("state_object", {"expect": right}), _object(right), misses,
    )  # fmt: skip


def _closing_edge(dice: random.Random, size: int) -> Made:
    while True:
        rig, ids, _ = _draw(dice, size)
        edges = draw_graph(dice, ids, 0.5)
        if len(edges) < size:
            continue
        edges = edges[: size + 1]
        closing = [
            (a, b) for a in ids for b in ids
            if a != b and (b, a) not in edges and (a, b) not in edges and has_cycle([*edges, (a, b)])
        ]  # fmt: skip
        if closing:
            break
    bad = dice.choice(closing)
    first = next(n for n in range(len(edges) + 1) if has_cycle([*edges[:n], bad]))
    place = dice.randint(first, len(edges))
    rows = [*edges[:place], bad, *edges[place:]]
    listed = "\n".join(f"{n}. bd dep add {a} {b}" for n, (a, b) in enumerate(rows, start=1))
    prompt = (
        f"There are no edges yet between the beads of {rig}. These commands are run in this order:\n{listed}\n"
        "bd refuses exactly one of them. Which, and which bead does it say must wait? "
        + _OBJECT.format('{"refused": number of the line, "bead": the id that would have waited}')
    )
    right = {"refused": place + 1, "bead": bad[0]}
    misses = (
        _object({"refused": place + 1, "bead": bad[1]}),
        _object({"refused": place, "bead": bad[0]}),
        _object({"refused": str(place + 1), "bead": bad[0]}),
        _object({"refused": place + 1}),
    )
    return draft(
        CAPABILITY, None, "closing-edge", "hard" if size > 5 else "medium", prompt,
        CheckSpec("state_object", {"expect": right}), _object(right), misses,
    )  # fmt: skip


def _turn_round(dice: random.Random, size: int) -> Made:
    while True:
        rig, ids, things = _draw(dice, size)
        edges = draw_graph(dice, ids, 0.6)
        turnable = [
            e for e in edges if not has_cycle([*(x for x in edges if x != e), (e[1], e[0])])
        ]
        if turnable and len(edges) >= size - 1:
            break
    a, b = dice.choice(turnable)
    names = dict(zip(ids, things, strict=True))
    goal = [*(e for e in edges if e != (a, b)), (b, a)]
    start = _state(ids, edges).to_json()
    prompt = (
        f"Edges in {rig} (each line: X needs Y):\n"
        + "\n".join(f"{x} needs {y}" for x, y in edges)
        + f"\nOne was entered the wrong way round: {names[b]} ({b}) needs {names[a]} ({a}), not the other way. Put "
        "that right and leave the rest. Answer with bd dep commands only, one on a line, two at most."
    )
    args = {**start, "actor": "", "goal": _state(ids, goal).to_json(), "most": 2}
    right = f"bd dep remove {a} {b}\nbd dep add {b} {a}"
    misses = (
        f"bd dep add {b} {a}\nbd dep remove {a} {b}",
        f"bd dep add {b} {a}",
        f"bd dep remove {b} {a}\nbd dep add {a} {b}",
        f"bd dep remove {a} {b}",
        f"bd dep swap {a} {b}",
    )
    return draft(
        CAPABILITY,
        "crew",
        "turn-round",
        "hard",
        prompt,
        CheckSpec("bead_moves", args),
        right,
        misses,
    )


def _rounds(dice: random.Random, size: int) -> Made:
    rig, ids, _ = _draw(dice, size)
    edges: list[Edge] = []
    while len(edges) < size - 1:
        edges = draw_graph(dice, ids, 0.35)
    closed: list[str] = []
    rounds: list[list[str]] = []
    while ready := _state(ids, edges, closed).ready():
        rounds.append(ready)
        closed += ready
    prompt = (
        f"Open beads of {rig}:\n{_describe(ids, edges)}\n"
        "There are polecats enough: in each round all beads that are ready are done and closed, then the next round "
        'begins. "rounds": how many rounds until all are closed. "last": the ids done in the last one. '
        + _OBJECT.format('{"rounds": number, "last": [ids]}')
    )
    right = {"rounds": len(rounds), "last": rounds[-1]}
    misses = (
        _object({"rounds": len(rounds) - 1, "last": rounds[-1]}),
        _object({"rounds": len(rounds), "last": rounds[-2]}),
        _object({"rounds": len(ids) + 1, "last": rounds[-1]}),
        _object({"rounds": str(len(rounds)), "last": rounds[-1]}),
    )
    return draft(
        CAPABILITY, "mayor", "rounds", "hard" if size > 5 else "medium", prompt,
        CheckSpec("state_object", {"expect": right}), _object(right), misses,
    )  # fmt: skip
