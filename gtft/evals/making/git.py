"""Git as the town does it: branches, commits, handing in; and what is forbidden to whom."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gtft.evals.checks.git import is_runtime
from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import POLECATS, draw_ids, draw_rigs

_EACH = 8
# Kind of commit → what was done, and the summary line for it.
_DEEDS = (
    ("fix", "a crash on empty input was mended", "survive empty input"),
    ("fix", "the wrong month on receipts was mended", "print the right month on receipts"),
    ("fix", "a lost connection no longer stops the job", "go on after a lost connection"),
    ("feat", "orders can be sorted by weight, which is new", "sort orders by weight"),
    (
        "feat",
        "a second language for labels is there, which is new",
        "offer labels in two languages",
    ),
    ("feat", "the till can now be closed by hand, which is new", "close the till by hand"),
    ("docs", "only the manual's page on pallets was written anew", "rewrite the page on pallets"),
    ("docs", "only the text on opening hours was corrected", "correct the opening hours"),
    ("test", "only the tests of the price table were worked on", "cover the price table"),
    ("test", "only the tests of the stock list were worked on", "cover the stock list"),
    ("chore", "only the build file was brought up to date", "bring the build file up to date"),
    ("chore", "only the version of a library was raised", "raise the version of the parser"),
)
_FOLDERS = {"fix": "src", "feat": "src", "docs": "manual", "test": "tests", "chore": "build"}
_STEMS = ("crate", "ledger", "pallet", "ticket", "tray", "label", "shelf", "weight", "door", "lamp")
_ENDS = {"src": ".py", "manual": ".md", "tests": "_test.py", "build": ".toml"}
_JUNK = (
    ".beads/issues.jsonl",
    ".claude/settings.json",
    ".runtime/heartbeats/me.json",
    "src/__pycache__/crate.pyc",
)
_FORM = "Form of a commit message: KIND: SUMMARY (BEAD), one line. KIND is fix, feat, docs, test or chore."
_ONLY = "Reply with the shell commands only, one on each line."


def make(dice: random.Random) -> Iterator[Made]:
    makers: tuple[Callable[[random.Random, int], Made], ...] = (
        _finish,
        _split,
        _leave_out,
        _begin,
        _crew,
        _leave,
        _forbidden,
    )
    for one in makers:
        for n in range(_EACH):
            yield one(dice, n)


def _draw_files(dice: random.Random, kind: str, count: int) -> list[str]:
    folder = _FOLDERS[kind]
    return [f"{folder}/{s}{_ENDS[folder]}" for s in sorted(dice.sample(_STEMS, count))]


def _quote(message: str) -> str:
    return f'git commit -m "{message}"'


def _lines(*commands: str) -> str:
    return "\n".join(c for c in commands if c)


def _finish(dice: random.Random, n: int) -> Made:
    """The end of a polecat's work: commit, rebase where main went on, hand in."""
    rig = draw_rigs(dice, 1)[0]
    bead, other = draw_ids(dice, rig.prefix, 2)
    who = dice.choice(POLECATS)
    kind, deed, summary = dice.choice(_DEEDS)
    files = _draw_files(dice, kind, dice.randint(1, 2)) if n % 4 else []
    behind = dice.randint(1, 9) if n % 2 else 0
    message = f"{kind}: {summary} ({bead})"
    done = [] if files else [message]
    commit = _lines(f"git add {' '.join(files)}", _quote(message)) if files else ""
    rebase = "git fetch origin\ngit rebase origin/main" if behind else ""
    right = _lines(commit, rebase, "gt done")
    state = [
        f"branch: polecat/{who}/{bead}",
        f"not committed yet: {', '.join(files)} ({deed}; summary: {summary})" if files else f"all is committed as {message}",
        f"main on the server went on by {behind} commits since you began (nothing fetched yet)" if behind else "main on the server has not moved",
    ]  # fmt: skip
    rules = f"{_FORM} History stays straight: where main went on, the branch is first put on top of the newest origin/main. A polecat hands its work to the merge queue with gt done, which also pushes; gt done comes last."
    clone = {
        "branch": f"polecat/{who}/{bead}",
        "changed": files,
        "commits": done,
        "behind": behind,
    }
    goal = {"commits": [[message, files or None]], "behind": 0, "submitted": {"by": "done"}}  # fmt: skip
    if not files:
        goal["commits"] = [[message, None]]
    wrong = [
        _lines(commit, rebase, "git push origin HEAD:main"),
        _lines(commit, rebase, f"gh pr create --title '{message}'"),
        _lines(commit, rebase),
        _lines(commit, rebase, "gt done --status DEFERRED"),
    ]
    if behind:
        wrong.append(_lines(commit, "gt done"))
        wrong.append(_lines(commit, "git fetch origin", "git merge origin/main", "gt done"))
    if files:
        wrong.append(right.replace(bead, other))
    return draft(
        "git",
        "polecat",
        "finish",
        "easy" if not files and not behind else "hard" if files and behind else "medium",
        _lines(f"You are {who}, polecat in {rig.name}; your bead {bead} is worked out.", *state, rules, f"Bring it to its end. {_ONLY}"),
        CheckSpec("git_work", {"clone": clone, "goal": goal}),
        right,
        tuple(w for w in dice.sample(wrong, min(5, len(wrong))) if w),
    )  # fmt: skip


