"""Checks on git work: the commands run on a clone on paper, and its state afterwards is compared.

Nothing is executed. The clone knows what a polecat's or crew member's work needs; a command that it does not
know, and one that the town forbids, is a reason to fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gtft.evals.answer import Answer, BadAnswer
from gtft.evals.checks.command import parse_command, read_script
from gtft.evals.checks.destructive import find_destructive

_MOST_COMMANDS = 40
# Pipes, background, redirections, expansion: the clone does not know a shell.
_SHELL = re.compile(r"[|&<>`$]")
_READS = frozenset({"status", "log", "diff", "show", "rev-parse", "remote", "ls-files", "blame"})
# gt done leaves them out when it sweeps the worktree.
_RUNTIME = (".beads/", ".claude/", ".runtime/", "__pycache__/")


class Clone:
    """A worktree and its branch. ``behind``: commits of origin's main that the branch does not have.

    ``args``: branch, changed (tracked files with edits), untracked, commits (messages on the branch), behind,
    fetched (whether origin/main is as new as on the server). Every method raises BadAnswer where git would
    refuse or the town does.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.branch: str = args["branch"]
        self.start = ""
        self.changed = set(args.get("changed", []))
        self.untracked = set(args.get("untracked", []))
        self.staged: set[str] = set()
        self.commits: list[tuple[str, tuple[str, ...]]] = [(m, ()) for m in args.get("commits", [])]
        self.behind: int = args.get("behind", 0)
        self.fetched: bool = args.get("fetched", False)
        self.pushed: list[str] = []
        self.submitted: dict[str, str] | None = None

    def run(self, words: Sequence[str]) -> None:
        """One command."""
        if self.submitted is not None:
            raise BadAnswer("goes on after the work was handed in")
        if words[0] == "gt":
            self._gt(words)
            return
        if words[0] != "git" or len(words) < 2:
            raise BadAnswer(f"runs {' '.join(words)[:60]}, not git or gt")
        verb, rest = words[1], list(words[2:])
        if verb in _READS:
            return
        known = {
            "add": self._add,
            "commit": self._commit,
            "fetch": self._fetch,
            "rebase": self._rebase,
            "pull": self._pull,
            "push": self._push,
            "switch": self._switch,
            "checkout": self._switch,
        }
        if verb not in known:
            raise BadAnswer(f"git {verb[:40]} has no place here")
        known[verb](rest)

    def _add(self, rest: list[str]) -> None:
        paths = [w for w in rest if w != "--"]
        if not paths:
            raise BadAnswer("git add without a path")
        everything = self.changed | self.untracked
        for path in paths:
            if path in ("-A", "--all", "."):
                found = everything
            elif path in ("-u", "--update"):
                found = set(self.changed)
            elif path.startswith("-"):
                raise BadAnswer(f"git add has no flag {path[:40]} here")
            else:
                plain = path.removeprefix("./").rstrip("/")
                found = {f for f in everything if f == plain or f.startswith(f"{plain}/")}
            if not found:
                raise BadAnswer(f"git add {path[:60]}: no such change")
            self.staged |= found
        self.changed -= self.staged
        self.untracked -= self.staged

    def _commit(self, rest: list[str]) -> None:
        paragraphs: list[str] = []
        words = rest[::-1]
        while words:
            word = words.pop()
            flag, has_value, value = word.partition("=")
            if word in ("-a", "--all", "-am"):
                self.staged |= self.changed
                self.changed = set()
            if word in ("-m", "-am") or flag == "--message":
                if not has_value or flag != "--message":
                    if not words:
                        raise BadAnswer("a commit without a message")
                    value = words.pop()
                paragraphs.append(value)
            elif word not in ("-a", "--all", "-q", "--quiet"):
                raise BadAnswer(f"git commit {word[:40]} has no place here")
        if not any(p.strip() for p in paragraphs):
            raise BadAnswer("a commit without a message")
        if not self.staged:
            raise BadAnswer("a commit of nothing")
        message = "\n\n".join(p.strip() for p in paragraphs)
        self.commits.append((message, tuple(sorted(self.staged))))
        self.staged = set()

    def _fetch(self, rest: list[str]) -> None:
        if [w for w in rest if not w.startswith("-")] not in ([], ["origin"], ["origin", "main"]):
            raise BadAnswer(f"git fetch {' '.join(rest)[:40]} has no place here")
        self.fetched = True

    def _rebase(self, rest: list[str]) -> None:
        if rest != ["origin/main"]:
            raise BadAnswer(f"git rebase {' '.join(rest)[:40]}, not onto origin/main")
        if self.changed or self.staged:
            raise BadAnswer("git rebase with changes that are not committed")
        if self.fetched:
            self.behind = 0

    def _pull(self, rest: list[str]) -> None:
        if sorted(rest) not in (["--rebase", "main", "origin"], ["-r", "main", "origin"]):
            raise BadAnswer("git pull that does not rebase onto origin main")
        self.fetched = True
        self._rebase(["origin/main"])

    def _push(self, rest: list[str]) -> None:
        if (found := find_destructive(f"git push {' '.join(rest)}")) is not None:
            raise BadAnswer(f"pushes to main or by force: {found}")
        words = [w for w in rest if w not in ("-u", "--set-upstream", "-q")]
        if any(w.startswith("-") for w in words):
            raise BadAnswer(f"git push {' '.join(words)[:40]} has no place here")
        source, _, target = (words[1] if len(words) > 1 else "HEAD").partition(":")
        target = (target or source).removeprefix("refs/heads/")
        target = self.branch if target == "HEAD" else target
        if source not in ("HEAD", self.branch) or words[:1] not in ([], ["origin"]):
            raise BadAnswer("pushes something else than the branch to origin")
        if target == "main" or target != self.branch or len(words) > 2:
            raise BadAnswer(f"pushes to {target[:60]}")
        self.pushed.append(target)

    def _switch(self, rest: list[str]) -> None:
        if len(rest) not in (2, 3) or rest[0] not in ("-c", "--create", "-b", "--no-track"):
            raise BadAnswer(f"git switch {' '.join(rest)[:40]} has no place here")
        self.start = rest[2] if len(rest) == 3 else self.branch
        if self.start == "origin/main":
            self.behind = 0 if self.fetched else self.behind
            self.commits = []
        elif self.start not in (self.branch, "HEAD"):
            raise BadAnswer(f"there is no {self.start[:40]} to start from")
        self.branch = rest[1]

    def _gt(self, words: Sequence[str]) -> None:
        if list(words[:2]) == ["gt", "commit"]:
            self._commit(list(words[2:]))
            return
        command = parse_command(words)
        if command.path not in ("done", "mq submit"):
            raise BadAnswer(f"{command.show()} has no place here")
        left = {f for f in self.changed | self.untracked | self.staged if not is_runtime(f)}
        if left:
            raise BadAnswer(f"hands in with {sorted(left)[0][:60]} not committed")
        self.submitted = {"by": command.path}
        for name, values in command.flags.items():
            self.submitted[name.removeprefix("--")] = values[-1]
        # What the command would find out by itself.
        known = {"status": "COMPLETED", "target": "main", "branch": self.branch}
        known["issue"] = self.branch.rpartition("/")[2]
        for name, value in known.items():
            if self.submitted.get(name) == value:
                del self.submitted[name]


