"""Command choice: a task and the state it meets → the one command line that does it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from gtft.corpus.scenarios.scene import Act, Case, Scene, compose

ROLES = ("mayor", "crew", "witness", "deacon", "refinery", "polecat")


class Told(NamedTuple):
    """``answer`` is the command with its names left out, ``shape`` the state that decided it."""

    state: str
    task: str
    command: str
    why: str
    answer: str
    shape: tuple[object, ...]


def _need(scene: Scene) -> Told:
    a, b = scene.bead(), scene.bead()
    swapped = scene.chance(0.5)
    first, then = (b, a) if swapped else (a, b)
    # Each sentence in two orders with the same words.
    pairs = (
        (
            f"{then} cannot begin before {first} is closed",
            f"Before {first} is closed, {then} cannot begin",
        ),
        (
            f"{first} has to be done so that {then} can start",
            f"So that {then} can start, {first} has to be done",
        ),
        (
            f"Without {first} there is no way to do {then}",
            f"There is no way to do {then} without {first}",
        ),
        (f"{then} builds on {first}", f"It is {first} that {then} builds on"),
    )
    n = scene.rng.randrange(len(pairs))
    task = scene.pick(pairs[n])
    listed = sorted([a, b])
    state = "\n".join(f"{x}  open  {scene.title()}" for x in listed)
    return Told(state, f"Let bd know: {task}.", f"bd dep add {then} {first}", f"{then} needs {first}",
                f"dep {task.index(then) < task.index(first)}", (n,))  # fmt: skip


def _tell(scene: Scene) -> Told:
    people = scene.people(4)
    here = [scene.chance(0.5) for _ in people]
    at = scene.rng.randrange(len(people))
    lines = [
        f"{scene.rig.name}/{p}: {'in session' if h else 'no session'}"
        for p, h in zip(people, here, strict=True)
    ]
    to, bead = f"{scene.rig.name}/{people[at]}", scene.bead()
    text = f"{bead} has changed, please read it again"
    if here[at]:
        command, why = f'gt nudge {to} -m "{text}"', "in session: a nudge is enough"
    else:
        command, why = (
            f'gt mail send {to} -s "{bead}" -m "{text}"',
            "no session: only a mail is still there later",
        )
    return Told("\n".join(lines), f"{to} must know that {bead} has changed. No mail where a nudge will do.", command, why,
                f"tell {here[at]}", (tuple(here), at))  # fmt: skip


def _label(scene: Scene) -> Told:
    bead = scene.bead()
    labels = scene.rng.sample(_LABELS, 4)
    keep, odd = labels[:-1], labels[-1]
    adding = scene.chance(0.5)
    has, wanted = (keep, labels) if adding else (labels, keep)
    shown = [scene.rng.sample(x, len(x)) for x in (has, wanted)]
    word = "add" if adding else "remove"
    command = f"bd update {bead} --{word}-label {odd}"
    state = f"labels now: {', '.join(shown[0])}\nlabels wanted: {', '.join(shown[1])}"
    return Told(f"{bead}\n{state}", f"Make the labels of {bead} as wanted, others untouched.", command,
                f"{odd} is the only difference", f"label {adding} {shown[1].index(odd) if adding else shown[0].index(odd)}",
                (adding, len(keep)))  # fmt: skip


def _priority(scene: Scene) -> Told:
    now, steps = scene.rng.randint(1, 3), scene.rng.choice((-1, 1))
    bead = scene.bead()
    other = scene.bead()
    by = "more" if steps < 0 else "less"
    state = f"{bead}: P{now}, {scene.title()}\n{other}: P{scene.rng.randrange(5)}, {scene.title()}"
    return Told(state, f"{bead} is one step {by} urgent than it says.", f"bd update {bead} --priority {now + steps}",
                f"0 is the most urgent, so {now} becomes {now + steps}", f"priority {now + steps}", (now, steps))  # fmt: skip


def _query(scene: Scene) -> Told:
    rng = scene.rng
    label, kind, status = (
        rng.choice(_LABELS),
        rng.choice(_TYPES),
        rng.choice(("open", "in_progress", "hooked")),
    )
    who = f"{scene.rig.name}/crew/{scene.people(1)[0]}"
    least = rng.randint(1, 3)
    wishes = [
        (f"status {status}", f"--status {status}", "status"),
        (f"type {kind}", f"--type {kind}", "type"),
        (f"not type {kind}", f"--exclude-type {kind}", "no-type"),
        (f"label {label}", f"--label {label}", "label"),
        (f"without the label {label}", f"--exclude-label {label}", "no-label"),
        (f"of {who}", f"--assignee {who}", "assignee"),
        ("nobody's", "--no-assignee", "nobody"),
        (f"P{least} or less urgent", f"--priority-min {least}", "min"),
        (f"P{least} or more urgent", f"--priority-max {least}", "max"),
    ]
    groups = [wishes[:1], wishes[1:3], wishes[3:5], wishes[5:7], wishes[7:9]]
    chosen = [scene.pick(g) for g in rng.sample(groups, rng.randint(2, 4))]
    flags = " ".join(flag for _, flag, _ in chosen)
    task = "List all beads that are: " + "; ".join(words for words, _, _ in chosen) + "."
    names = tuple(name for _, _, name in chosen)
    return Told(f"labels in use: {', '.join(_LABELS[:6])}", task, f"bd list {flags} --limit 0 --json",
                "one flag for each condition, and no limit", f"query {names}", names)  # fmt: skip


def _sling(scene: Scene) -> Told:
    rig = scene.pick(scene.rigs)
    bead, merges = scene.bead(rig), scene.chance(0.5)
    alone = scene.chance(0.5)
    kind = (
        "code change"
        if merges
        else scene.pick(("report only", "study, no code", "a question to answer"))
    )
    flags = ("" if merges else " --no-merge") + (" --no-convoy" if alone else "")
    state = "\n".join(
        f"{r.prefix}-  {r.name}" for r in scene.rng.sample(scene.rigs, len(scene.rigs))
    )
    task = f"Send {bead} to a polecat of its rig. Result: {kind}. {'Without' if alone else 'With'} a convoy."
    return Told(state, task, f"gt sling {bead} {rig.name}{flags}", f"{rig.prefix}- is {rig.name}; {kind}",
                f"sling {merges} {alone}", (merges, alone, len(scene.rigs)))  # fmt: skip


def _escalate(scene: Scene) -> Told:
    levels = ("low", "medium", "high", "critical")
    limits = sorted(scene.rng.sample(range(2, 40), 3))
    stopped = scene.rng.randint(0, 45)
    level = levels[sum(stopped >= x for x in limits)]
    bead = scene.bead()
    state = f"low below {limits[0]} waiting beads, medium from {limits[0]}, high from {limits[1]}, critical from {limits[2]}"
    what = f"{scene.thing()} is down"
    return Told(state, f"The {what}; {stopped} beads wait for it, {bead} first. Raise it.",
                f'gt escalate "{what}" --severity {level} --reason "{stopped} beads wait" --related {bead}',
                f"{stopped} waiting beads are {level}", f"escalate {level}", (level,))  # fmt: skip


def _gate(scene: Scene) -> Told:
    bead, number, hours = scene.bead(), scene.rng.randint(3, 400), scene.rng.randint(2, 48)
    kind = scene.pick(("human", "timer", "gh:pr", "gh:run"))
    flags = {
        "timer": f" --timeout {hours}h",
        "gh:pr": f" --await-id {number}",
        "gh:run": f" --await-id {number}",
    }
    when = {
        "human": "a person has agreed",
        "timer": f"{hours} hours have passed",
        "gh:pr": f"pull request {number} is merged",
        "gh:run": f"workflow run {number} is through",
    }[kind]
    aside = f"{scene.bead()} waits for its own gate already (pull request {number + 1}, run {number + 2})"
    return Told(aside, f"{bead} must not be taken up until {when}.",
                f"bd gate create --type {kind} --blocks {bead}{flags.get(kind, '')}", f"what opens it is: {when}",
                f"gate {kind}", (kind,))  # fmt: skip


def _convoy(scene: Scene) -> Told:
    names = [scene.thing() for _ in range(3)]
    ids = [f"hq-cv-{scene.bead().rpartition('-')[2]}" for _ in names]
    there = scene.chance(0.5)
    at = scene.rng.randrange(3)
    name = names[at] if there else scene.thing()
    beads = " ".join(scene.bead(scene.pick(scene.rigs)) for _ in range(scene.rng.randint(1, 3)))
    there = name in names
    at = names.index(name) if there else 0
    command = f"gt convoy add {ids[at]} {beads}" if there else f'gt convoy create "{name}" {beads}'
    state = "\n".join(f"{i}  {n}" for i, n in zip(ids, names, strict=True))
    return Told(f"convoys:\n{state}", f"{beads.replace(' ', ', ')}: track under {name}.", command,
                f"{name} {'has a convoy' if there else 'has none yet'}", f"convoy {there} {at}", (there, at, beads.count(" ")))  # fmt: skip


def _child(scene: Scene) -> Told:
    parent, review = scene.bead(), scene.chance(0.5)
    labels = scene.rng.sample(_LABELS, 2) + (["gtft:review"] if review else ["gt:keep"])
    scene.rng.shuffle(labels)
    kind, level, title = scene.pick(_TYPES[:3]), scene.rng.randrange(5), scene.title()
    flag = " --no-inherit-labels" if review else ""
    state = f"{parent} [{', '.join(labels)}]\nA child gets the labels of its parent. gtft:review must not be passed on."
    return Told(state, f'Below {parent}, make a P{level} {kind}: "{title}".',
                f'bd create --title="{title}" -t {kind} -p {level} --parent {parent}{flag}',
                f"the parent {'is in review' if review else 'has no label that hurts'}", f"child {review} {level} {kind}",
                (review, kind))  # fmt: skip


def _defer(scene: Scene) -> Told:
    days, bead = scene.rng.randint(2, 60), scene.bead()
    until = (scene.now + timedelta(days=days)).strftime("%Y-%m-%d")
    today = scene.now.strftime("%Y-%m-%d")
    return Told(f"today: {today}\n{bead}: {scene.title()}", f"Nobody should see {bead} for the next {days} days.",
                f"bd defer {bead} --until={until}", f"{today} and {days} days are {until}", f"defer {until}", (days,))  # fmt: skip


def _keep(scene: Scene) -> Told:
    bead, lasting = scene.bead(), scene.chance(0.5)
    text = f"{scene.word()} done, {scene.word()} next"
    writers = scene.rng.randint(2, 4) if lasting else 1
    state = f"{bead}, writers now: {writers}\nNotes are one text that is written back whole; comments are rows of their own."
    command = f'bd comments add {bead} "{text}"' if lasting else f'bd note {bead} "{text}"'
    return Told(state, f'Leave "{text}" with {bead}: a note if none can be lost, else a comment.', command,
                "others write too: a comment" if lasting else "one writer: a note is safe", f"keep {lasting}", (writers,))  # fmt: skip


_TASKS: tuple[Callable[[Scene], Told], ...] = (
    _need, _tell, _label, _priority, _query, _sling, _escalate, _gate, _convoy, _child, _defer, _keep,
)  # fmt: skip
# Only these two may sling or lead a convoy.
_LEADERS = ("mayor", "crew")


def make(scene: Scene) -> Case:
    task = _TASKS[scene.turn % len(_TASKS)]
    role = scene.pick(_LEADERS if task in (_sling, _convoy) else ROLES)
    told = task(scene)
    entries = compose(
        scene,
        scene.introduce(role, scene.people(1)[0], scene.pick(("command", "to do", "errand"))),
        told.state,
        f"{told.task} {scene.pick(_QUESTIONS)}",
        {"command": told.command, "reason": told.why},
        f"`{told.command}` ({told.why})",
        act=Act(told.command, "ok", f"Done: {told.why}."),
    )
    rig = None if role in ("mayor", "deacon") else scene.rig.name
    return Case(
        "command", (told.answer.split(" ")[0], *told.shape), told.answer, role, rig, entries
    )


_LABELS = [
    "backend",
    "docs",
    "flaky",
    "frontend",
    "infra",
    "perf",
    "release",
    "security",
    "tests",
    "ui",
]
_TYPES = ("bug", "task", "feature", "chore")
_QUESTIONS = (
    "Which command?",
    "Give the exact command line.",
    "One command line.",
    "How is that done with gt or bd?",
    "What do you type?",
)
