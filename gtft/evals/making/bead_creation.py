"""Bead creation: facts in words → the one ``bd create`` command that records them and nothing else."""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gtft.evals.checks.bead import NEW, State
from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import (
    POLECATS,
    draw_fault,
    draw_id,
    draw_rigs,
    draw_wish,
)

CAPABILITY = "bead-creation"
ROLES = ("mayor", "crew", "witness", "polecat")
FORM = "Answer with a single bd create command in a bash fence. Set only what is named here, no description."
_CHORES = (
    "renew the certificate of the {}",
    "move the {} to the new region",
    "tidy up the tests of the {}",
)
_OBJECTS = ("status page", "staging box", "mirror", "build cache", "mail relay", "wiki")
# What happened → (priority, what is said). Priorities as the card in the prompt tells them.
_CARD = (
    "0 = data is being lost, 1 = others cannot work, 2 = ordinary, 3 = nice to have, 4 = one day"
)
_SITUATIONS = (
    (0, "Rows vanish from the table while we speak."),
    (0, "Every save destroys the record that was there before."),
    (1, "Four people sit and wait because of it."),
    (1, "Until this is mended no other branch can be built."),
    (2, "Neither pressing nor trivial, to be taken in turn."),
    (2, "It belongs to the normal work of this month."),
    (3, "Pleasant to have, nobody suffers without it."),
    (3, "A small comfort for when there is time."),
    (4, "Some day, perhaps; it is only an idea."),
    (4, "Not this year. It should just not be forgotten."),
)
_FLAGLIKE = (
    "--dry-run deletes the cache all the same",
    "-v prints nothing on Windows",
    "--since takes no weekday",
    "-n 0 lists everything",
    "--quiet still rings the bell",
    "--help wraps at 40 columns",
)


def make(dice: random.Random) -> Iterator[Made]:
    for n in range(16):
        yield _make_stated(dice, n)
    for situation in _SITUATIONS:
        yield _make_judged(dice, *situation)
    for title in _FLAGLIKE:
        yield _make_flaglike(dice, title)
    for n in range(10):
        yield _make_child(dice, keeps=n % 2 == 0)
    for n in range(10):
        yield _make_found(dice, n)


def fence(*words: str) -> str:
    """A command as an answer gives it."""
    return f"```bash\n{write_line(words)}\n```"


def write_line(words: Sequence[str]) -> str:
    """A command line as people write it: ``--title="two words"``."""
    return " ".join(_quote(w) for w in words)


def _quote(word: str) -> str:
    flag, equals, value = word.partition("=")
    if word.startswith("--") and " " not in flag and equals and not set(value) & set('"$`\\!'):
        return f'{flag}="{value}"'
    return shlex.quote(word)


def write_create(title: str, kind: str, priority: int, *more: str) -> list[str]:
    return ["bd", "create", f"--title={title}", "-t", kind, "-p", str(priority), *more]


def make_state(
    title: str, kind: str, priority: int, labels: Sequence[str] = (), **more: Any
) -> State:
    state: State = {"title": title, "type": kind, "priority": priority, "status": "open", **more}
    return state | ({"labels": sorted(labels)} if labels else {})


def expect(new: State, before: Mapping[str, State] | None = None) -> CheckSpec:
    """The check that ``new`` is made beside the beads that are there."""
    beads = dict(before or {})
    return CheckSpec("bead_state", {"before": beads, "after": {**beads, NEW: new}})


def _draw_work(dice: random.Random) -> tuple[str, str]:
    """(type, title)."""
    kind = dice.choice(("bug", "feature", "chore"))
    if kind == "bug":
        return kind, draw_fault(dice)
    if kind == "feature":
        return kind, draw_wish(dice)
    return kind, dice.choice(_CHORES).format(dice.choice(_OBJECTS))


def _other(dice: random.Random, kind: str) -> str:
    return dice.choice([k for k in ("bug", "feature", "chore", "epic") if k != kind])


def _make_stated(dice: random.Random, n: int) -> Made:
    rig, second = draw_rigs(dice, 2)
    kind, title = _draw_work(dice)
    priority = n % 5
    area = dice.choice(("ui", "api", "docs", "build"))
    tells = (
        f"New {kind} for the rig {rig.name}, priority {priority}.\nTitle, letter by letter: {title}\n"
        f"Labels: rig:{rig.name} and area:{area}.",
        f"Please put this into the ledger of {rig.name}.\n- what: {title} (that is the title)\n- type: {kind}\n"
        f"- priority: P{priority}\n- labels: area:{area}, rig:{rig.name}",
        f"title | {title}\ntype | {kind}\npriority | {priority}\nlabels | rig:{rig.name} area:{area}\n"
        "Make one bead from this row.",
    )
    labels = [f"rig:{rig.name}", f"area:{area}"]
    right = write_create(title, kind, priority, "-l", ",".join(labels))
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "creation-stated",
        "easy",
        f"{tells[n % 3]}\n{FORM}",
        expect(make_state(title, kind, priority, labels)),
        fence(*right),
        (
            fence(*write_create(title, kind, (priority + 1) % 5, "-l", ",".join(labels))),
            fence(*write_create(title, _other(dice, kind), priority, "-l", ",".join(labels))),
            fence(*write_create(title, kind, priority, "-l", f"rig:{second.name},area:{area}")),
            fence("bd", "create", *title.split(), *right[3:]),
            fence(*right) + "\n" + fence("bd", "ready"),
        ),
    )


