"""What a model answered, taken apart: text, fenced blocks, tool calls, shell commands.

An answer is hostile until proven otherwise: it is cut off by length before anything parses it, and whatever
does not parse is a reason to fail, never an exception.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LONGEST_ANSWER = 16_000
_DEEPEST = 40
_CALL_OPEN = "<tool_call>"
_CALL_CLOSE = "</tool_call>"
_SHELLS = frozenset({"", "bash", "sh", "shell", "console", "zsh"})
_SEPARATORS = ";&|()\n"
_REDIRECTS = "<>"


class BadAnswer(Exception):
    """The answer is not in the form that was asked for; the message says in which way."""


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language tag in lower case ("" without one) and its body."""

    language: str
    body: str


@dataclass(frozen=True)
class Answer:
    """``text`` is what stands outside tool calls."""

    text: str
    calls: tuple[ToolCall, ...]
    fences: tuple[Fence, ...]

    def commands(self) -> list[list[str]]:
        """The shell commands of its Bash calls and shell fences, else of a bare ``bd``/``gt`` line.

        Raises BadAnswer when one does not parse.
        """
        scripts = [c.arguments.get("command") for c in self.calls if c.name.lower() == "bash"]
        scripts += [f.body for f in self.fences if f.language in _SHELLS]
        if not scripts and re.match(r"(bd|gt) ", self.text.strip()):
            scripts = [self.text.strip()]
        found: list[list[str]] = []
        for script in scripts:
            if not isinstance(script, str):
                raise BadAnswer("a Bash call without a command")
            found += split_commands(script)
        return found


def parse_answer(output: str) -> Answer:
    """Take an answer apart. Raises BadAnswer when it is too long or a tool call is damaged."""
    if len(output) > LONGEST_ANSWER:
        raise BadAnswer(f"{len(output)} characters, more than {LONGEST_ANSWER}")
    text, calls = _take_calls(output)
    return Answer(text.strip(), tuple(calls), tuple(_fences(text)))


def parse_object(answer: Answer) -> dict[str, Any]:
    """The one JSON object that the whole answer is; a single fence around it is allowed.

    Raises BadAnswer on any other text, a second value, a repeated key, NaN or deep nesting.
    """
    if answer.calls:
        raise BadAnswer("a tool call instead of a JSON object")
    text = answer.text
    fenced = re.fullmatch(r"```(?:json)?[ \t]*\n(.*)\n```", text, re.S)
    return load_object(fenced.group(1) if fenced else text)


def load_object(text: str) -> dict[str, Any]:
    """`json.loads`, strict. Raises BadAnswer."""
    if not _is_shallow(text):
        raise BadAnswer("nested too deeply")
    try:
        value = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constants)
    except (ValueError, RecursionError) as e:
        raise BadAnswer(f"not one JSON object: {str(e)[:80]}") from e
    if not isinstance(value, dict):
        raise BadAnswer(f"JSON, but a {type(value).__name__} and not an object")
    return value


def split_commands(script: str) -> list[list[str]]:
    """A shell script as lists of words, cut at ``; & | ( )`` and line ends; redirections stay words.

    Raises BadAnswer on unbalanced quotes. It is a reader, not a shell: nothing is expanded.
    """
    lexer = shlex.shlex(
        script.replace("\\\n", " "), posix=True, punctuation_chars=_SEPARATORS + _REDIRECTS
    )
    lexer.whitespace_split = True
    lexer.whitespace = " \t\r"
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word and not word.strip(_SEPARATORS):
                commands.append([])
            else:
                commands[-1].append(word)
    except ValueError as e:
        raise BadAnswer(f"a shell line that does not parse: {e}") from e
    return [c for c in commands if c and not c[0].startswith("#")]


def _take_calls(output: str) -> tuple[str, list[ToolCall]]:
    calls: list[ToolCall] = []
    text: list[str] = []
    at = 0
    while (start := output.find(_CALL_OPEN, at)) >= 0:
        end = output.find(_CALL_CLOSE, start)
        if end < 0:
            raise BadAnswer("a tool call that does not end")
        doc = load_object(output[start + len(_CALL_OPEN) : end])
        name, arguments = doc.get("name"), doc.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise BadAnswer("a tool call without name and arguments")
        calls.append(ToolCall(name, arguments))
        text.append(output[at:start])
        at = end + len(_CALL_CLOSE)
    text.append(output[at:])
    return "".join(text), calls


def _fences(text: str) -> Iterator[Fence]:
    language: str | None = None
    body: list[str] = []
    for line in text.split("\n"):
        if not line.startswith("```"):
            body.append(line)
        elif language is None:
            language, body = line[3:].strip().lower(), []
        else:
            yield Fence(language, "\n".join(body))
            language = None


def _is_shallow(text: str) -> bool:
    depth = 0
    for bracket in re.findall(r"[\[{\]}]", text):
        depth += 1 if bracket in "[{" else -1
        if depth > _DEEPEST:
            return False
    return True


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
