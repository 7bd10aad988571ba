"""The commands, flags, statuses and formulas that gt and bd know: the shipped list, and how it is looked up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class Command:
    """One command of a program, as its ``--help`` shows it.

    ``flags`` maps each flag to "does it take a value". ``takes_words``: what follows may be an argument
    and not a sub-command. ``open``: flags are handed on to another program and cannot be judged.
    """

    flags: Mapping[str, bool] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    takes_words: bool = True
    open: bool = False


@dataclass(frozen=True)
class Program:
    """``commands`` by path: "" is the program itself, "mail send" a sub-command. ``hidden``: commands and
    flags ("list --state") that its help does not show."""

    name: str
    version: str
    commands: Mapping[str, Command]
    # (path, word) → path of the sub-command, aliases included.
    children: Mapping[tuple[str, str], str]
    groups: frozenset[str]
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class CommandList:
    programs: Mapping[str, Program]
    statuses: frozenset[str]
    formulas: frozenset[str]

    def describe(self) -> str:
        return ", ".join(f"{p.name} {p.version}" for _, p in sorted(self.programs.items()))

    def with_formulas(self, names: frozenset[str]) -> CommandList:
        """The same list, and a town's own formulas beside the shipped ones."""
        return replace(self, formulas=self.formulas | names)


@cache
def load_commands() -> CommandList:
    """The list that gtft ships (written by ``scripts/command-list``): the same on every machine."""
    text = files("gtft.corpus.health").joinpath("commands.json").read_text("utf-8")
    return read_commands(json.loads(text))


def read_commands(doc: dict[str, Any]) -> CommandList:
    """A list from its JSON form. Raises KeyError, TypeError or ValueError on another shape."""
    if doc["format"] != FORMAT:
        raise ValueError(f"format {doc['format']}, expected {FORMAT}")
    return CommandList(
        {name: _read_program(name, p) for name, p in doc["programs"].items()},
        frozenset(doc["statuses"]),
        frozenset(doc["formulas"]),
    )


def _read_program(name: str, doc: dict[str, Any]) -> Program:
    commands = {path: _read_command(c) for path, c in doc["commands"].items()}
    children: dict[tuple[str, str], str] = {}
    for path, command in commands.items():
        parent, _, word = path.rpartition(" ")
        if path:
            for called in (word, *command.aliases):
                children.setdefault((parent, called), path)
    groups = frozenset(parent for parent, _ in children)
    hidden = tuple(doc.get("hidden", ()))
    return Program(name, doc["version"], commands, children, groups, hidden)


def _read_command(doc: dict[str, Any]) -> Command:
    flags = doc.get("flags", "").split()
    return Command(
        {f.rstrip("="): f.endswith("=") for f in flags},
        tuple(doc.get("aliases", ())),
        bool(doc.get("words", False)),
        bool(doc.get("open", False)),
    )
