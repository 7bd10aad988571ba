"""Patrol decisions: a rule sheet in the prompt, a state, and the action of the first rule that holds.

The sheet is drawn anew for each item (which rules, in which order), so no fixed table can be learned.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import POLECATS, draw_id, draw_rigs

_EACH = 13
State = Mapping[str, Any]


class Rule(NamedTuple):
    """``text`` and ``holds`` say the same; {n} is the rule's number of minutes, hours or tries."""

    action: str
    text: str
    holds: Callable[[State, int], bool]
    numbers: tuple[int, ...] = (0,)


class Sheet(NamedTuple):
    """A role's rules and how its states are drawn and told. ``otherwise``: the action when no rule holds.

    The first ``always`` rules stand on every sheet: without them ``otherwise`` could do harm.
    """

    role: str
    otherwise: str
    rules: tuple[Rule, ...]
    draw: Callable[[random.Random], dict[str, Any]]
    tell: Callable[[State], list[str]]
    always: int = 0


def _clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def _draw_witness(dice: random.Random) -> dict[str, Any]:
    now = dice.randint(600, 1100)
    return {
        "who": dice.choice(POLECATS),
        "bead": draw_id(dice, draw_rigs(dice, 1)[0].prefix),
        "now": now,
        "sign": now - dice.choice((3, 8, 14, 19, 26, 33, 41, 58, 77)),
        "open": dice.random() < 0.6,
        "edits": dice.choice((0, 0, 1, 4, 7)),
        "landed": dice.random() < 0.3,
        "question": dice.choice((0, 0, 0, 5, 16, 40)),
        "same": dice.choice((0, 0, 1, 2, 3, 4)),
    }


def _tell_witness(s: State) -> list[str]:
    return [
        f"clock {_clock(s['now'])}; last sign of life {_clock(s['sign'])}",
        f"{s['who']} on {s['bead']}: terminal {'open' if s['open'] else 'gone'}, edited and not committed: {s['edits']}",
        f"merge: {'the branch is in main' if s['landed'] else 'not yet'}",
        f"mail: {'asked a question at ' + _clock(s['now'] - s['question']) + ', no reply so far' if s['question'] else 'none'}",
        f"failures of one and the same test in a row: {s['same']}",
    ]


_WITNESS = Sheet(
    "witness",
    "let-be",
    (
        Rule("reply", "its question is unanswered for {n} minutes or longer", lambda s, n: s["question"] >= n, (10, 15, 20)),
        Rule("keep-edits", "the terminal is gone while edited files are not committed", lambda s, n: not s["open"] and s["edits"] > 0),
        Rule("start-anew", "the terminal is gone, no file is edited, and the branch is not in main", lambda s, n: not s["open"] and not s["edits"] and not s["landed"]),
        Rule("send-home", "the branch is in main and no file is edited", lambda s, n: s["landed"] and not s["edits"]),
        Rule("knock", "the terminal is open and there was no sign of life for more than {n} minutes", lambda s, n: s["open"] and s["now"] - s["sign"] > n, (15, 25, 35)),
        Rule("call-mayor", "the same test failed {n} times in a row or more", lambda s, n: s["same"] >= n, (2, 3, 4)),
    ),
    _draw_witness,
    _tell_witness,
)  # fmt: skip


def _draw_refinery(dice: random.Random) -> dict[str, Any]:
    return {
        "mr": draw_id(dice, draw_rigs(dice, 1)[0].prefix),
        "clash": dice.choice(([], [], ["pnpm-lock.yaml"], ["go.sum"], ["app/till.ts"], ["go.sum", "app/till.ts"])),
        "behind": dice.choice((0, 0, 2, 6, 11, 25)),
        "tests": dice.choice((["green"], ["green"], ["red", "green"], ["red"], ["red", "red"], ["red", "red", "red"])),
        "main": dice.choice(("green", "green", "green", "red")),
        "frozen": dice.random() < 0.2,
    }  # fmt: skip


def _tell_refinery(s: State) -> list[str]:
    return [
        f"head of the queue: {s['mr']}",
        f"clashes with main in: {', '.join(s['clash']) or 'no file'}",
        f"main has {s['behind']} commits that it lacks",
        f"its test runs, oldest first: {', '.join(s['tests'])}",
        f"tests on main itself: {s['main']}",
        f"freeze: {'on' if s['frozen'] else 'off'}",
    ]


