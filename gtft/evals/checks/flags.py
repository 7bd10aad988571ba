"""A ``bd`` command line taken apart as bd's own flag library (pflag) does it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gtft.evals.answer import BadAnswer

# text: the last value counts. list: comma-separated, adds up. switch: without a value. barred: see Unjudged.
Kind = Literal["text", "list", "switch", "barred"]
_FIELD = re.compile(r'"((?:[^"]|"")*)"|([^",\r\n]*)')
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class Unjudged(BadAnswer):
    """A flag that is neither computed nor run here: it reads a file, leaves the database, or is not known.

    ``flag``: its name as bd's help writes it, such as ``--file`` or ``-f``.
    """

    def __init__(self, message: str, flag: str) -> None:
        super().__init__(message)
        self.flag = flag


@dataclass(frozen=True)
class Words:
    """``lists`` and ``texts`` by flag name without dashes; ``on``: the switches that are set."""

    positional: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    on: frozenset[str] = frozenset()


def read_words(words: Sequence[str], flags: Mapping[str, Kind], short: Mapping[str, str]) -> Words:
    """``flags``: long names; ``short``: letter → long name. Flags and other words may be mixed; ``--`` ends flags.

    Raises Unjudged on a barred or unknown flag wherever it stands, else BadAnswer on what bd would refuse.
    """
    positional: list[str] = []
    texts: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    on: dict[str, bool] = {}
    wrong: list[BadAnswer] = []
    left = list(reversed(words))

    def take(name: str, shown: str, value: str | None) -> None:
        kind = flags.get(name, "barred")
        if kind == "barred":
            known = "is not judged here" if name in flags else "is unknown to bd"
            raise Unjudged(f"{shown[:40]} {known}", shown)
        if kind == "switch":
            if value is not None and value not in _TRUE | _FALSE:
                wrong.append(BadAnswer(f"{shown} is a switch and takes no {value[:40]}"))
            on[name] = value not in _FALSE
            return
        if value is None:
            if not left:
                wrong.append(BadAnswer(f"{shown} without a value"))
                return
            value = left.pop()
        if kind == "list":
            fields = split_list(value)
            if fields is None:
                wrong.append(BadAnswer(f"{shown} has a stray quote"))
            lists[name] = (*lists.get(name, ()), *(fields or ()))
        else:
            texts[name] = value

    while left:
        word = left.pop()
        if word == "--":
            positional += reversed(left)
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            take(name, f"--{name}", value if equals else None)
        elif word.startswith("-") and len(word) > 1:
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                name = short.get(letter, "")
                if flags.get(name) == "switch" and not letters.startswith("="):
                    take(name, f"-{letter}", None)
                    continue
                take(name, f"-{letter}", letters.removeprefix("=") if letters else None)
                break
        else:
            positional.append(word)
    if wrong:
        raise wrong[0]
    names = frozenset(k for k, v in on.items() if v)
    return Words(tuple(positional), texts, lists, names)


def split_list(text: str) -> tuple[str, ...] | None:
    """The fields of the first line of ``text`` as CSV; None when a quote stands where none may."""
    if not text:
        return ()
    found: list[str] = []
    at = 0
    while True:
        match = _FIELD.match(text, at)
        if match is None:
            return None
        quoted, plain = match.groups()
        found.append(plain if quoted is None else quoted.replace('""', '"'))
        at = match.end()
        if at == len(text) or text[at] in "\r\n":
            return tuple(found)
        if text[at] != ",":
            return None
        at += 1
