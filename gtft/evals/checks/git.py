"""Checks on git work: the commands run on a clone on paper, and its state afterwards is compared.

Nothing is executed. The clone knows what a polecat's or crew member's work needs; a command that it does not
know, and one that the town forbids, is a reason to fail.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from gtft.evals.answer import Answer, BadAnswer
from gtft.evals.checks.command import parse_command, read_script
from gtft.evals.checks.destructive import find_destructive

_MOST_COMMANDS = 40
# Pipes, background, redirections, expansion: the clone does not know a shell.
_SHELL = re.compile(r"[|&<>`$]")
_READS = frozenset({"status", "log", "diff", "show", "rev-parse", "ls-files", "blame"})
_LONGEST_PATH = 200
_QUIET = frozenset({"-q", "--quiet", "-v", "--verbose"})
_CREATES = frozenset({"-c", "-C", "--create", "--force-create"})
_TRACKS = frozenset({"-t", "--track", "--no-track"})
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
        # Other branches: start, behind, commits of each.
        self.others: dict[str, tuple[str, int, list[tuple[str, tuple[str, ...]]]]] = {}
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
            if (found := find_destructive(shlex.join(words))) is not None:
                raise BadAnswer(f"does more than read: {found}")
            return
        known: dict[str, Callable[[list[str]], None]] = {
            "remote": self._remote,
            "branch": self._branch,
            "add": self._add,
            "commit": self._commit,
            "fetch": self._fetch,
            "rebase": self._rebase,
            "pull": self._pull,
            "push": self._push,
            "switch": self._switch,
            "checkout": lambda words: self._switch(words, {"-b", "-B"}),
        }
        if verb not in known:
            raise BadAnswer(f"git {verb[:40]} has no place here")
        known[verb](rest)

    def _remote(self, rest: list[str]) -> None:
        _, words = _part("remote", rest, {"-v", "--verbose"})
        if words[:1] not in ([], ["show"], ["get-url"]):
            raise BadAnswer(f"git remote {words[0][:40]} has no place here")

    def _add(self, rest: list[str]) -> None:
        every, tracked = {"-A", "--all"}, {"-u", "--update"}
        flags, paths = _part("add", rest, every | tracked | _QUIET)
        if not paths and not flags.keys() & (every | tracked):
            raise BadAnswer("git add without a path")
        among = self.changed | self.staged
        among |= set() if flags.keys() & tracked else self.untracked
        self.staged |= find_files("git add", paths, among) if paths else among
        self.changed -= self.staged
        self.untracked -= self.staged

    def _commit(self, rest: list[str]) -> None:
        every = {"-a", "--all"}
        flags, paths = _part("commit", rest, every | {"-q", "--quiet"}, {"-m", "--message"})
        paragraphs = [v.strip() for v in flags.pop("-m", []) + flags.pop("--message", [])]
        if not any(paragraphs):
            raise BadAnswer("a commit without a message")
        if paths and flags.keys() & every:
            raise BadAnswer("git commit -a with paths")
        if paths:
            files = find_files("git commit", paths, self.changed | self.staged)
        else:
            files = self.staged | (self.changed if flags.keys() & every else set())
        if not files:
            raise BadAnswer("a commit of nothing")
        self.commits.append(("\n\n".join(paragraphs), tuple(sorted(files))))
        self.staged -= files
        self.changed -= files

    def _fetch(self, rest: list[str]) -> None:
        _, words = _part("fetch", rest, _QUIET | {"-p", "--prune", "--all", "-t", "--tags"})
        if words not in ([], ["origin"], ["origin", "main"]):
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

    def _switch(self, rest: list[str], creates: Collection[str] = _CREATES) -> None:
        flags, words = _part("switch", rest, _TRACKS | {"-q", "--quiet"}, creates)
        names = [name for flag in flags.keys() & creates for name in flags[flag]]
        if len(names) > 1 or len(words) > 1 or not names + words:
            raise BadAnswer(f"git switch {' '.join(rest)[:40]} has no place here")
        if names:
            self._make(names[0], words)
            words = names
        if words[0] not in self.others:
            raise BadAnswer(f"there is no branch {words[0][:40]} to switch to")
        self.others[self.branch] = (self.start, self.behind, self.commits)
        self.branch = words[0]
        self.start, self.behind, self.commits = self.others.pop(self.branch)

    def _branch(self, rest: list[str]) -> None:
        flags, words = _part(
            "branch", rest, _TRACKS | {"-q", "-a", "-v", "--list", "--show-current"}
        )
        if words and not flags.keys() - _TRACKS - {"-q"}:
            self._make(words[0], words[1:])
        elif words:
            raise BadAnswer(f"git branch {' '.join(rest)[:40]} has no place here")

    def _make(self, name: str, start: list[str]) -> None:
        # Also where it is told to overwrite one: that would lose what the other holds.
        if name in (self.branch, "main", *self.others):
            raise BadAnswer(f"there is a branch {name[:40]} already")
        where = start[0] if start else self.branch
        if len(start) > 1 or where not in (self.branch, "HEAD", "origin/main"):
            raise BadAnswer(f"there is no {' '.join(start)[:40]} to start from")
        fresh = where == "origin/main"
        behind = 0 if fresh and self.fetched else self.behind
        self.others[name] = (where, behind, [] if fresh else [*self.commits])

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


def _part(
    verb: str, rest: Sequence[str], switches: Collection[str], valued: Collection[str] = ()
) -> tuple[dict[str, list[str]], list[str]]:
    """The flags with their values, and the other words. Raises BadAnswer on a flag that is in neither list."""
    flags: dict[str, list[str]] = {}
    words: list[str] = []
    left = list(rest[::-1])
    while left:
        word = left.pop()
        if word == "--":
            return flags, [*words, *left[::-1]]
        if not word.startswith("-"):
            words.append(word)
            continue
        flag, has_value, value = word.partition("=")
        more = ""
        if not word.startswith("--"):
            flag, value, more = word[:2], word[2:], word[2:]
            has_value = more
        if flag in valued:
            if not has_value and not left:
                raise BadAnswer(f"git {verb} {flag} without a value")
            flags.setdefault(flag, []).append(value if has_value else left.pop())
        elif flag not in switches or (has_value and not more):
            raise BadAnswer(f"git {verb} {word[:40]} has no place here")
        else:
            flags.setdefault(flag, [])
            if more:
                left.append(f"-{more}")
    return flags, words


def find_files(verb: str, paths: Sequence[str], among: Collection[str]) -> set[str]:
    """The files that paths, folders and patterns stand for. Raises BadAnswer when one stands for none."""
    found: set[str] = set()
    for path in paths:
        plain = path.removeprefix("./").rstrip("/") if len(path) <= _LONGEST_PATH else ""
        parts = [] if path in (".", "./") else plain.split("/")
        # First as a shell reads a pattern, where a folder stands for all in it; else as git does.
        hits = {f for f in among if _expands(parts, f.split("/"))}
        hits = hits or {f for f in among if fnmatchcase(f, plain)}
        if not hits:
            raise BadAnswer(f"{verb} {path[:60]}: no such change")
        found |= hits
    return found


def _expands(pattern: Sequence[str], path: Sequence[str]) -> bool:
    return len(pattern) <= len(path) and all(
        fnmatchcase(name, part) and (part[:1] == "." or name[:1] != ".")
        for part, name in zip(pattern, path, strict=False)
    )


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