def _make_judged(dice: random.Random, priority: int, words: str) -> Made:
    (rig,) = draw_rigs(dice, 1)
    kind = "feature" if priority > 2 else "bug"
    title = draw_wish(dice) if priority > 2 else draw_fault(dice)
    what = "Somebody wishes for something new" if priority > 2 else "Something is broken"
    label = f"rig:{rig.name}"
    prompt = (
        f"Priorities of this town: {_CARD}. What is broken is a bug, what is new is a feature. Every bead "
        f"carries one label, rig:<its rig>.\n{what} in {rig.name}. {words}\nTitle: {title}\n{FORM}"
    )
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "creation-judged",
        "medium",
        prompt,
        expect(make_state(title, kind, priority, [label])),
        fence(*write_create(title, kind, priority, "-l", label)),
        (
            fence(*write_create(title, kind, abs(priority - 1), "-l", label)),
            fence(*write_create(title, "task", priority, "-l", label)),
            fence(*write_create(title, kind, priority, "-l", rig.name)),
            fence(*write_create(title, kind, priority)),
        ),
    )


def _make_flaglike(dice: random.Random, title: str) -> Made:
    (rig,) = draw_rigs(dice, 1)
    priority = dice.randrange(5)
    label = f"rig:{rig.name}"
    prompt = (
        f"A bug of {rig.name}, P{priority}, label {label}. Its title begins with a dash and has to stay as it "
        f"is:\n{title}\n{FORM}"
    )
    rest = ("-t", "bug", "-p", str(priority), "-l", label)
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        "creation-flaglike",
        "medium",
        prompt,
        expect(make_state(title, "bug", priority, [label])),
        fence("bd", "create", f"--title={title}", *rest),
        (
            fence("bd", "create", title, *rest),
            fence("bd", "create", "--", title, *rest),
            fence("bd", "create", f"--title={title.lstrip('-')}", *rest),
            fence("bd", "create", f"--title={title}", *rest[:4]),
        ),
    )


def _make_child(dice: random.Random, *, keeps: bool) -> Made:
    (rig,) = draw_rigs(dice, 1)
    epic = draw_id(dice, rig.prefix)
    kind, title = _draw_work(dice)
    priority = dice.randrange(5)
    shared = [f"rig:{rig.name}", f"wave:{dice.randint(2, 9)}"]
    own = f"size:{dice.choice('sml')}"
    before = {epic: make_state(draw_wish(dice), "epic", 1, shared)}
    labels = [*shared, own] if keeps else [own]
    told = (
        f"It takes over the labels of the epic and has {own} besides."
        if keeps
        else f"It carries the label {own} and none of the epic's."
    )
    prompt = (
        f"{epic} is an epic of {rig.name} with the labels {shared[0]} and {shared[1]}. bd hands the labels of a "
        f"parent down to its child unless it is told not to.\nMake a child of {epic}: {kind}, priority "
        f'{priority}, title "{title}". {told}\n{FORM}'
    )
    base = write_create(title, kind, priority, "-l", own)
    right = [*base, "--parent", epic, *(() if keeps else ("--no-inherit-labels",))]
    wrong = [*base, "--parent", epic, *(("--no-inherit-labels",) if keeps else ())]
    return draft(
        CAPABILITY,
        dice.choice(("mayor", "crew")),
        "creation-child",
        "hard",
        prompt,
        expect(make_state(title, kind, priority, labels, parent=epic), before),
        fence(*right),
        (
            fence(*wrong),
            fence(*base, "--deps", epic),
            fence(*(w if w != epic else draw_id(dice, rig.prefix, 4) for w in right)),
            fence(*right, "-a", f"{rig.name}/{dice.choice(POLECATS)}"),
        ),
    )


def _make_found(dice: random.Random, n: int) -> Made:
    (rig,) = draw_rigs(dice, 1, dashed=n % 2)
    current, title = draw_id(dice, rig.prefix), draw_fault(dice)
    hours, priority = dice.choice((2, 3, 4, 6, 8)), dice.randint(1, 3)
    who = f"{rig.name}/{dice.choice(POLECATS)}"
    label = f"rig:{rig.name}"
    needs = n % 3 == 2
    before = {current: make_state(draw_wish(dice), "task", 2, [label], assignee=who)}
    told = (
        f"The new bead cannot begin before {current} is done."
        if needs
        else f"The new bead is to be linked to {current} as discovered from it."
    )
    prompt = (
        f"While at work on {current} (a task of {rig.name}), {who} met another fault: {title}. That is the title; "
        f"it is a bug of priority {priority}, mending it takes about {hours} hours (bd counts minutes), nobody is "
        f"assigned, label {label}. {told}\n{FORM}"
    )
    link = current if needs else f"discovered-from:{current}"
    links = [["blocks" if needs else "discovered-from", current]]
    base = write_create(title, "bug", priority, "-l", label)
    minutes = ("--estimate", str(hours * 60))
    return draft(
        CAPABILITY,
        dice.choice(("polecat", "crew")),
        "creation-found",
        "hard",
        prompt,
        expect(
            make_state(title, "bug", priority, [label], links=links, estimate=hours * 60), before
        ),
        fence(*base, *minutes, "--deps", link),
        (
            fence(*base, "--estimate", str(hours), "--deps", link),
            fence(*base, *minutes, "--deps", f"blocks:{current}"),
            fence(*base, "--estimate", f"{hours}h", "--deps", link),
            fence(*base, *minutes, "--deps", link.replace(current, draw_id(dice, rig.prefix, 4))),
            fence(*base, *minutes, "--deps", link, "-a", who),
        ),
    )