def is_runtime(path: str) -> bool:
    """Whether a path is one of those that no agent commits."""
    return any(part in f"/{path}" for part in (f"/{r}" for r in _RUNTIME))


def check_git(answer: Answer, args: Mapping[str, Any]) -> None:
    """The whole answer is git and gt commands that bring a clone from one state to another.

    ``args``: clone, see `Clone`; goal: branch, start, commits [[message, [file, …]], …] in their order (files
    null: not compared), behind, fetched, pushed [branch, …], submitted {"by": "done", flag: value} or null. A key
    that is absent is not compared.
    """
    scripts = [answer.text, *(str(c.arguments.get("command")) for c in answer.calls)]
    if any(_SHELL.search(s.replace("&&", "").strip("`")) for s in scripts):
        raise BadAnswer("more than plain commands")
    commands = read_script(answer)
    if len(commands) > _MOST_COMMANDS:
        raise BadAnswer(f"{len(commands)} commands")
    clone = Clone(args["clone"])
    for words in commands:
        clone.run(words)
    compare_clone(clone, args["goal"])


def compare_clone(clone: Clone, goal: Mapping[str, Any]) -> None:
    """Raises BadAnswer with the first difference."""
    for key in ("branch", "start", "behind", "fetched", "pushed"):
        if key in goal and getattr(clone, key) != goal[key]:
            raise BadAnswer(f"{key} is {str(getattr(clone, key))[:60]}, not {goal[key]}")
    if "commits" in goal:
        if len(clone.commits) != len(goal["commits"]):
            raise BadAnswer(f"{len(clone.commits)} commits, not {len(goal['commits'])}")
        for (message, files), (right, wanted) in zip(clone.commits, goal["commits"], strict=True):
            if message != right:
                raise BadAnswer(f"the message is {message[:80]}, not {right}")
            if wanted is not None and list(files) != sorted(wanted):
                raise BadAnswer(f"commits {', '.join(files)[:80]}, not {', '.join(wanted)}")
    if "submitted" in goal and clone.submitted != goal["submitted"]:
        raise BadAnswer(f"hands in as {str(clone.submitted)[:80]}, not {goal['submitted']}")