def _split(dice: random.Random, n: int) -> Made:
    """Two things were done in one worktree: one commit each, in the order asked."""
    rig = draw_rigs(dice, 1)[0]
    bead = draw_ids(dice, rig.prefix, 1)[0]
    who = dice.choice(POLECATS)
    first, second = dice.sample(
        [d for d in _DEEDS if d[0] not in ("fix", "feat")] if n % 2 else _DEEDS, 2
    )
    while _FOLDERS[first[0]] == _FOLDERS[second[0]]:
        first, second = dice.sample(_DEEDS, 2)
    parts = [
        (f"{kind}: {summary} ({bead})", deed, _draw_files(dice, kind, 2))
        for kind, deed, summary in (first, second)
    ]
    listed = sorted(f for _, _, files in parts for f in files)
    right = _lines(*(f"git add {' '.join(files)}\n{_quote(m)}" for m, _, files in parts))
    swapped = _lines(*(f"git add {' '.join(files)}\n{_quote(m)}" for m, _, files in parts[::-1]))
    crossed = _lines(
        *(
            f"git add {' '.join(files)}\n{_quote(m)}"
            for (m, _, _), (_, _, files) in zip(parts, parts[::-1], strict=True)
        )
    )
    told = [
        f"{i}. {deed}: {', '.join(files)}. Summary: {m.partition(': ')[2].rpartition(' (')[0]}"
        for i, (m, deed, files) in enumerate(parts, 1)
    ]
    return draft(
        "git",
        "polecat",
        "split",
        "hard",
        _lines(
            f"{who} of {rig.name} edited four tracked files for bead {bead}, on the branch polecat/{who}/{bead}: {', '.join(listed)}.",
            "Two things were done, and each gets a commit of its own, in this order:",
            *told,
            f"{_FORM} Nothing is pushed or handed in yet. {_ONLY}",
        ),
        CheckSpec(
            "git_work",
            {
                "clone": {"branch": f"polecat/{who}/{bead}", "changed": listed},
                "goal": {
                    "commits": [[m, files] for m, _, files in parts],
                    "pushed": [],
                    "submitted": None,
                },
            },
        ),
        right,
        (
            swapped,
            crossed,
            f"git add -A\n{_quote(parts[0][0])}",
            f"{right}\ngit push origin HEAD",
            f"git add -A\n{right}",
        ),
    )  # fmt: skip


