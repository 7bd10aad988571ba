"""What examples teach that gt and bd no longer know: commands, flags, statuses, formulas.

Read are the commands in tool calls, in fenced code, and an answer that is itself a command. What a tool
printed is not read. A word that a shell would fill in, or a placeholder like ``<bead>``, is never judged.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from gtft.corpus.health.commands import Command, CommandList, Program
from gtft.corpus.health.shell_lines import split_commands

KINDS = ("unknown command", "unknown flag", "unknown status", "unknown formula")

_CALLED = re.compile(r"(?:^|[\s\"'`(;&|$/])(?:gt|bd)[ \t]+[a-z-]")
_COMMAND_KEYS = frozenset({"command", "cmd", "script", "commandline", "commands", "input"})
_FENCE = re.compile(r"^[ \t]*(?:```+|~~~+)[ \t]*([\w+-]*)", re.M)
_SHELL_FENCES = frozenset({"bash", "sh", "shell", "zsh", "console", "terminal", "shell-session"})
_PROMPT = re.compile(r"^[ \t]*[$❯>%] +(?=\S)", re.M)
_LINE = re.compile(r"(?:gt|bd) ")
_MOST_FENCES = 100
_WORD = re.compile(r"[a-z][a-z0-9-]*")
_FLAG = re.compile(r"--[a-z][a-z0-9-]*|-[A-Za-z]+")
_STATUS = re.compile(r"[a-z][a-z_]*")
_FORMULA = re.compile(r"mol-[a-z]{3,}(?:-[a-z0-9]+)+")
_HAVE_STATUS = frozenset({"bd list", "bd update", "bd count", "bd search"})
_HAVE_FORMULA = frozenset(
    {
        "bd cook", "bd mol pour", "bd mol wisp", "bd mol wisp create", "bd formula show",
        "gt formula run", "gt formula show", "gt sling",
    }
)  # fmt: skip
_OWN_FORMULAS = "mol-gtft-"


class Stale(NamedTuple):
    """``kind`` is one of `KINDS`; ``what`` names it as it was written: "bd sync", "bd list --ready-only"."""

    kind: str
    what: str


class Uses(NamedTuple):
    """How many commands of gt and bd a text holds, and which of them are stale."""

    seen: int
    stale: tuple[Stale, ...]


NONE = Uses(0, ())


def find_uses(message: dict[str, Any], known: CommandList) -> Uses:
    """The commands of gt and bd that one message of a user or an assistant holds."""
    seen = 0
    stale: list[Stale] = []
    for text in list_shell(message):
        for words in split_commands(text):
            program = known.programs.get(PurePosixPath(words[0]).name if words[0] else "")
            if program is not None and len(words) > 1:
                seen += 1
                stale += _judge(words, program, known)
    return Uses(seen, tuple(stale)) if seen else NONE


def list_shell(message: dict[str, Any]) -> Iterator[str]:
    """The texts of shell in one message that may call gt or bd."""
    for call in message.get("tool_calls") or ():
        arguments = call["function"].get("arguments")
        if isinstance(arguments, dict):
            for key, value in arguments.items():
                if key.lower() in _COMMAND_KEYS:
                    yield from _read_argument(value)
    content = message["content"]
    if "gt " not in content and "bd " not in content:
        return
    if message["role"] == "assistant" and _is_command(content):
        yield content
    elif "```" in content or "~~~" in content:
        yield from _list_fenced(content)


def _is_command(content: str) -> bool:
    """An answer that is nothing but commands; prose may begin with a program's name as well."""
    return (
        _LINE.match(content) is not None
        and "`" not in content
        and not content.rstrip().endswith((".", "!", "?", ":"))
    )


def _read_argument(value: Any) -> Iterator[str]:
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        # ["bash", "-lc", "bd ready"], or the words of one command.
        value = value[2] if len(value) == 3 and value[1] in ("-c", "-lc") else shlex.join(value)
    if isinstance(value, str) and _CALLED.search(value[:20_000]):
        yield value


