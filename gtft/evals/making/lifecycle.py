"""Items on a bead's life: what a row of bd commands leaves, which are refused, and the command that is due."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from gtft.evals.checks.lifecycle import Bead, Beads, Refused, run_command, run_commands
from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import POLECATS, THINGS, Rig, draw_ids, draw_rigs

CAPABILITY = "lifecycle"
LEAST_REASON = 20
_OBJECT = "Answer with one JSON object and nothing else: {}"
_COMMAND = "Answer with the one bd command that does it, and nothing else."
# Kept by all: outcomes in plain words, none of which bd reads as a failure.
_REASONS = (
    "merged as part of release 4, all tests pass",
    "finished: the new page is live and was looked at",
    "done in three commits, criteria ticked off",
    "result handed to the crew and accepted by them",
)


def make(dice: random.Random) -> Iterator[Made]:
    for size, steps in (
        (3, 1),
        (3, 2),
        (3, 2),
        (4, 2),
        (4, 3),
        (5, 3),
        (5, 3),
        (5, 4),
        (6, 4),
        (6, 5),
    ):
        yield _after(dice, size, steps)
    for size, steps in ((3, 3), (3, 3), (3, 4), (4, 4), (4, 4), (4, 5), (4, 5), (5, 6)):
        yield _refused(dice, size, steps)
    for number in range(2 * len(_MOVES)):
        yield _one_move(dice, *_MOVES[number % len(_MOVES)])
    for kind in ("molecule", "epic") * 4:
        yield _closes_what(dice, kind)
    for length in (2, 2, 3, 3):
        yield _chain(dice, length)
    for number in range(8):
        yield _who_holds(dice, 2 + number // 2)


def _people(dice: random.Random, rig: Rig, count: int) -> list[str]:
    return [f"{rig.name}/polecats/{p}" for p in dice.sample(POLECATS, count)]


def _words(command: str) -> list[str]:
    """A drawn command as words; drawn ones have one quoted text at most, at the end."""
    plain, _, text = command.partition('"')
    return [*plain.split(), text.rstrip('"')] if text else plain.split()


def _table(beads: Beads) -> str:
    lines = []
    for id, bead in beads.rows.items():
        text = f"{id}: {bead.status}"
        text += f", {bead.kind}" if bead.kind != "task" else ""
        text += f", child of {bead.parent}" if bead.parent else ""
        text += f", held by {bead.assignee}" if bead.assignee else ""
        needs = sorted(b for a, b in beads.needs if a == id)
        lines.append(text + (f", needs {' and '.join(needs)}" if needs else ""))
    return "\n".join(lines)


def _list(commands: Sequence[str]) -> str:
    return "\n".join(f"{n}. {c}" for n, c in enumerate(commands, start=1))


def _draw_beads(dice: random.Random, ids: Sequence[str], me: str, other: str) -> Beads:
    rows = {}
    for id in ids:
        status = dice.choice(("open", "open", "open", "in_progress", "closed", "deferred"))
        holder = dice.choice((me, other)) if status == "in_progress" else ""
        rows[id] = Bead(status=status, assignee=holder)
    needs = {
        (a, b) for i, a in enumerate(ids) for b in ids[:i]
        if dice.random() < 0.5 and (rows[a].status != "closed" or rows[b].status == "closed")
    }  # fmt: skip
    return Beads(rows, frozenset(needs))


def _draw_commands(dice: random.Random, ids: Sequence[str], count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        a, b = dice.sample(list(ids), 2)
        command = dice.choice((
            f'bd close {a} --reason "{_REASONS[0]}"', f'bd close {a} --reason "{_REASONS[2]}"',
            f"bd update {a} --claim", f"bd dep add {a} {b}", f"bd dep remove {a} {b}",
            f'bd reopen {a} --reason "seen again"', f"bd defer {a} --until=+2d", f"bd undefer {a}",
        ))  # fmt: skip
        if command not in found:
            found.append(command)
    return found


def _run(beads: Beads, commands: Sequence[str], actor: str) -> tuple[Beads, list[int]]:
    return run_commands(beads, [_words(c) for c in commands], actor)


def _is_lively(beads: Beads, rows: Sequence[tuple[str, str]]) -> bool:
    """Whether each (actor, command) is refused or changes something: what does nothing asks nothing."""
    for actor, command in rows:
        words = _words(command)
        status = beads.rows[words[2]].status if words[1] != "dep" else ""
        if (words[1] == "defer" and status != "open") or (words[1], status) == ("close", "closed"):
            return False
        try:
            after = run_command(beads, words, actor)
        except Refused:
            continue
        if after == beads:
            return False
        beads = after
    return True


def _say(doc: dict[str, Any]) -> str:
    return json.dumps(doc)


def _after(dice: random.Random, size: int, steps: int) -> Made:
    rig = draw_rigs(dice, 1)[0]
    me, other = _people(dice, rig, 2)
    ids = draw_ids(dice, rig.prefix, size)
    while True:
        start = _draw_beads(dice, ids, me, other)
        commands = _draw_commands(dice, ids, steps)
        end, refused = _run(start, commands, me)
        before = {"ready": start.ready(), "blocked": start.blocked()}
        right = {"ready": end.ready(), "blocked": end.blocked()}
        if not _is_lively(start, [(me, c) for c in commands]):
            continue
        if not refused and right != before and right["ready"] and right["blocked"]:
            break
    prompt = (
        f"Beads of {rig.name}:\n{_table(start)}\n{me} runs, and none is refused:\n{_list(commands)}\n"
        'Afterwards, "ready": what `bd ready` lists. "blocked": the ids that are neither closed nor pinned and '
        "still need something that is not done. "
        + _OBJECT.format('{"ready": [ids], "blocked": [ids]}')
    )
    ready, blocked = right["ready"], right["blocked"]
    misses = (
        _say(before),
        _say({"ready": ready, "blocked": blocked[1:]}),
        _say({"ready": [*ready, *end.closed(), "none"], "blocked": blocked}),
        _say({"ready": blocked, "blocked": ready}),
        f"After that:\n{_say(right)}",
    )
    return draft(
        CAPABILITY, None, "after-commands", _grade(steps, 2, 4), prompt,
        CheckSpec("state_object", {"expect": right}), _say(right), misses,
    )  # fmt: skip


def _refused(dice: random.Random, size: int, steps: int) -> Made:
    rig = draw_rigs(dice, 1)[0]
    me, other = _people(dice, rig, 2)
    ids = draw_ids(dice, rig.prefix, size)
    while True:
        start = _draw_beads(dice, ids, me, other)
        commands = _draw_commands(dice, ids, steps)
        end, refused = _run(start, commands, me)
        if not _is_lively(start, [(me, c) for c in commands]):
            continue
        if 0 < len(refused) < steps and end.closed() != start.closed():
            break
    prompt = (
        f"State of {rig.name}:\n{_table(start)}\n{me} types these commands, one after the other; a refused one "
        f'changes nothing and the next is tried all the same:\n{_list(commands)}\n"refused": the numbers of those '
        'that bd refuses. "closed": all ids that are closed at the end. '
        + _OBJECT.format('{"refused": [numbers], "closed": [ids]}')
    )
    right = {"refused": refused, "closed": end.closed()}
    rest = [n for n in range(1, steps + 1) if n not in refused]
    misses = (
        _say({**right, "refused": rest}),
        _say({**right, "refused": []}),
        _say({**right, "closed": [*end.closed(), "all"]}),
        _say({**right, "refused": [str(n) for n in refused]}),
    )
    return draft(
        CAPABILITY, "polecat", "which-refused", _grade(steps, 3, 4), prompt,
        CheckSpec("state_object", {"expect": right}), _say(right), misses,
    )  # fmt: skip


def _grade(number: int, easy: int, medium: int) -> str:
    return "easy" if number <= easy else "medium" if number <= medium else "hard"


# Name, wish, state of the bead before, whether I hold it, the right command.
_Move = tuple[str, str, str, bool, str]
_MOVES: tuple[_Move, ...] = (
    ("claim", "You are {me}. Take {id} ({thing}) so that no other worker can get it too.", "open", False,
     "bd update {id} --claim"),
    ("start", "You are {me}, and {id} ({thing}) was slung to you. Show that you are working on it now.", "hooked",
     True, "bd update {id} --status in_progress"),
    ("close", "You are {me}. {id} ({thing}) is merged and every criterion is met. Finish it. The reason must have at "
     "least 20 characters and must not read as a failure.", "in_progress", True,
     'bd close {id} --reason "{reason}"'),
    ("give-up", "You are {me}. {id} ({thing}) cannot be done: the supplier shut its service down. Close it so that bd "
     "reads the reason as a failure; at least 20 characters.", "in_progress", True,
     'bd close {id} --reason "failed: the supplier shut its service down"'),
    ("reopen", "{id} ({thing}) was closed on Monday and the fault is back today. Make it work to be done again.",
     "closed", False, "bd reopen {id}"),
    ("put-off", "{id} ({thing}) must not turn up among the ready beads for now: the customer decides next week. It "
     "is not to be closed.", "open", False, "bd defer {id}"),
    ("wake", "{id} ({thing}) was put off until the customer had decided. That has happened: anybody may take it now.",
     "deferred", False, "bd undefer {id}"),
    ("hand-back", "You are {me} and hold {id} ({thing}), but you have to stop. Give it back in one command: open, held "
     "by nobody.", "in_progress", True, 'bd update {id} --status open --assignee ""'),
)  # fmt: skip


def _one_move(
    dice: random.Random, name: str, wish: str, status: str, mine: bool, command: str
) -> Made:
    rig = draw_rigs(dice, 1)[0]
    me, other = _people(dice, rig, 2)
    id, second = draw_ids(dice, rig.prefix, 2)
    holder = me if mine else ""
    outcome = "success" if status == "closed" else ""
    rows = {
        id: Bead(status, holder, outcome=outcome),
        second: Bead("in_progress", other),
    }
    start = Beads(rows)
    right = command.format(id=id, reason=dice.choice(_REASONS))
    goal = run_command(start, _words(right), me)
    prompt = (
        f"{rig.name}, two beads:\n{_table(start)}\n"
        f"{wish.format(me=me, id=id, thing=dice.choice(THINGS))} {_COMMAND}"
    )
    args = {
        **start.to_json(),
        "actor": me,
        "goal": goal.to_json(),
        "most": 1,
        "reason": LEAST_REASON,
    }
    wrong = {
        "claim": f"bd update {id} --status in_progress",
        "start": f"bd update {id} --claim",
        "close": f"bd close {id} --reason done",
        "give-up": f'bd close {id} --reason "the supplier shut its service down"',
        "reopen": f"bd undefer {id}",
        "put-off": f'bd close {id} --reason "the customer decides next week"',
        "wake": f"bd reopen {id}",
        "hand-back": f"bd update {id} --status open",
    }[name]
    misses = (
        wrong,
        right.replace(id, second),
        f"{right}\n{right}",
        f"{right} --force",
        f"I would run: {right}",
        f"bd {name} {id} --now",
    )
    return draft(
        CAPABILITY, "polecat" if "{me}" in wish else None, f"move-{name}", "medium" if name in ("give-up", "hand-back") else "easy", prompt,
        CheckSpec("bead_moves", args), right, misses,
    )  # fmt: skip


def _closes_what(dice: random.Random, kind: str) -> Made:
    rig = draw_rigs(dice, 1)[0]
    me = _people(dice, rig, 1)[0]
    root, other = draw_ids(dice, rig.prefix, 2)
    count = dice.randint(2, 4)
    left = dice.randint(1, count)
    rows = {root: Bead(kind=kind)}
    for n in range(1, count + 1):
        rows[f"{root}.{n}"] = Bead("open" if n > count - left else "closed", parent=root)
    rows[other] = Bead(kind="epic" if kind == "epic" else "task")
    start = Beads(rows, frozenset({(other, root)}))
    children = [i for i in rows if i.startswith(f"{root}.") and rows[i].status == "open"]
    done = dice.random() < 0.7
    closing = children if done else children[:-1]
    commands = [f'bd close {c} --reason "{_REASONS[2]}"' for c in closing]
    commands.append(f'bd close {other} --reason "{_REASONS[0]}"')
    end, _ = _run(start, commands, me)
    prompt = (
        f"Beads of {rig.name} ({root} is of type {kind}):\n{_table(start)}\nThese are run in turn, and some may be "
        f'refused:\n{_list(commands)}\nThen, "root": the status of {root}. "closed": every id that is closed. '
        + _OBJECT.format('{"root": status, "closed": [ids]}')
    )
    right = {"root": end.rows[root].status, "closed": end.closed()}
    flipped = "open" if right["root"] == "closed" else "closed"
    toggled = sorted({*end.closed()} ^ {root, other})
    misses = (
        _say({"root": flipped, "closed": right["closed"]}),
        _say({"root": flipped, "closed": toggled}),
        _say({"root": right["root"], "closed": toggled}),
        _say({"root": "done", "closed": right["closed"]}),
    )
    return draft(
        CAPABILITY, None, "closes-what", _grade(count, 2, 3), prompt,
        CheckSpec("state_object", {"expect": right}), _say(right), misses,
    )  # fmt: skip


def _chain(dice: random.Random, length: int) -> Made:
    rig = draw_rigs(dice, 1)[0]
    me = _people(dice, rig, 1)[0]
    ids = draw_ids(dice, rig.prefix, length + 1)
    order = dice.sample(ids[:length], length)
    rows = {i: Bead("in_progress", me) if i in order else Bead() for i in ids}
    # Each needs the one before it; the last bead of all stays as it is.
    needs = {(b, a) for a, b in pairwise(order)} | {(ids[-1], order[0])}
    start = Beads(rows, frozenset(needs))
    commands = [f'bd close {i} --reason "{dice.choice(_REASONS)}"' for i in order]
    goal, _ = _run(start, commands, me)
    prompt = (
        f"You are {me}. Beads of {rig.name}:\n{_table(start)}\n"
        f"The work of {' and '.join(sorted(order))} is merged. Close them, each by a command of its own, in an order "
        f"that bd accepts without --force, each with a reason of at least {LEAST_REASON} characters that does not "
        "read as a failure. Answer with the bd commands only, one on a line."
    )
    args = {
        **start.to_json(),
        "actor": me,
        "goal": goal.to_json(),
        "most": length,
        "reason": LEAST_REASON,
    }
    right = "\n".join(commands)
    misses = (
        "\n".join(reversed(commands)),
        "\n".join(commands[:-1]),
        "\n".join(c + " --force" for c in reversed(commands)),
        "\n".join([*commands, f'bd close {ids[-1]} --reason "{_REASONS[1]}"']),
        "\n".join(f"bd update {i} --status closed" for i in order),
    )
    return draft(
        CAPABILITY, "polecat", "close-in-order", "medium" if length < 3 else "hard", prompt,
        CheckSpec("bead_moves", args), right, misses,
    )  # fmt: skip


def _who_holds(dice: random.Random, steps: int) -> Made:
    """Several workers, one bead: who holds it at the end."""
    rig = draw_rigs(dice, 1)[0]
    people = _people(dice, rig, 3)
    id = draw_ids(dice, rig.prefix, 1)[0]
    verbs: tuple[Callable[[], str], ...] = (
        lambda: f"bd update {id} --claim",
        lambda: f"bd update {id} --claim",
        lambda: f'bd update {id} --status open --assignee ""',
        lambda: f'bd close {id} --reason "{_REASONS[3]}"',
        lambda: f"bd reopen {id}",
    )
    while True:
        first = dice.choice(people)
        start = Beads(
            {id: dice.choice((Bead(), Bead("in_progress", first), Bead("hooked", first)))}
        )
        rows = [(dice.choice(people), dice.choice(verbs)()) for _ in range(steps)]
        end, refused = start, []
        for number, (who, command) in enumerate(rows, start=1):
            end, no = _run(end, [command], who)
            refused += [number] if no else []
        if refused and end.rows[id].assignee and _is_lively(start, rows):
            break
    bead = end.rows[id]
    listed = "\n".join(f"{n}. {who}: {command}" for n, (who, command) in enumerate(rows, start=1))
    prompt = (
        f"One bead of {rig.name}:\n{_table(start)}\nThree polecats work at it; what bd refuses changes "
        f'nothing:\n{listed}\nAt the end, "status": its status. "holder": its assignee in full. "refused": the numbers '
        "of the refused commands. "
        + _OBJECT.format('{"status": text, "holder": text, "refused": [numbers]}')
    )
    right = {"status": bead.status, "holder": bead.assignee, "refused": refused}
    other = next(p for p in people if p != bead.assignee)
    misses = (
        _say({**right, "holder": other}),
        _say({**right, "refused": [n for n in range(1, steps + 1) if n not in refused]}),
        _say({**right, "status": "deferred"}),
        _say({**right, "holder": bead.assignee.rpartition("/")[2]}),
    )
    return draft(
        CAPABILITY, "witness", "who-holds", _grade(steps, 2, 3), prompt,
        CheckSpec("state_object", {"expect": right}), _say(right), misses,
    )  # fmt: skip