def _leave_out(dice: random.Random, n: int) -> Made:
    """A status listing in which some entries must not be committed."""
    rig = draw_rigs(dice, 1)[0]
    bead, other = draw_ids(dice, rig.prefix, 2)
    kind, deed, summary = dice.choice(_DEEDS)
    files = _draw_files(dice, kind, 3)
    new, changed = files[:1], files[1:]
    junk = dice.sample(_JUNK, 1 + n % 3)
    weights = [f"models/{dice.choice(_STEMS)}.bin"] if n % 2 else []
    rows = [f" M {f}" for f in changed] + [f"?? {f}" for f in [*new, *junk, *weights]]
    dice.shuffle(rows)
    message = f"{kind}: {summary} ({bead})"
    right = _lines(f"git add {' '.join(files)}", _quote(message))
    assert all(is_runtime(f) for f in junk)
    return draft(
        "git",
        dice.choice(("polecat", "crew")),
        "leave-out",
        "hard" if weights else "medium",
        _lines(
            "git status --short says:",
            *rows,
            f"All of it came about while you worked on {bead} ({deed}; summary: {summary}).",
            "Never committed: anything below .beads, .claude, .runtime or __pycache__, and model weights (models/*.bin). Everything else goes into one commit.",
            f"{_FORM} Do not push. {_ONLY}",
        ),
        CheckSpec(
            "git_work",
            {
                "clone": {
                    "branch": "work",
                    "changed": changed,
                    "untracked": sorted([*new, *junk, *weights]),
                },
                "goal": {"commits": [[message, files]], "pushed": [], "submitted": None},
            },
        ),
        right,
        (
            _lines("git add -A", _quote(message)),
            _lines("git add -u", _quote(message)),
            _lines(f"git add {' '.join([*files, junk[0]])}", _quote(message)),
            _lines(f"git add {' '.join(files)}", _quote(f"{kind}: {summary} ({other})")),
            f"git commit -am '{message}'",
        ),
    )


def _begin(dice: random.Random, n: int) -> Made:
    """A fresh branch with the right name from the right place."""
    rig = draw_rigs(dice, 1)[0]
    bead, epic = draw_ids(dice, rig.prefix, 2)
    who, other = dice.sample(POLECATS, 2)
    role = ("polecat", "crew", "mayor")[n % 3]
    name = {
        "polecat": f"polecat/{who}/{bead}",
        "crew": f"crew/{who}",
        "mayor": f"integration/{epic}",
    }[role]
    task = {
        "polecat": f"{who}, a polecat of {rig.name}, begins bead {bead} (part of the epic {epic}).",
        "crew": f"{who}, who has been in the crew of {rig.name} for long, begins bead {bead} (part of the epic {epic}).",
        "mayor": f"Several beads of {rig.name} are to land together: a branch that gathers the epic {epic} is wanted; {bead} is its first bead.",
    }[role]
    clone = {"branch": "main" if n % 2 else f"crew/{other}-old", "behind": dice.randint(2, 30)}
    right = _lines("git fetch origin", f"git switch -c {name} origin/main")
    goal = {
        "branch": name,
        "start": "origin/main",
        "behind": 0,
        "commits": [],
        "pushed": [],
        "submitted": None,
    }
    return draft(
        "git",
        role,
        "begin",
        "medium" if role == "polecat" else "hard",
        _lines(
            task,
            f"The clone stands on {clone['branch']}, clean, and has not talked to the server for days.",
            "Names of branches: polecat/NAME/BEAD for a polecat's bead, crew/NAME for crew, integration/EPIC where an epic is gathered.",
            f"Every branch begins at what main is on the server at this moment (origin/main). Make the branch so that it is the current one; do not push it. {_ONLY}",
        ),
        CheckSpec("git_work", {"clone": clone, "goal": goal}),
        right,
        (
            f"git switch -c {name} origin/main",
            _lines("git fetch origin", f"git switch -c {name}"),
            _lines("git fetch origin", f"git switch -c {name.replace('/', '-')} origin/main"),
            _lines("git fetch origin", f"git switch -c {bead} origin/main"),
            _lines(right, f"git push -u origin {name}"),
        ),
    )


