"""The simple commands in a text of shell: words without quotes, one list per command.

Not a shell: it expands nothing. A word that a shell would fill in keeps its ``$``, so that a reader can
leave it alone. Linear in the length of the text, and bounded in length, depth and number of commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath

MOST_CHARACTERS = 20_000
MOST_COMMANDS = 200
_DEEPEST = 4
_FURTHEST_BEHIND_WRAPPER = 8

_PLAIN = re.compile(r"[^\s'\"\\$`|&;()<>#]+")
_QUOTED = re.compile(r'[^"\\$`]+')
_PLACEHOLDER = re.compile(r"<[A-Za-z][\w .:/|-]{0,40}>")
_HEREDOC = re.compile(r"<<-?[ \t]*(['\"]?)([\w.-]{1,64})\1")
_SHELLS = frozenset({"bash", "sh", "zsh", "dash"})
_WRAPPERS = frozenset(
    {
        "if", "then", "else", "elif", "while", "until", "do", "!", "{", "time", "sudo", "env", "timeout",
        "nohup", "nice", "exec", "command", "xargs", "watch", "stdbuf",
    }
)  # fmt: skip
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")


def split_commands(text: str) -> Iterator[list[str]]:
    """Each simple command, those in ``$(…)``, backticks and ``bash -c`` included; here-documents are not read."""
    reader = _Reader()
    reader.read(text[:MOST_CHARACTERS], 0)
    return iter(reader.found)


@dataclass
class _Reader:
    found: list[list[str]] = field(default_factory=list)

    def read(self, text: str, depth: int) -> None:
        if depth > _DEEPEST:
            return
        words: list[str] = []
        word: list[str] | None = None
        skip = False
        heredocs: list[str] = []
        at, end = 0, len(text)

        def add(piece: str) -> None:
            nonlocal word
            word = [] if word is None else word
            word.append(piece)

        def end_word() -> None:
            nonlocal word, skip
            if word is not None:
                if not skip:
                    words.append("".join(word))
                skip, word = False, None

        def end_command() -> None:
            nonlocal words
            end_word()
            if words:
                self.keep(words, depth)
            words = []

        while at < end and len(self.found) < MOST_COMMANDS:
            c = text[at]
            if run := _PLAIN.match(text, at):
                add(run[0])
                at = run.end()
            elif c == "\n":
                end_command()
                at = _skip_heredocs(text, at + 1, heredocs)
                heredocs = []
            elif c.isspace():
                end_word()
                at += 1
            elif c == "#":
                if word is None:
                    at = _find(text, "\n", at)
                else:
                    word.append(c)
                    at += 1
            elif c == "\\":
                if text[at + 1 : at + 2] != "\n":
                    add(text[at + 1 : at + 2])
                at += 2
            elif c == "'":
                close = _find(text, "'", at + 1)
                add(text[at + 1 : close])
                at = close + 1
            elif c == '"':
                inner, at = self.read_quoted(text, at + 1, depth)
                add(inner)
            elif c in "$`":
                inner, at = self.read_filled(text, at, depth)
                add(inner)
            elif c in "<>":
                if word is not None and "".join(word).isdigit():
                    word = None
                if c == "<" and (shown := _PLACEHOLDER.match(text, at)):
                    add(shown[0])
                    at = shown.end()
                    continue
                end_word()
                if c == "<" and (here := _HEREDOC.match(text, at)):
                    heredocs.append(here[2])
                    at = here.end()
                    continue
                while at < end and text[at] in "<>&|":
                    at += 1
                skip = True
            elif text.startswith("&>", at):
                end_word()
                at, skip = at + 2, True
            else:
                # | & ; ( ) and their doubles.
                end_command()
                at += 1
        end_command()

    def keep(self, words: list[str], depth: int) -> None:
        bare = _unwrap(words)
        if not bare or len(self.found) >= MOST_COMMANDS:
            return
        self.found.append(bare)
        if _name(bare[0]) in _SHELLS:
            for flag, inner in pairwise(bare[1:4]):
                if flag.startswith("-") and flag.endswith("c"):
                    self.read(inner, depth + 1)
                    return

    def read_quoted(self, text: str, at: int, depth: int) -> tuple[str, int]:
        """What stands in double quotes from ``at`` on, and where it goes on behind them."""
        parts: list[str] = []
        while at < len(text):
            c = text[at]
            if c == '"':
                return "".join(parts), at + 1
            if c == "\\":
                parts.append(text[at + 1 : at + 2])
                at += 2
            elif c in "$`":
                inner, at = self.read_filled(text, at, depth)
                parts.append(inner)
            else:
                run = _QUOTED.match(text, at)
                parts.append(run[0] if run else c)
                at = run.end() if run else at + 1
        return "".join(parts), at

    def read_filled(self, text: str, at: int, depth: int) -> tuple[str, int]:
        """``$x``, ``${x}``, ``$(…)`` or backticks: shown as ``$``, commands inside are read."""
        if text[at] == "`":
            close = _find(text, "`", at + 1)
            self.read(text[at + 1 : close], depth + 1)
            return "$", close + 1
        if text.startswith("$(", at):
            close = _find_close(text, at + 2)
            self.read(text[at + 2 : close], depth + 1)
            return "$", close + 1
        if text.startswith("${", at):
            return "$", _find(text, "}", at + 2) + 1
        return "$", at + 1


def _unwrap(words: list[str]) -> list[str]:
    """The words without what stands before a command: ``if``, ``A=b``, ``sudo -u x``, ``timeout 30``."""
    at = 0
    while at < len(words) and (words[at] in _WRAPPERS or _ASSIGNMENT.match(words[at])):
        if words[at] in _WRAPPERS:
            reach = range(at + 1, min(len(words), at + _FURTHEST_BEHIND_WRAPPER))
            known = (n for n in reach if _name(words[n]) in {"gt", "bd", *_SHELLS})
            at = next(known, at + 1)
        else:
            at += 1
    return words[at:]


def _name(word: str) -> str:
    return PurePosixPath(word).name if "/" in word else word


def _find(text: str, what: str, at: int) -> int:
    found = text.find(what, at)
    return len(text) if found < 0 else found


def _find_close(text: str, at: int) -> int:
    """Where the parenthesis that was opened before ``at`` closes; the end of the text when it does not."""
    open_now, n = 1, len(text)
    while at < n:
        c = text[at]
        if c == "\\":
            at += 1
        elif c == "'":
            at = _find(text, "'", at + 1)
        elif c == "(":
            open_now += 1
        elif c == ")":
            open_now -= 1
            if not open_now:
                return at
        at += 1
    return n


def _skip_heredocs(text: str, at: int, delimiters: list[str]) -> int:
    for delimiter in delimiters:
        while at < len(text):
            stop = _find(text, "\n", at)
            line = text[at:stop]
            at = stop + 1
            if line.strip() == delimiter:
                break
    return at
