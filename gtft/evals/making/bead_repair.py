"""Bead repair: a command that bd refused, or that bd took and that came out wrong → the one that puts it right."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence

from gtft.evals.checks.bead import State
from gtft.evals.item import CheckSpec
from gtft.evals.making.bead_creation import expect, fence, make_state, write_create, write_line
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import POLECATS, draw_fault, draw_id, draw_rigs, draw_wish

CAPABILITY = "bead-repair"
ROLES = ("mayor", "crew", "witness", "polecat")
_CREATE_FORM = (
    "Answer with the bd create command as it should have been, alone in a bash fence. Keep everything else as it "
    "was meant; add no field."
)
_UPDATE_FORM = "Answer with one bd update command, alone in a bash fence. Change nothing that is right already."
_WORDS = {"urgent": 0, "high": 1, "normal": 2, "low": 3, "someday": 4}
_STATUSES = (
    ("in-progress", "in_progress", "work on it has begun"),
    ("done", "closed", "it is finished"),
    ("todo", "open", "nobody works on it any more and anybody may take it"),
    ("on-hold", "deferred", "it is put off until spring"),
    ("stuck", "blocked", "it waits for something outside"),
)
_STATUS_LIST = "open, in_progress, blocked, deferred, closed, pinned, hooked"
# What was typed → what bd calls it, and why that is meant.
_TYPES = (
    ("Bug", "bug", "Something that worked is broken."),
    ("FEATURE", "feature", "It asks for something new."),
    ("Epic", "epic", "It is a body of work with children."),
    ("defect", "bug", "Something that worked is broken."),
    ("improvement", "feature", "It asks for something new."),
    ("housekeeping", "chore", "It is upkeep, nothing new and nothing broken."),
)


def make(dice: random.Random) -> Iterator[Made]:
    for word in _WORDS:
        yield _make_priority(dice, word)
    for typed in _TYPES:
        yield _make_type(dice, *typed)
    for status in _STATUSES:
        yield _make_status(dice, *status)
    for n in range(5):
        yield _make_estimate(dice, n)
    for n in range(10):
        yield _make_flag(dice, n)
    for n in range(4):
        yield _make_two_titles(dice, n)
    for n in range(5):
        yield _make_unquoted(dice, n)
    for _ in range(4):
        yield _make_label(dice)
    for _ in range(4):
        yield _make_lost_labels(dice)
    for _ in range(4):
        yield _make_reversed(dice)


def _refused(command: Sequence[str], message: str) -> str:
    return f"This was typed:\n{write_line(command)}\nbd answered: {message}\n"


def _change(before: dict[str, State], bead: str, state: State) -> CheckSpec:
    return CheckSpec("bead_state", {"before": before, "after": {**before, bead: state}})


def _make_priority(dice: random.Random, word: str) -> Made:
    (rig,) = draw_rigs(dice, 1)
    title, label, level = draw_fault(dice), f"rig:{rig.name}", _WORDS[word]
    typed = ["bd", "create", f"--title={title}", "-t", "bug", "-p", word, "-l", label]
    legend = ", ".join(f"{k} is {v}" for k, v in _WORDS.items())
    prompt = (
        _refused(
            typed,
            f'invalid priority "{word}" (expected 0-4 or P0-P4, not words like high/medium/low)',
        )
        + f"People here say words for priorities: {legend}.\n{_CREATE_FORM}"
    )
    right = write_create(title, "bug", level, "-l", label)
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-priority",
        "easy",
        prompt,
        expect(make_state(title, "bug", level, [label])),
        fence(*right),
        (
            fence(*typed),
            fence(*write_create(title, "bug", (level + 1) % 5, "-l", label)),
            fence(*write_create(title, "bug", level)),
            fence(*right, "-a", f"{rig.name}/{dice.choice(POLECATS)}"),
        ),
    )


def _make_type(dice: random.Random, typed: str, kind: str, why: str) -> Made:
    (rig,) = draw_rigs(dice, 1)
    title = draw_fault(dice) if kind == "bug" else draw_wish(dice)
    label, level = f"rig:{rig.name}", dice.randrange(5)
    wrong = write_create(title, typed, level, "-l", label)
    prompt = (
        _refused(wrong, f"validation failed for issue : invalid issue type: {typed}")
        + f"{why} The types are bug, feature, task, epic, chore and decision.\n{_CREATE_FORM}"
    )
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-type",
        "easy",
        prompt,
        expect(make_state(title, kind, level, [label])),
        fence(*write_create(title, kind, level, "-l", label)),
        (
            fence(*wrong),
            fence("bd", "create", f"--title={title}", "-p", str(level), "-l", label),
            fence(*write_create(title, kind, level)),
            fence(*write_create(title.upper(), kind, level, "-l", label)),
        ),
    )


def _make_status(dice: random.Random, typed: str, status: str, why: str) -> Made:
    (rig,) = draw_rigs(dice, 1)
    bead = draw_id(dice, rig.prefix)
    first = "open" if status == "in_progress" else "in_progress"
    state = make_state(draw_fault(dice), "bug", dice.randrange(5), [f"rig:{rig.name}"]) | {
        "status": first
    }
    wrong = ["bd", "update", bead, "--status", typed]
    prompt = (
        _refused(wrong, f'invalid status "{typed}" (built-in: {_STATUS_LIST})')
        + f"{bead} is {first}; what has to be recorded: {why}.\n{_UPDATE_FORM}"
    )
    other = dice.choice([s for s in ("pinned", "hooked") if s != status])
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-status",
        "easy",
        prompt,
        _change({bead: state}, bead, state | {"status": status}),
        fence("bd", "update", bead, "--status", status),
        (
            fence(*wrong),
            fence("bd", "update", bead, "--status", other),
            fence("bd", "update", draw_id(dice, rig.prefix, 4), "--status", status),
            fence("bd", "update", "--status", status),
            fence("bd", "update", bead, "--status", status, "-p", str((state["priority"] + 1) % 5)),
        ),
    )


def _make_estimate(dice: random.Random, n: int) -> Made:
    (rig,) = draw_rigs(dice, 1)
    shown, minutes = (("2h", 120), ("1h30m", 90), ("45m", 45), ("half a day", 240), ("1.5h", 90))[n]
    note = " Half a day is four hours." if "day" in shown else ""
    title, label, level = draw_wish(dice), f"rig:{rig.name}", dice.randrange(5)
    base = write_create(title, "feature", level, "-l", label)
    prompt = (
        _refused(
            [*base, "-e", shown],
            f'invalid argument "{shown}" for "-e, --estimate" flag: strconv.ParseInt: parsing '
            f'"{shown}": invalid syntax',
        )
        + f"bd counts in whole minutes.{note}\n{_CREATE_FORM}"
    )
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-estimate",
        "medium",
        prompt,
        expect(make_state(title, "feature", level, [label], estimate=minutes)),
        fence(*base, "-e", str(minutes)),
        (
            fence(*base, "-e", shown),
            fence(*base),
            fence(*base, "-e", str(minutes + 30)),
            fence(*base, "-e", f"{minutes}m"),
        ),
    )


def _make_flag(dice: random.Random, n: int) -> Made:
    """A flag that bd does not have."""
    (rig,) = draw_rigs(dice, 1, dashed=n % 2)
    title, label, level = draw_fault(dice), f"rig:{rig.name}", dice.randrange(5)
    other, who = draw_id(dice, rig.prefix), f"{rig.name}/{dice.choice(POLECATS)}"
    base = write_create(title, "bug", level, "-l", label)
    bead = {other: make_state(draw_wish(dice), "task", 2, [label])}
    wrong, right, more, near = (
        (["--assign", who], ["--assignee", who], {"assignee": who}, ["--owner", who]),
        (
            ["--depends-on", other],
            ["--deps", other],
            {"links": [["blocks", other]]},
            ["--deps", f"blocks:{other}"],
        ),
        (["--minutes", "40"], ["--estimate", "40"], {"estimate": 40}, ["--time", "40"]),
        (["--under", other], ["--parent", other], {"parent": other}, ["--deps", other]),
        (
            ["--found-in", other],
            ["--deps", f"discovered-from:{other}"],
            {"links": [["discovered-from", other]]},
            ["--deps", other],
        ),
    )[n % 5]
    meant = (
        f"{who} is to have it.",
        f"The new bead needs {other}.",
        "It takes 40 minutes.",
        f"It is a child of {other}, which has the same label.",
        f"It is to be linked to {other} as discovered from it.",
    )[n % 5]
    prompt = (
        _refused([*base, *wrong], f"Error: unknown flag: {wrong[0]}")
        + f"What was meant: {meant} "
        + f"bd create has, among others, --assignee, --deps, --estimate and --parent.\n{_CREATE_FORM}"
    )
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-flag",
        "medium",
        prompt,
        expect(make_state(title, "bug", level, [label], **more), bead),
        fence(*base, *right),
        (
            fence(*base, *wrong),
            fence(*base),
            fence(*base, *near),
            fence(*write_create(title, "bug", (level + 2) % 5, "-l", label), *right),
        ),
    )


def _make_two_titles(dice: random.Random, n: int) -> Made:
    (rig,) = draw_rigs(dice, 1)
    title, label, level = draw_fault(dice), f"rig:{rig.name}", dice.randrange(5)
    short = title.rsplit(" ", 2)[0]
    first, second = (short, title) if n % 2 else (title, short)
    wrong = [*write_create(second, "bug", level, "-l", label), first]
    prompt = (
        _refused(
            wrong,
            "cannot specify different titles as both positional argument and --title flag "
            f'(positional: "{first}", --title: "{second}")',
        )
        + f"The longer one is meant.\n{_CREATE_FORM}"
    )
    right = write_create(title, "bug", level, "-l", label)
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-titles",
        "medium",
        prompt,
        expect(make_state(title, "bug", level, [label])),
        fence(*right),
        (
            fence(*wrong),
            fence(*write_create(short, "bug", level, "-l", label)),
            fence(*write_create(title, "bug", level)),
            fence(*right) + "\n" + fence(*write_create(short, "bug", level, "-l", label)),
        ),
    )


def _show(bead: str, state: State) -> str:
    row = {"id": bead, **{"issue_type" if k == "type" else k: v for k, v in state.items()}}
    return f"bd show {bead} --json tells: {json.dumps(row)}\n"


def _make_unquoted(dice: random.Random, n: int) -> Made:
    (rig,) = draw_rigs(dice, 1)
    bead, title, label = draw_id(dice, rig.prefix), draw_fault(dice), f"rig:{rig.name}"
    state = make_state(title.split()[0], "bug", 1 + n % 3, [label])
    typed = f"bd create {title} -t bug -p {state['priority']} -l {label}"
    prompt = (
        f"This was typed, without quotes:\n{typed}\n{_show(bead, state)}The title should be all the words that "
        f"were typed between create and -t.\n{_UPDATE_FORM}"
    )
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-unquoted",
        "medium",
        prompt,
        _change({bead: state}, bead, state | {"title": title}),
        fence("bd", "update", bead, f"--title={title}"),
        (
            fence("bd", "update", bead, "--title", *title.split()),
            fence("bd", "update", bead, f"--title={title.rsplit(' ', 1)[0]}"),
            fence("bd", "update", draw_id(dice, rig.prefix, 4), f"--title={title}"),
            fence("bd", "update", bead, f"--title={title}", "--set-labels", "bug"),
            fence(*write_create(title, "bug", int(state["priority"]), "-l", label)),
        ),
    )


def _make_label(dice: random.Random) -> Made:
    rig, other = draw_rigs(dice, 2)
    bead, area = draw_id(dice, rig.prefix), f"area:{dice.choice(('ui', 'api', 'docs'))}"
    spoilt = dice.choice((f"rig={rig.name}", f"rig:{other.name}", f"Rig:{rig.name}"))
    label = f"rig:{rig.name}"
    state = make_state(draw_fault(dice), "bug", dice.randrange(5), [spoilt, area])
    prompt = (
        f"Every bead carries exactly one label of the form rig:<name of its rig>. {bead} is a bead of "
        f"{rig.name}.\n{_show(bead, state)}Mend the label; the area stays.\n{_UPDATE_FORM}"
    )
    right = ["bd", "update", bead, "--remove-label", spoilt, "--add-label", label]
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-label",
        "hard",
        prompt,
        _change({bead: state}, bead, state | {"labels": sorted([label, area])}),
        fence(*right),
        (
            fence("bd", "update", bead, "--add-label", label),
            fence("bd", "update", bead, "--remove-label", spoilt),
            fence("bd", "update", bead, "--set-labels", label),
            fence("bd", "update", bead, "--labels", f"{label},{area}"),
        ),
    )


def _make_lost_labels(dice: random.Random) -> Made:
    (rig,) = draw_rigs(dice, 1)
    bead, new = draw_id(dice, rig.prefix), f"wave:{dice.randint(2, 9)}"
    old = sorted([f"rig:{rig.name}", dice.choice(("gt:keep", "area:api", "size:s")), "needs-docs"])
    state = make_state(draw_wish(dice), "feature", dice.randrange(5), [new])
    prompt = (
        f"{bead} had the labels {', '.join(old)}. To give it {new} as well, this was typed:\nbd update {bead} "
        f"--set-labels {new}\nThat replaced them all. {_show(bead, state)}It should have its old labels and the "
        f"new one.\n{_UPDATE_FORM}"
    )
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-lost-labels",
        "hard",
        prompt,
        _change({bead: state}, bead, state | {"labels": sorted([*old, new])}),
        fence("bd", "update", bead, "--add-label", ",".join(old)),
        (
            fence("bd", "update", bead, "--set-labels", ",".join(old)),
            fence("bd", "update", bead, "--add-label", ",".join(old[:2])),
            fence("bd", "update", bead, "--add-label", " ".join(old)),
            fence("bd", "update", bead, "--add-label", *old),
        ),
    )


def _make_reversed(dice: random.Random) -> Made:
    (rig,) = draw_rigs(dice, 1, dashed=1)
    other, title, label = draw_id(dice, rig.prefix), draw_wish(dice), f"rig:{rig.name}"
    level = dice.randrange(5)
    base = write_create(title, "feature", level, "-l", label)
    before = {other: make_state(draw_fault(dice), "bug", 1, [label])}
    wrong = [*base, "--deps", f"blocks:{other}"]
    prompt = (
        f"About to be run:\n{write_line(wrong)}\nIn --deps, blocks:X says that the new bead blocks X; an id without a "
        f"word before it says that the new bead needs X. Here the new bead cannot start before {other} is "
        f"closed.\n{_CREATE_FORM}"
    )
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "repair-direction",
        "hard",
        prompt,
        expect(make_state(title, "feature", level, [label], links=[["blocks", other]]), before),
        fence(*base, "--deps", other),
        (
            fence(*wrong),
            fence(*base, "--parent", other),
            fence(*base, "--deps", f"related:{other}"),
            fence(*base),
            fence(*base, "--deps", other) + "\n" + fence("bd", "dep", "add", other, title),
        ),
    )
