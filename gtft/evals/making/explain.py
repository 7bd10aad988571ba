"""Explain-why with a computed answer: what holds a bead, why a merge was refused, what began a failure.

Every answer is {"cause": …, "chain": […]}: an id or rule of the prompt, and the ids on the way to it.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import POLECATS, draw_ids, draw_rigs

_EACH = 9
_ANSWER = 'Answer with one JSON object only: {{"cause": {0}, "chain": [{1}]}}.'


class Told(NamedTuple):
    """A state in words with its answer. ``among``: all that could be named as cause; ``wrong``: other chains."""

    role: str | None
    difficulty: str
    prompt: str
    cause: str
    chain: list[str]
    among: list[str]
    ordered: bool
    wrong: list[list[str]]


def make(dice: random.Random) -> Iterator[Made]:
    templates: Mapping[str, Callable[[random.Random, int], Told]] = {
        "held-back": _held_back,
        "family": _family,
        "refused-merge": _refused_merge,
        "log": _log,
        "replaced": _replaced,
        "not-slung": _not_slung,
    }
    for name, tell in templates.items():
        for n in range(_EACH):
            yield _draft(dice, name, tell(dice, n))


def _draft(dice: random.Random, name: str, told: Told) -> Made:
    right = {"cause": told.cause, "chain": told.chain}
    other = dice.choice([a for a in told.among if a != told.cause])
    wrong = [
        {"cause": other, "chain": told.chain},
        {"cause": told.cause, "chain": told.chain[:-1]},
        {"cause": told.cause, "chain": " -> ".join(told.chain)},
        {"cause": told.cause},
        *({"cause": told.cause, "chain": w} for w in told.wrong if w != told.chain),
    ]
    if told.ordered and len(told.chain) > 1:
        wrong.append({"cause": told.cause, "chain": told.chain[::-1]})
    args = {"cause": told.cause, "chain": told.chain, "among": sorted(told.among)}
    return draft(
        "explain",
        told.role,
        name,
        told.difficulty,
        told.prompt,
        CheckSpec("cause", args | {"ordered": told.ordered}),
        json.dumps(right),
        (*(json.dumps(w) for w in wrong[:5]), f"Because of {told.cause}: {json.dumps(right)}"),
    )


def _level(n: int) -> tuple[str, int]:
    """The difficulty of the n-th item of a template, and how long its way is."""
    return (("easy", 2), ("medium", 3), ("hard", 4))[n % 3]


def find_chain(start: str, needs: Mapping[str, Sequence[str]], closed: set[str]) -> list[str]:
    """From ``start`` along what is needed and not closed, to the bead that waits for nothing.

    Raises ValueError when there is more than one way.
    """
    chain = [start]
    while open_ := [x for x in needs.get(chain[-1], ()) if x not in closed]:
        if len(open_) > 1:
            raise ValueError(f"{chain[-1]} waits for {len(open_)} beads")
        chain.append(open_[0])
    return chain


def _held_back(dice: random.Random, n: int) -> Told:
    """Needs between beads, most of them closed; one way of open ones leads to what can be worked on."""
    difficulty, length = _level(n)
    rig = draw_rigs(dice, 1)[0]
    way = draw_ids(dice, rig.prefix, length + 4)
    way, aside = way[: length + 1], way[length + 1 :]
    closed = set(aside[:2])
    needs = {a: [b] for a, b in itertools.pairwise(way)}
    for done in sorted(closed):
        needs[dice.choice(way[:-1])].append(done)
    # An open bead that waits for one on the way: it explains nothing.
    needs[aside[2]] = [way[1]]
    for row in needs.values():
        dice.shuffle(row)
    chain = find_chain(way[0], needs, closed)
    status = {x: "closed" if x in closed else "open" for x in [*way, *aside]}
    status[way[-1]] = dice.choice(("open", "in_progress"))
    rows = [
        f"{x} {status[x]}" + (f", needs {' and '.join(needs[x])}" if x in needs else "")
        for x in dice.sample(sorted(status), len(status))
    ]
    asked = _ANSWER.format(
        "the id of the bead where the waiting begins (not closed, and itself waiting for nothing)",
        f'the ids from "{way[0]}" to that bead, each followed by the one that it waits for',
    )
    return Told(
        "mayor",
        difficulty,
        "\n".join([*rows, f"bd ready does not offer {way[0]}. Why? {asked}"]),
        chain[-1],
        chain,
        sorted(status),
        True,
        [[way[0], way[-1]], [*chain, aside[0]]],
    )


def _family(dice: random.Random, n: int) -> Told:
    """A child is not ready because one of its ancestors is deferred or closed by a gate."""
    difficulty, length = _level(n)
    rig = draw_rigs(dice, 1)[0]
    top = draw_ids(dice, rig.prefix, 1)[0]
    line = [top]
    while len(line) < length + 2:
        line.append(f"{line[-1]}.{dice.randint(1, 9)}")
    line.reverse()
    at = dice.randint(1, len(line) - 1)
    chain = line[: at + 1]
    cousin = f"{top}.{dice.choice([k for k in range(1, 10) if f'{top}.{k}' != line[-2]])}"
    days = dice.randint(2, 30)
    state = dict.fromkeys(line, "open") | {
        line[at]: f"deferred for {days} more days",
        cousin: f"deferred for {days + 3} more days",
    }
    rows = [
        f"{x}: {told}, " + ("an epic" if x == top else f"parent {x.rpartition('.')[0]}")
        for x, told in state.items()
    ]
    dice.shuffle(rows)
    asked = _ANSWER.format(
        "the id of the deferred bead that hides it",
        f'"{line[0]}", its parent, the parent of that, and so on to the cause',
    )
    return Told(
        None,
        difficulty,
        "\n".join(
            [
                *rows,
                f"No dependencies exist besides parent and child. A bead is hidden from the ready list while any of its ancestors is deferred. Why is {line[0]} hidden? {asked}",
            ]
        ),
        line[at],
        chain,
        [*line, cousin],
        True,
        [line, [line[0], cousin]],
    )


_MERGE_RULES = {
    "fresh": "the gates ran on the commit that is to be merged",
    "order": "what a request comes after is merged before it",
    "green": "the last run of each gate passed",
    "single": "a branch is in the queue once",
    "owner": "the request was handed in by the worker of its bead",
}


def _refused_merge(dice: random.Random, n: int) -> Told:
    """One rule of the queue is broken; the lines of the record that show it."""
    rig = draw_rigs(dice, 1)[0]
    bead, before = draw_ids(dice, rig.prefix, 2)
    who, other = dice.sample(POLECATS, 2)
    broken = sorted(_MERGE_RULES)[n % len(_MERGE_RULES)]
    gates = dice.sample(("build", "lint", "units"), 2)
    old, new = ("".join(dice.choice("0123456789abcdef") for _ in range(7)) for _ in range(2))
    ran = old if broken == "fresh" else new
    lines = [
        ("", f"{bead} is worked on by {who}"),
        ("owner", f"{other if broken == 'owner' else who} hands in {bead}, commit {new}"),
        ("", f"{bead} comes after {before}"),
        ("order", f"{before} is {'still in the queue' if broken == 'order' else 'merged'}"),
        ("fresh", f"gate {gates[0]} ran on {ran}: passed"),
        ("", f"gate {gates[1]} ran on {new}: {'passed' if broken != 'green' else 'failed'}"),
        ("single", f"the queue holds the branch of {bead} {'twice' if broken == 'single' else 'once'}"),
    ]  # fmt: skip
    if broken == "green":
        lines[5] = ("green", lines[5][1])
    shows = {"owner": (0, 1), "order": (2, 3), "fresh": (1, 4), "green": (5,), "single": (6,)}
    order = dice.sample(range(len(lines)), len(lines)) if n % 2 else list(range(len(lines)))
    number = {i: f"L{k}" for k, i in enumerate(order, 1)}
    chain = [number[i] for i in shows[broken]]
    asked = _ANSWER.format(
        "the name of the one rule that is broken",
        "the numbers of the lines that show it and no others, in any order",
    )
    hint = {
        "owner": "whose bead it is, and who handed it in",
        "order": "what it comes after, and where that is",
        "fresh": "which commit is to be merged, and which one the gate ran on",
        "green": "the run",
        "single": "the count",
    }
    return Told(
        "refinery",
        "easy" if len(chain) == 1 else "hard" if n % 2 else "medium",
        "\n".join(
            [
                "Rules of the merge queue:",
                *(
                    f"{k}: {_MERGE_RULES[k]} (shown by: {hint[k]})"
                    for k in dice.sample(sorted(_MERGE_RULES), 5)
                ),
                "Record:",
                *(f"{number[i]} {lines[i][1]}" for i in order),
                f"Why was {bead} refused? {asked}",
            ]
        ),
        broken,
        chain,
        sorted(_MERGE_RULES),
        False,
        [[*chain, next(x for x in number.values() if x not in chain)]],
    )


_HAPPENED = (
    "the disk of the build host filled up",
    "the page cache was switched off",
    "the nightly import wrote half a table",
    "a certificate ran out",
    "the price list was read as empty",
    "the clock of the host was set back",
    "two workers took the same job",
    "the till printed no totals",
    "orders piled up in the outbox",
    "the overseer was woken",
    "a lock was never given back",
    "the index was built from the old copy",
)


def _log(dice: random.Random, n: int) -> Told:
    """A log whose lines name what they follow from; the first one, and the way from it."""
    difficulty, length = _level(n)
    said = dice.sample(_HAPPENED, length + 4)
    numbers = [f"E{k}" for k in range(10, 10 + 10 * len(said), 10)]
    # Two stories, told as one log: the asked one and another.
    asked_at = sorted(dice.sample(range(len(said)), length + 1))
    rest = [i for i in range(len(said)) if i not in asked_at]
    follows = {b: a for story in (asked_at, rest) for a, b in itertools.pairwise(story)}
    rows = [
        f"{numbers[i]} {said[i]}"
        + (f" (follows from {numbers[follows[i]]})" if i in follows else "")
        for i in range(len(said))
    ]
    chain = [numbers[i] for i in asked_at]
    asked = _ANSWER.format(
        "the number of the line with which that story begins",
        f'the numbers from the cause to "{chain[-1]}", each followed by what follows from it',
    )
    if n % 2:
        dice.shuffle(rows)
    return Told(
        dice.choice(("deacon", "dog", "witness")),
        difficulty,
        "\n".join([*rows, f"What is at the bottom of {chain[-1]}? {asked}"]),
        chain[0],
        chain,
        numbers,
        True,
        [[chain[0], chain[-1]], [numbers[rest[0]], *chain]],
    )


def _replaced(dice: random.Random, n: int) -> Told:
    """Duplicates and superseded beads: where the work is now."""
    difficulty, length = _level(n)
    rig, other = draw_rigs(dice, 2)
    ids = [*draw_ids(dice, rig.prefix, length), *draw_ids(dice, other.prefix, 3)]
    way = [*ids[:length], ids[-1]]
    verbs = [
        dice.choice(("is a duplicate of {}", "was superseded by {}", "was moved to {}"))
        for _ in way[1:]
    ]
    rows = [f"{a}: closed, {v.format(b)}" for a, b, v in zip(way, way[1:], verbs, strict=False)]
    rows.append(f"{way[-1]}: open")
    # Near the way, but not on it: somebody else's duplicate of the same bead, and a bead that only mentions it.
    rows.append(f"{ids[length]}: closed, is a duplicate of {way[-1]}")
    rows.append(f"{ids[length + 1]}: open, mentions {way[0]}")
    dice.shuffle(rows)
    asked = _ANSWER.format(
        "the id of the bead where the work of it goes on",
        f'the ids from "{way[0]}" to that bead, one step after the other',
    )
    return Told(
        dice.choice(("crew", "witness")),
        difficulty,
        "\n".join([*rows, f"{way[0]} is closed, yet its work is not done. Where did the work go? {asked}"]),
        way[-1],
        way,
        ids,
        True,
        [[way[0], way[-1]], [way[0], ids[length], way[-1]]],
    )  # fmt: skip


_SLING_RULES = {
    "shut": "a closed or deferred bead is not slung",
    "breaker": "a bead whose worker was started anew three times is not slung again",
    "full": "a rig that has as many polecats as its limit allows gets no more",
    "foreign": "a bead goes only to the rig that its prefix belongs to",
    "parked": "a parked rig gets no work",
}


def _not_slung(dice: random.Random, n: int) -> Told:
    """A dispatch that did not happen: the rule, and the facts that make it hold."""
    rig, other = draw_rigs(dice, 2)
    broken = sorted(_SLING_RULES)[n % len(_SLING_RULES)]
    bead = draw_ids(dice, rig.prefix, 1)[0]
    limit = dice.randint(2, 6)
    target = other if broken == "foreign" else rig
    facts = {
        "status": f"{bead} is {dice.choice(('closed', 'deferred')) if broken == 'shut' else 'open'}",
        "starts": f"worker of {bead} started anew: {3 if broken == 'breaker' else dice.randint(0, 2)} times",
        "room": f"polecats now in {target.name}: {limit if broken == 'full' else dice.randint(0, limit - 1)}",
        "limit": f"limit of polecats in {target.name}: {limit}",
        "prefix": f"prefix {rig.prefix}- belongs to {rig.name}",
        "to": f"{bead} was to go to {target.name}",
        "state": f"{target.name} is {'parked' if broken == 'parked' else 'in service'}",
    }
    shows = {
        "shut": ("status",),
        "breaker": ("starts",),
        "full": ("room", "limit"),
        "foreign": ("prefix", "to"),
        "parked": ("to", "state"),
    }
    order = dice.sample(sorted(facts), len(facts))
    number = {k: f"F{i}" for i, k in enumerate(order, 1)}
    chain = [number[k] for k in shows[broken]]
    hint = {
        "shut": "its status",
        "breaker": "the starts",
        "full": "the count and the limit",
        "foreign": "the owner of the prefix and the target",
        "parked": "the target and its state",
    }
    asked = _ANSWER.format(
        "the name of the rule that stops it",
        "the numbers of the facts that show it and no others, in any order",
    )
    return Told(
        "mayor",
        "easy" if len(chain) == 1 else "medium",
        "\n".join(
            [
                *(f"{number[k]}: {facts[k]}" for k in order),
                "",
                "Rules of dispatch (and what shows that one applies):",
                *(
                    f"- {k}: {_SLING_RULES[k]} ({hint[k]})"
                    for k in dice.sample(sorted(_SLING_RULES), len(_SLING_RULES))
                ),
                "",
                f"{bead} was not slung. Which rule is the reason? {asked}",
            ]
        ),
        broken,
        chain,
        sorted(_SLING_RULES),
        False,
        [[*chain, next(x for x in number.values() if x not in chain)]],
    )