_LOCKS = frozenset({"pnpm-lock.yaml", "go.sum"})
_REFINERY = Sheet(
    "refinery",
    "land-it",
    (
        Rule("hold", "a freeze is on", lambda s, n: s["frozen"]),
        Rule("stop-line", "main itself is red", lambda s, n: s["main"] == "red"),
        Rule("return-it", "at least one clash is in a file that is no lock file (lock files: pnpm-lock.yaml, go.sum)", lambda s, n: bool(set(s["clash"]) - _LOCKS)),
        Rule("refresh-lock", "there are clashes, and all of them are in lock files (pnpm-lock.yaml, go.sum)", lambda s, n: bool(s["clash"]) and set(s["clash"]) <= _LOCKS),
        Rule("refuse", "its newest run is red", lambda s, n: s["tests"][-1] == "red"),
        Rule("replay", "it lacks more than {n} commits of main", lambda s, n: s["behind"] > n, (1, 5, 10)),
        Rule("run-again", "its newest run is red and it has had fewer than {n} runs", lambda s, n: s["tests"][-1] == "red" and len(s["tests"]) < n, (2, 3)),
    ),
    _draw_refinery,
    _tell_refinery,
    always=5,
)  # fmt: skip


def _draw_deacon(dice: random.Random) -> dict[str, Any]:
    now = dice.randint(700, 1200)
    rig, other = draw_rigs(dice, 2)
    return {
        "now": now,
        "rig": rig.name,
        "beat": now - dice.choice((1, 2, 4, 7, 11, 18)),
        "dog": dice.choice(("gravel", "marmot", "soot", "thimble")),
        "busy": dice.choice((0, 0, 25, 70, 110, 135, 190)),
        "plugin": f"{other.name}-tally",
        "wait": dice.choice((30, 60, 120)),
        "ran": now - dice.choice((10, 45, 75, 150, 300)),
        "held": dice.random() < 0.25,
        "calls": dice.choice((0, 0, 0, 1, 3)),
    }


def _tell_deacon(s: State) -> list[str]:
    return [
        f"It is {_clock(s['now'])}.",
        f"Heart of the {s['rig']} witness: last beat {_clock(s['beat'])}.",
        f"Dog {s['dog']}: {'at one job since ' + _clock(s['now'] - s['busy']) if s['busy'] else 'idle'}.",
        f"Plugin {s['plugin']}: last run {_clock(s['ran'])}, may run again {s['wait']} minutes after that{'; put on hold by the overseer' if s['held'] else ''}.",
        f"Critical escalations nobody has acknowledged: {s['calls']}.",
    ]


_DEACON = Sheet(
    "deacon",
    "next-round",
    (
        Rule("wake-overseer", "a critical escalation is not acknowledged", lambda s, n: s["calls"] > 0),
        Rule("revive-witness", "the last beat of the witness is more than {n} minutes old", lambda s, n: s["now"] - s["beat"] > n, (3, 5, 10)),
        Rule("free-dog", "a dog has been at one job for {n} minutes or longer", lambda s, n: s["busy"] >= n, (60, 120, 180)),
        Rule("send-dog", "the plugin may run again, is not on hold, and the dog is idle", lambda s, n: s["now"] >= s["ran"] + s["wait"] and not s["held"] and not s["busy"]),
        Rule("note-down", "the plugin may run again but is on hold", lambda s, n: s["now"] >= s["ran"] + s["wait"] and s["held"]),
    ),
    _draw_deacon,
    _tell_deacon,
)  # fmt: skip


def _draw_dog(dice: random.Random) -> dict[str, Any]:
    rig = draw_rigs(dice, 1)[0]
    return {
        "base": f"{rig.prefix}_{dice.choice(('beads', 'trial', 'copy'))}",
        "listed": dice.random() < 0.5,
        "clients": dice.choice((0, 0, 0, 1, 2)),
        "age": dice.choice((2, 9, 20, 45, 90)),
        "rows": dice.choice((0, 0, 14, 320, 2600)),
        "backup": dice.choice((0, 5, 30, 60)),
    }


