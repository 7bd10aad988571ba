"""Items on planning: a goal with stated parts and constraints, as a hierarchy that runs as parallel as it may."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from gtft.evals.checks.plan import close_over, measure_path, measure_width
from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft

CAPABILITY = "planning"
_FORM = (
    'Answer with one JSON object and nothing else: {"epics": {id: parent epic or null}, "tasks": {id: {"parent": '
    'epic, "needs": [task ids]}}}. Needs are between tasks only. Nothing may wait without a stated cause.'
)
# epic | what it is for | parts, in two halves: id:what
_GOALS = (
    ("bakery-site", "a web shop for a bakery", "photos:photographs of the bread, prices:the price list, "
     "texts:the texts", "pages:the pages, basket:the basket, payment:the payment"),
    ("tide-app", "an app that shows the tides", "gauges:reading the gauges, curve:the tide curve, places:the list of "
     "harbours", "screen:the screen, alarm:the alarm, widget:the widget"),
    ("choir-tour", "a booking tool for a choir's tour", "halls:the table of halls, dates:the dates, fares:the fares",
     "seats:seat choice, tickets:ticket print, refunds:refunds"),
    ("herb-wiki", "a wiki of herbs", "names:the names, drawings:the drawings, uses:the uses", "search:the search, "
     "glossary:the glossary, export:the export"),
    ("tram-board", "departure boards for the tram", "timetable:the timetable, delays:the delays, stops:the stops",
     "display:the display, voice:the voice, web:the web view"),
    ("meter-swap", "new readings for the water meters", "radio:the radio link, codec:the codec, keys:the keys",
     "collector:the collector, bills:the bills, alerts:leak alerts"),
    ("puzzle-club", "a site for a puzzle club", "grids:the grids, clues:the clues, scores:the scores", "solver:the "
     "solver, ranking:the ranking, mails:the weekly mail"),
    ("hive-log", "a log for bee hives", "scale:the scale, thermometer:the thermometer, camera:the camera",
     "chart:the chart, warning:the warning, diary:the diary"),
)  # fmt: skip
_LAST = (
    ("release", "the release"),
    ("trial", "a trial week"),
    ("audit", "an audit"),
    ("launch", "the launch"),
)

Before = list[tuple[str, str]]


def make(dice: random.Random) -> Iterator[Made]:
    for number in range(8):
        yield _side_by_side(dice, number)
    for number in range(12):
        yield _stated(dice, number)
    for number in range(8):
        yield _two_halves(dice, number)
    for number in range(8):
        yield _each_its_own(dice, number)
    for number in range(8):
        yield _gate_between(dice, number)


def _read(number: int) -> tuple[str, str, dict[str, str], dict[str, str]]:
    epic, purpose, first, second = _GOALS[number % len(_GOALS)]
    halves = [dict(p.split(":") for p in half.split(", ")) for half in (first, second)]
    return epic, purpose, halves[0], halves[1]


def write_plan(epics: dict[str, str | None], parents: dict[str, str], before: Before) -> str:
    """The plan with exactly these needs."""
    tasks = {
        t: {"parent": e, "needs": [a for a, b in before if b == t]} for t, e in parents.items()
    }
    return json.dumps({"epics": epics, "tasks": tasks})


def _list(parts: dict[str, str]) -> str:
    return ", ".join(f"{id} ({what})" for id, what in parts.items())


def _draft(
    template: str, difficulty: str, prompt: str, epics: dict[str, str | None], parents: dict[str, str],
    before: Before,
) -> Made:  # fmt: skip
    args: dict[str, Any] = {"epics": epics, "parents": parents, "before": [list(e) for e in before]}
    needs = {t: [a for a, b in before if b == t] for t in parents}
    reach = close_over(needs)
    free = [
        (a, b) for a in parents for b in parents
        if a != b and a not in reach[b] and b not in reach[a]
    ]  # fmt: skip
    misses = [
        write_plan(epics, parents, [*before, free[0]]),
        write_plan(epics, parents, [*before, free[-1]]),
        write_plan(epics, dict(list(parents.items())[1:]), [e for e in before if next(iter(parents)) not in e]),
        write_plan({**epics, "later": None}, parents, before),
        "Here is the plan: " + write_plan(epics, parents, before),
    ]  # fmt: skip
    if before:
        a, b = before[-1]
        misses[1:1] = [
            write_plan(epics, parents, before[:-1]),
            write_plan(epics, parents, [*before[:-1], (b, a)]),
        ]
    elif measure_path(needs) == 1:
        chain = list(zip(parents, list(parents)[1:], strict=False))
        misses.insert(1, write_plan(epics, parents, chain))
    return draft(
        CAPABILITY, "mayor" if difficulty == "hard" else None, template, difficulty, f"{prompt}\n{_FORM}",
        CheckSpec("plan_valid", args), write_plan(epics, parents, before), tuple(misses[:5]),
    )  # fmt: skip


def _one_epic(epic: str, parts: Sequence[str]) -> tuple[dict[str, str | None], dict[str, str]]:
    return {epic: None}, dict.fromkeys(parts, epic)


def _side_by_side(dice: random.Random, number: int) -> Made:
    epic, purpose, first, second = _read(number)
    parts = dict(dice.sample([*first.items(), *second.items()], 3 + number % 2))
    before: Before = []
    said = "None of them needs another."
    if number % 2:
        end, what = dice.choice(_LAST)
        before = [(p, end) for p in parts]
        parts[end] = what
        said = f"{end} comes after all the others; the others are independent of each other."
    prompt = f"Plan {purpose} as one epic, {epic}, with the tasks {_list(parts)}. {said}"
    return _draft("side-by-side", "easy", prompt, *_one_epic(epic, list(parts)), before)


_ORDER = ("{b} can only begin when {a} is there.", "{a} has to be finished before {b}.", "{b} builds on {a}.")  # fmt: skip


def _stated(dice: random.Random, number: int) -> Made:
    epic, purpose, first, second = _read(number)
    parts = dict(dice.sample([*first.items(), *second.items()], 4 + number % 3))
    order = list(parts)
    while True:
        before = [(a, b) for i, b in enumerate(order) for a in order[:i] if dice.random() < 0.35]
        needs = {t: [a for a, b in before if b == t] for t in order}
        reach = close_over(needs)
        direct = all(a not in set().union(*(reach[x] for x in needs[b])) for a, b in before)
        if direct and 1 < len(before) <= 5 and measure_width(reach) > 1 and measure_path(needs) > 2:
            break
    said = " ".join(
        dice.choice(_ORDER).format(a=a, b=b) for a, b in dice.sample(before, len(before))
    )
    listed = _list({k: parts[k] for k in dice.sample(order, len(order))})
    prompt = (
        f"{purpose[0].upper()}{purpose[1:]} is wanted: epic {epic}, tasks {listed}. {said} Everything else is "
        "independent."
    )
    grade = "medium" if len(parts) < 6 else "hard"
    return _draft("stated-order", grade, prompt, *_one_epic(epic, order), before)


def _two_halves(dice: random.Random, number: int) -> Made:
    epic, purpose, first, second = _read(number)
    a, b = (
        dict(dice.sample([*first.items()], 2)),
        dict(dice.sample([*second.items()], 2 + number % 2)),
    )
    before = [(x, y) for y in b for x in a]
    prompt = (
        f"Make a plan for {purpose}. Epic: {epic}. First the groundwork: {_list(a)}. Then the rest: {_list(b)}. No task "
        "of the rest begins before all the groundwork is done. Within the groundwork, and within the rest, nothing "
        "depends on anything."
    )
    return _draft("two-halves", "medium", prompt, *_one_epic(epic, [*a, *b]), before)


def _each_its_own(dice: random.Random, number: int) -> Made:
    epic, purpose, first, second = _read(number)
    a, b = dict(dice.sample([*first.items()], 2)), dict(dice.sample([*second.items()], 2))
    base, front = f"{epic}-base", f"{epic}-front"
    end, what = dice.choice(_LAST)
    x, y = dice.choice(list(a)), dice.choice(list(b))
    epics: dict[str, str | None] = {epic: None, base: epic, front: epic}
    parents = {**dict.fromkeys(a, base), **dict.fromkeys(b, front), end: epic}
    before = [(x, y), *((p, end) for p in (*a, *b) if p != x)]
    prompt = (
        f"For {purpose}: epic {epic} with two epics below it, {base} with the tasks {_list(a)} and {front} with the tasks "
        f"{_list(b)}; {end} ({what}) is a task directly below {epic}. {y} uses what {x} makes. {end} comes when all the "
        "other tasks are done. The rest can be worked on at the same time."
    )
    return _draft("epics-below", "hard", prompt, epics, parents, before)


def _gate_between(dice: random.Random, number: int) -> Made:
    epic, purpose, first, second = _read(number)
    a, b = dict(dice.sample([*first.items()], 2)), dict(dice.sample([*second.items()], 2))
    free, what = dice.choice([(k, v) for k, v in second.items() if k not in b])
    gate = ("sign-off", "the customer's yes")
    before = [*((x, gate[0]) for x in a), *((gate[0], y) for y in b)]
    parents = dict.fromkeys((*a, gate[0], *b, free), epic)
    prompt = (
        f"Order of work for {purpose} (epic {epic}): {_list(a)} are prepared at the same time and shown to the customer. "
        f"{gate[0]} ({gate[1]}) is a task of its own and needs both. Only after it come {_list(b)}, side by side. {free} "
        f"({what}) has to do with none of them and can be done at any time."
    )
    return _draft("gate-between", "hard", prompt, {epic: None}, parents, before)