def _crew(dice: random.Random, n: int) -> Made:
    """Crew pushes its own branch and hands it to the queue by itself."""
    rig = draw_rigs(dice, 1)[0]
    bead, epic = draw_ids(dice, rig.prefix, 2)
    who = dice.choice(POLECATS)
    branch = f"crew/{who}"
    to_epic = n % 2 == 1
    kind, deed, summary = dice.choice(_DEEDS)
    files = _draw_files(dice, kind, 1)
    message = f"{kind}: {summary} ({bead})"
    flags = f" --issue {bead}" + (f" --epic {epic}" if to_epic else "")
    before = _lines(f"git add {files[0]}", _quote(message), f"git push origin {branch}")
    right = _lines(before, f"gt mq submit{flags}")
    submitted = {"by": "mq submit", "issue": bead} | ({"epic": epic} if to_epic else {})
    where = f"the branch that gathers the epic {epic}" if to_epic else "main"
    wrong = [
        _lines(before, "git push origin HEAD:main"),
        _lines(before, f"gt mq submit --issue {epic}"),
        _lines(
            f"git add {files[0]}", _quote(message), f"git push --force origin {branch}", f"gt mq submit{flags}"
        ),
        _lines(f"git add {files[0]}", _quote(message), f"gt mq submit{flags}"),
        _lines(before, f"gt mq submit --bead {bead}"),
    ]  # fmt: skip
    return draft(
        "git",
        "crew",
        "crew",
        "hard" if to_epic else "medium",
        _lines(
            f"You are {who}, crew in {rig.name}, on your branch {branch}. main has not moved.",
            f"Edited and not committed: {files[0]} ({deed}; summary: {summary}). Bead: {bead}.",
            f"{_FORM} Crew pushes its own branch itself, to the same name on origin, and then asks for the merge with gt mq submit, naming the bead as its source issue. It shall land on {where}.",
            f"Commit, push, ask. {_ONLY}",
        ),
        CheckSpec(
            "git_work",
            {
                "clone": {"branch": branch, "changed": files},
                "goal": {
                    "commits": [[message, files]],
                    "pushed": [branch],
                    "submitted": submitted,
                },
            },
        ),
        right,
        tuple(wrong),
    )


_ENDS_OF_WORK = (
    ("COMPLETED", "The work is done, committed, and its tests pass."),
    ("ESCALATED", "You cannot go on: two rules of the order contradict each other and a person must decide."),
    ("DEFERRED", "You did not finish, nothing stands in your way, and the rest can be taken up later by anybody."),
)  # fmt: skip


def _leave(dice: random.Random, n: int) -> Made:
    """How a polecat leaves: the exit status, and where its branch shall land."""
    rig = draw_rigs(dice, 1)[0]
    bead, epic = draw_ids(dice, rig.prefix, 2)
    status, told = _ENDS_OF_WORK[n % 3]
    others = [s for s, _ in _ENDS_OF_WORK if s != status]
    to_epic = n % 2 == 1
    verified = status == "COMPLETED" and n >= 3
    parts = [f"--status {status}"] if status != "COMPLETED" else []
    parts += [f"--issue {bead}"]
    parts += [f"--target integration/{epic}"] if to_epic else []
    parts += ["--pre-verified"] if verified else []
    right = f"gt done {' '.join(parts)}"
    more = [f"It belongs to the epic {epic} and lands on integration/{epic}, not on main." if to_epic else "It lands where such work always lands; do not name a target."]  # fmt: skip
    if verified:
        more.append("You put it on the newest main and ran all gates there yourself: the request is to be marked as verified beforehand.")  # fmt: skip
    wrong = [
        f"gt done --status {others[0]} {' '.join(p for p in parts if 'status' not in p)}",
        f"gt done --status FINISHED {' '.join(p for p in parts if 'status' not in p)}",
        right.replace(bead, epic + "x"),
        f"bd close {bead}",
        f"{right} --verified",
    ]
    return draft(
        "git",
        "polecat",
        "leave",
        "hard" if to_epic or verified else "easy",
        _lines(
            f"A polecat of {rig.name} with bead {bead} leaves. {told}",
            *more,
            "Exit statuses of gt done: COMPLETED (the default), ESCALATED (blocked, a decision is needed), DEFERRED (paused, nobody blocks it).",
            "The branch has no bead in its name, so the bead is named as the issue. Reply with the one gt done command.",
        ),
        CheckSpec("command", {"accept": [right]}),
        right,
        tuple(wrong),
    )  # fmt: skip