def _tell_dog(s: State) -> list[str]:
    return [
        f"database: {s['base']}",
        f"in the list of rigs: {'yes' if s['listed'] else 'no'}",
        f"connections now: {s['clients']}",
        f"last write: {s['age']} days ago",
        f"beads in it: {s['rows']}",
        f"newest backup: {str(s['backup']) + ' days ago' if s['backup'] else 'there is none'}",
    ]


_DOG = Sheet(
    "dog",
    "propose-removal",
    (
        Rule("keep", "it is in the list of rigs", lambda s, n: s["listed"]),
        Rule("come-back", "somebody is connected to it", lambda s, n: s["clients"] > 0),
        Rule("too-young", "its last write is less than {n} days ago", lambda s, n: s["age"] < n, (7, 14, 30)),
        Rule("ask-deacon", "it holds {n} beads or more", lambda s, n: s["rows"] >= n, (1, 100, 1000)),
        Rule("back-up-first", "it holds beads and has no backup that is newer than its last write or of the same day", lambda s, n: s["rows"] > 0 and (not s["backup"] or s["backup"] > s["age"])),
    ),
    _draw_dog,
    _tell_dog,
    always=2,
)  # fmt: skip

SHEETS = (_WITNESS, _REFINERY, _DEACON, _DOG)


def decide(sheet: Sheet, rules: Sequence[tuple[Rule, int]], state: State) -> tuple[str, int]:
    """The action, and how many of the rules hold."""
    holding = [rule for rule, n in rules if rule.holds(state, n)]
    return (holding[0].action if holding else sheet.otherwise), len(holding)


def make(dice: random.Random) -> Iterator[Made]:
    for sheet in SHEETS:
        wanted = [r.action for r in sheet.rules] + [sheet.otherwise]
        for n in range(_EACH):
            yield _make_one(dice, sheet, wanted[n % len(wanted)], n)


def _make_one(dice: random.Random, sheet: Sheet, wanted: str, n: int) -> Made:
    """One item whose right action is ``wanted``; every third needs that several rules hold."""
    while True:
        rules = _draw_rules(dice, sheet, max(4, sheet.always + 1) + n % 2)
        state = sheet.draw(dice)
        action, holding = decide(sheet, rules, state)
        several = n % 3 == 2 and wanted != sheet.otherwise
        if action == wanted and (holding >= 2 if several else holding <= 2):
            break
    actions = [r.action for r, _ in rules] + [sheet.otherwise]
    others = [r.action for r, n_ in rules if r.holds(state, n_) and r.action != action]
    near = [*others, *(a for a in dice.sample(actions, len(actions)) if a not in (*others, action))]
    right = {"action": action, "reason": _give_reason(rules, action)}
    told = sheet.tell(state)
    if n % 2:
        dice.shuffle(told)
    numbered = [f"{i}. {r.action}: {r.text.format(n=k)}" for i, (r, k) in enumerate(rules, 1)]
    prompt = "\n".join(
        [
            f"Sheet of the {sheet.role}. Go through it from the top; the first line that holds decides.",
            *numbered,
            f"If none holds: {sheet.otherwise}",
            "",
            *told,
            "",
            'Give one JSON object {"action": a word of the sheet, "reason": a few words}. No other text.',
        ]
    )
    return draft(
        "patrol-decision",
        sheet.role,
        f"{sheet.role}-sheet",
        "hard" if several else "medium" if holding >= 2 or n % 2 else "easy",
        prompt,
        CheckSpec(
            "json_decision",
            {
                "required": ["action", "reason"],
                "allowed": {"action": sorted(actions)},
                "expect": {"action": action},
            },
        ),
        json.dumps(right),
        (
            *(json.dumps({**right, "action": a}) for a in near[:3]),
            json.dumps({"action": action}),
            f"I go through the sheet.\n{json.dumps(right)}",
        ),
    )


def _draw_rules(dice: random.Random, sheet: Sheet, count: int) -> list[tuple[Rule, int]]:
    fixed, rest = sheet.rules[: sheet.always], sheet.rules[sheet.always :]
    rules = [*fixed, *dice.sample(rest, count - len(fixed))]
    dice.shuffle(rules)
    return [(r, dice.choice(r.numbers)) for r in rules]


def _give_reason(rules: Sequence[tuple[Rule, int]], action: str) -> str:
    for i, (rule, _) in enumerate(rules, 1):
        if rule.action == action:
            return f"line {i} is the first that holds"
    return "no line holds"
