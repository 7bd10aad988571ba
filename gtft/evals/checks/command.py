"""Checks on gt and bd commands: do they parse by the real command tree, and do they mean what was asked for.

The trees (`gtft/evals/trees`) are what ``--help`` of the tools says, made by ``scripts/command-trees``.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtft.evals.answer import Answer, BadAnswer, split_commands

TREES = Path(__file__).parent.parent / "trees"
PROGRAMS = ("bd", "gt")
# They change how a result is shown and nothing else.
_FORM = frozenset({"--json", "--quiet", "--no-pager"})
# gt's own words for bd's commands, handed on with all that follows.
_HANDED_ON = {"close": "close", "show": "show", "bead show": "show", "bead read": "show"}
_BD_TYPES = {"feat": "feature", "enhancement": "feature", "dec": "decision", "adr": "decision"}
_DURATION = re.compile(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+|0")
_NAME = re.compile(r"[\w-]+")
# What a shell would replace before the program sees it.
_EXPANDED = re.compile(r"[$`]")
_SHELL_FENCE = re.compile(r"```(?:bash|sh|shell|console|zsh)?[ \t]*\n(.*)\n```", re.S)


@dataclass(frozen=True)
class Command:
    """A command by its canonical names. ``flags``: long name → values; a switch has the value "true"."""

    program: str
    path: str
    words: tuple[str, ...]
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def show(self) -> str:
        return f"{self.program} {self.path}".strip()


@dataclass(frozen=True)
class Tree:
    """What a program knows. ``names``: every spelling of a path, aliases included → the path."""

    program: str
    common: Mapping[str, Mapping[str, str]]
    commands: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]

    def find_flag(self, path: str, name: str) -> tuple[str, Mapping[str, str]] | None:
        """A flag of a command by its long or short name: its long name and what is known of it."""
        own = self.commands[path]["flags"] if path else {}
        for flags in (own, self.common):
            for long, flag in flags.items():
                if name in (long, flag.get("short")):
                    return long, flag
        return None


@functools.cache
def load_tree(program: str) -> Tree:
    """The shipped tree of ``bd`` or ``gt``."""
    doc = json.loads((TREES / f"{program}.json").read_text("utf-8"))
    commands = doc["commands"]
    names = {path: path for path in commands}
    for path in sorted(commands, key=lambda p: p.count(" ")):
        parent, _, _ = path.rpartition(" ")
        for alias in commands[path]["aliases"]:
            names.setdefault(f"{parent} {alias}".strip(), path)
    return Tree(program, doc["common"], commands, names)


def read_script(answer: Answer) -> list[list[str]]:
    """The commands that the whole answer is: bare lines, one shell fence or Bash calls, no prose around.

    Raises BadAnswer.
    """
    if answer.calls:
        if answer.text or any(c.name.lower() != "bash" for c in answer.calls):
            raise BadAnswer("something else than commands stands around the calls")
        scripts = [c.arguments.get("command") for c in answer.calls]
    else:
        text = answer.text
        fenced = _SHELL_FENCE.fullmatch(text)
        inline = re.fullmatch(r"`([^`\n]+)`", text)
        scripts = [fenced[1] if fenced else inline[1] if inline else text]
    commands: list[list[str]] = []
    for script in scripts:
        if not isinstance(script, str):
            raise BadAnswer("a Bash call without a command")
        commands += split_commands(script)
    if not commands:
        raise BadAnswer("no command")
    return commands


def parse_command(words: Sequence[str]) -> Command:
    """One ``bd`` or ``gt`` command by its tree. Raises BadAnswer on what the program does not know."""
    if not words or words[0] not in PROGRAMS:
        raise BadAnswer(
            f"runs {words[0][:40] if words else 'nothing'}, not {' or '.join(PROGRAMS)}"
        )
    tree = load_tree(words[0])
    path, found, flags = "", [], _Flags(tree)
    rest = list(words[1:])[::-1]
    while rest:
        word = rest.pop()
        if word == "--":
            found += rest[::-1]
            break
        if word.startswith("-") and word != "-":
            flags.take(path, word, rest)
            continue
        if not word.strip("<>") and word:
            raise BadAnswer("redirects its input or output")
        below = None
        if not found and _NAME.fullmatch(word):
            below = tree.names.get(f"{path} {word}".strip())
        if below is None:
            found.append(word)
            continue
        path = below
        if tree.program == "gt" and path in _HANDED_ON:
            return parse_command(["bd", _HANDED_ON[path], *rest[::-1]])
        if tree.commands[path].get("open"):
            return Command(tree.program, path, tuple(rest[::-1]))
    _count_words(tree, path, found, flags.values)
    return Command(tree.program, path, tuple(found), flags.values)


class _Flags:
    """The flags of one command, as they come."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.values: dict[str, tuple[str, ...]] = {}

    def take(self, path: str, word: str, rest: list[str]) -> None:
        """One word that begins with a dash; a value may be taken from the end of ``rest``."""
        if word.startswith("--"):
            name, has_value, value = word.partition("=")
            self._add(path, name, value if has_value else None, rest)
            return
        letters = word[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            flag = self._find(path, name)[1]
            if flag["kind"] in ("", "string?"):
                self._add(path, name, None, rest)
            else:
                self._add(path, name, letters.removeprefix("=") if letters else None, rest)
                return

    def _find(self, path: str, name: str) -> tuple[str, Mapping[str, str]]:
        flag = self._tree.find_flag(path, name)
        if flag is None:
            shown = f"{self._tree.program} {path}".strip()
            if name in ("-h", "--help"):
                raise BadAnswer(f"{shown} is asked for its help")
            raise BadAnswer(f"{shown} has no flag {name[:40]}")
        return flag

    def _add(self, path: str, name: str, value: str | None, rest: list[str]) -> None:
        long, flag = self._find(path, name)
        kind = flag["kind"]
        if value is None and kind in ("", "string?"):
            value = "true"
        elif value is None:
            if not rest:
                raise BadAnswer(f"{long} without a value")
            value = rest.pop()
        if kind == "" and value not in ("true", "false"):
            raise BadAnswer(f"{long} takes no value")
        long = flag.get("same", long)
        values = _read_value(self._tree.program, long, kind, value)
        if long in self.values and kind not in ("strings", "stringArray", ""):
            raise BadAnswer(f"{long} is given twice")
        self.values[long] = (*self.values.get(long, ()), *values)


def _read_value(program: str, name: str, kind: str, value: str) -> tuple[str, ...]:
    value = " ".join(value.split())
    if kind == "strings":
        return tuple(part.strip() for part in value.split(","))
    if kind == "int":
        if not re.fullmatch(r"-?\d{1,9}", value, re.ASCII):
            raise BadAnswer(f"{name} {value[:40]} is no whole number")
        return (str(int(value)),)
    if kind == "duration" and not _DURATION.fullmatch(value):
        raise BadAnswer(f"{name} {value[:40]} is no duration")
    if name == "--priority" and re.fullmatch(r"[Pp][0-4]", value):
        return (value[1],)
    if name == "--type" and program == "bd":
        return (_BD_TYPES.get(value, value),)
    return (value,)


def _count_words(tree: Tree, path: str, words: Sequence[str], given: Collection[str]) -> None:
    shown = f"{tree.program} {path}".strip()
    args = tree.commands[path]["args"] if path else None
    if args is None:
        what = f"no command {words[0][:40]}" if words else "no command"
        raise BadAnswer(f"{shown}: {what}")
    least, most = args
    # Flags that stand for a word, such as gt mail send --to.
    least -= sum("word" in tree.commands[path]["flags"].get(f, {}) for f in given)
    if len(words) < least or (most is not None and len(words) > most):
        raise BadAnswer(
            f"{shown} with {len(words)} words, it takes {least} to {most or 'any number'}"
        )


def check_command(answer: Answer, args: Mapping[str, Any]) -> None:
    """The whole answer is one bd or gt command that means one of ``accept``.

    ``args``: accept, [command line, …]; free, flags whose text may be any (but must be there); any_order, true
    when the words behind the command may change places. Flags that only change the form of the output, and
    defaults that are spelled out, do not count.
    """
    commands = read_script(answer)
    if len(commands) != 1:
        raise BadAnswer(f"{len(commands)} commands where one is asked for")
    given = parse_command(commands[0])
    problems = [
        _compare(given, parse_command(split_commands(line)[0]), args) for line in args["accept"]
    ]
    if all(problems):
        raise BadAnswer(problems[0])


def _compare(given: Command, wanted: Command, args: Mapping[str, Any]) -> str:
    """What is wrong, "" when they mean the same."""
    if (given.program, given.path) != (wanted.program, wanted.path):
        return f"{given.show()}, not {wanted.show()}"
    words, right = (tuple(" ".join(w.split()) for w in c.words) for c in (given, wanted))
    if words != right and not (args.get("any_order") and sorted(words) == sorted(right)):
        return f"{given.show()} of {_list(words)}, not {_list(right)}"
    free = set(args.get("free", []))
    there, asked = _weigh(given), _weigh(wanted)
    there = {k: v for k, v in there.items() if k in asked or k not in _FORM}
    for name in sorted(there.keys() | asked.keys()):
        if name not in asked:
            return f"{name} was not asked for"
        if name not in there:
            return f"{name} is missing"
        if name in free:
            if not all(v.strip() and not _EXPANDED.search(v) for v in there[name]):
                return f"{name} is empty, or not plain text"
        elif there[name] != asked[name]:
            return f"{name} {_list(there[name])}, not {_list(asked[name])}"
    return ""


def _weigh(command: Command) -> dict[str, tuple[str, ...]]:
    """The flags without those that say what holds anyway; lists in one order."""
    tree = load_tree(command.program)
    found: dict[str, tuple[str, ...]] = {}
    for name, values in command.flags.items():
        flag = tree.find_flag(command.path, name)
        kind, default = (flag[1]["kind"], flag[1].get("default")) if flag else ("", None)
        if kind == "" and values[-1] == "false" and default != "true":
            continue
        if default is not None and values == (default,):
            continue
        found[name] = tuple(sorted(set(values))) if kind != "" else values[-1:]
    return found


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)[:80] or "nothing"