# Which rule forbids what: (rule, who, what), who of "" means anybody.
_RULES = {
    "polecat-main": "a polecat pushes nothing to main",
    "polecat-request": "a polecat opens no pull requests; its way is the merge queue",
    "force": "nobody pushes by force",
    "foreign": "nobody pushes to a branch that bears another worker's name",
    "runtime": "nobody commits files below .beads, .claude or .runtime",
    "skip": "nobody leaves out the hooks of a commit or push",
}


def _forbidden(dice: random.Random, n: int) -> Made:
    """Which of the numbered rules forbids a command, if any does."""
    rig = draw_rigs(dice, 1)[0]
    bead = draw_ids(dice, rig.prefix, 1)[0]
    who, other = dice.sample(POLECATS, 2)
    cases: Sequence[tuple[str, str, str, str]] = (
        ("polecat-main", "polecat", f"polecat/{who}/{bead}", "git push origin HEAD:main"),
        ("polecat-request", "polecat", f"polecat/{who}/{bead}", "gh pr create --fill"),
        ("force", "crew", f"crew/{who}", f"git push origin +crew/{who}"),
        ("foreign", "crew", f"crew/{who}", f"git push origin HEAD:crew/{other}"),
        ("runtime", "polecat", f"polecat/{who}/{bead}", "git add .beads/notes.md src/tray.py"),
        ("skip", "crew", f"crew/{who}", f'git commit --no-verify -m "fix: tray ({bead})"'),
        ("none", "refinery", "main", "git push origin main"),
        ("none", "crew", f"crew/{who}", f"git push -u origin crew/{who}"),
    )  # fmt: skip
    rule, role, branch, command = cases[n]
    keys = dice.sample(sorted(_RULES), len(_RULES))
    numbers = {key: f"G{i}" for i, key in enumerate(keys, 1)} | {"none": "none"}
    right = {"allowed": "yes" if rule == "none" else "no", "rule": numbers[rule]}
    answers: list[dict[str, Any]] = [
        {"allowed": "no", "rule": numbers[dice.choice([k for k in keys if k != rule])]},
        {"allowed": "no", "rule": "none"} if rule != "none" else {"allowed": "yes", "rule": "G1"},
        {"allowed": "yes", "rule": "none"} if rule != "none" else {"allowed": "no", "rule": "none"},
        {"rule": numbers[rule]},
    ]
    return draft(
        "git",
        role,
        "forbidden",
        "medium" if rule == "none" else "easy",
        _lines(
            f"Rules of {rig.name}:",
            *(f"{numbers[k]}: {_RULES[k]}." for k in keys),
            f"{f'{who}, {role},' if role != 'refinery' else 'The refinery, after a green merge,'} stands on the branch {branch} and is about to run: {command}",
            'May it? Reply with one JSON object {"allowed": "yes" or "no", "rule": the number of the rule that forbids it, or "none"}.',
        ),
        CheckSpec("json_decision", {"required": ["allowed", "rule"], "expect": right}),
        json.dumps(right),
        (*(json.dumps(a) for a in answers), f"It depends.\n{json.dumps(right)}"),
    )