def _list_fenced(content: str) -> Iterator[str]:
    """The shell in fenced code: what says so, or what begins with a command or a prompt."""
    opened: re.Match[str] | None = None
    for n, fence in enumerate(_FENCE.finditer(content)):
        if n >= 2 * _MOST_FENCES:
            return
        if opened is None:
            opened = fence
            continue
        body = content[opened.end() : fence.start()].strip("\n")
        name = opened[1].lower()
        opened = None
        if not _CALLED.search(body):
            continue
        prompted = _PROMPT.search(body) is not None
        if prompted and (name in _SHELL_FENCES or not name):
            # A session: only what stands behind a prompt was typed.
            typed = [line for line in body.splitlines() if _PROMPT.match(line)]
            yield _PROMPT.sub("", "\n".join(typed))
        elif name in _SHELL_FENCES or (not name and _LINE.match(body.lstrip())):
            yield body


def _judge(words: list[str], program: Program, known: CommandList) -> Iterator[Stale]:
    path, rest = "", 1
    while rest < len(words):
        word = words[rest]
        if word == "--":
            break
        if word.startswith("-"):
            takes = _takes_value(word, program.commands[path], program.commands[""])
            rest += 2 if takes else 1
            continue
        child = program.children.get((path, word))
        if child is None:
            if word == "help" or program.commands[path].open:
                return
            bare = path in program.groups and not program.commands[path].takes_words
            if bare and _WORD.fullmatch(word):
                yield Stale("unknown command", " ".join(filter(None, (program.name, path, word))))
                return
            break
        path, rest = child, rest + 1
    command = program.commands[path]
    if not command.open:
        called = f"{program.name} {path}".strip()
        yield from _judge_arguments(words[1:], called, command, program.commands[""], known)


def _judge_arguments(
    words: list[str], called: str, command: Command, root: Command, known: CommandList
) -> Iterator[Stale]:
    at = 0
    while at < len(words) and words[at] != "--":
        word, at = words[at], at + 1
        if not word.startswith("-"):
            if called in _HAVE_FORMULA:
                yield from _judge_formula(word, known)
            continue
        name, equals, value = word.partition("=")
        unknown = _find_unknown(name, command, root)
        if unknown:
            yield Stale("unknown flag", f"{called} {unknown}")
        elif not equals and _takes_value(name, command, root):
            value, at = (words[at] if at < len(words) else ""), at + 1
        if name in ("--status", "-s") and called in _HAVE_STATUS:
            for status in value.split(","):
                if _STATUS.fullmatch(status) and status not in known.statuses and status != "all":
                    yield Stale("unknown status", f"{called} --status {status}")
        elif name in ("--on", "--formula") and called in _HAVE_FORMULA:
            yield from _judge_formula(value, known)


def _judge_formula(word: str, known: CommandList) -> Iterator[Stale]:
    if (
        _FORMULA.fullmatch(word)
        and word not in known.formulas
        and not word.startswith(_OWN_FORMULAS)
    ):
        yield Stale("unknown formula", word)


def _find_unknown(name: str, command: Command, root: Command) -> str:
    """The flag in ``name`` that is not known; "" when all are, or when it is no flag to be judged."""
    if not _FLAG.fullmatch(name):
        return ""
    if name.startswith("--"):
        known = name in command.flags or name in root.flags or name == "--help"
        return "" if known else name
    for letter in name[1:]:
        takes = command.flags.get(f"-{letter}", root.flags.get(f"-{letter}"))
        if takes is None and letter != "h":
            return f"-{letter}"
        if takes:
            return ""
    return ""


def _takes_value(word: str, command: Command, root: Command) -> bool:
    """Does the next word belong to this flag?"""
    if "=" in word:
        return False
    if word.startswith("--"):
        return command.flags.get(word, root.flags.get(word, False))
    for n, letter in enumerate(word[1:], start=2):
        if command.flags.get(f"-{letter}", root.flags.get(f"-{letter}", False)):
            return n == len(word)
    return False
