"""A shell script as its simple commands, those of substitutions included: read, never run.

Quotes, escapes, here-documents and redirections are followed. What only a running shell knows (the output of a
command, the value of a variable) becomes `UNKNOWN` in a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gtft.evals.answer import BadAnswer

UNKNOWN = "\0"
_DEEPEST = 12
_NAME = re.compile(r"[A-Za-z_]\w*", re.A)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)\+?=(.*)", re.S | re.A)
_SETTERS = frozenset({"export", "declare", "local", "readonly", "typeset"})
_ANSI = re.compile(r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|[0-7]{1,3}|.)", re.S)
_ANSI_NAMES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_PARENS = re.compile(r"[()]")
_BLANKS = " \t\r"
_ENDS_WORD = _BLANKS + "\n;&|()<>"


@dataclass
class Command:
    """One simple command. ``writes`` and ``appends``: targets of its redirections.

    ``stdin``: the text that it is given, with UNKNOWN where that is not known; None when nothing is.
    """

    words: list[str] = field(default_factory=list)
    assigned: dict[str, str] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    appends: list[str] = field(default_factory=list)
    stdin: str | None = None


def read_script(script: str) -> list[Command]:
    """The commands in the order in which they stand. Raises BadAnswer when it is no whole script.

    Time is linear in the script's length, which the caller bounds.
    """
    reader = _Reader(script, 0)
    reader.read()
    return reader.commands


class _Reader:
    def __init__(self, text: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise BadAnswer("commands nested too deeply to check")
        self.text = text
        self.at = 0
        self.depth = depth
        self.commands: list[Command] = []
        self._waiting: list[tuple[Command, str, bool, bool]] = []

    def read(self, *, until_paren: bool = False) -> None:
        """Read to the end, or behind the ``)`` that closes a substitution."""
        current = Command()
        open_parens = 0
        while self.at < len(self.text):
            c = self.text[self.at]
            if c in _BLANKS:
                self.at += 1
            elif c == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif c == "\n":
                self.at += 1
                current = self._end(current)
                self._read_documents()
            elif self.text.startswith("&>", self.at):
                self.at += 1
                self._redirect(current)
            elif c in ";&|":
                piped = c == "|" and self.text[self.at : self.at + 2] != "||"
                self.at += 2 if self.text[self.at : self.at + 2] in ("||", "&&", "|&", ";;") else 1
                current = self._end(current)
                current.stdin = UNKNOWN if piped else None
            elif self.text.startswith("((", self.at) and not current.words:
                self._skip_arithmetic(2)
                current.words.append(":")
            elif c == "(":
                self.at += 1
                open_parens += 1
                current = self._end(current)
            elif c == ")":
                self.at += 1
                current = self._end(current)
                if until_paren and open_parens == 0:
                    if self._waiting:
                        raise BadAnswer("a here-document that does not end")
                    return
                open_parens = max(0, open_parens - 1)
            elif c in "<>" and self.text[self.at + 1 : self.at + 2] != "(":
                self._redirect(current)
            else:
                _add(current, self._read_word())
        if until_paren:
            raise BadAnswer("a shell line that does not parse: no closing parenthesis")
        self._end(current)
        self._read_documents()

    def _end(self, command: Command) -> Command:
        if command.words or command.assigned or command.writes or command.appends:
            self.commands.append(command)
        return Command()

    def _redirect(self, command: Command) -> None:
        """At ``<`` or ``>``; a file descriptor's number before it is the last word."""
        number = self.at and self.text[self.at - 1].isdigit()
        if number and command.words and command.words[-1].isdigit():
            command.words.pop()
        operator = next(
            o
            for o in ("<<<", "<<-", "<<", "<&", "<>", "<", ">>", ">&", ">|", ">")
            if self.text.startswith(o, self.at)
        )
        self.at += len(operator)
        while self.at < len(self.text) and self.text[self.at] in _BLANKS:
            self.at += 1
        start = self.at
        quoted = self.text[start : start + 1] in ("'", '"', "\\")
        target = self._read_word()
        if not target and self.at == start:
            raise BadAnswer("a redirection to nowhere")
        if operator in ("<<", "<<-"):
            self._waiting.append((command, target, quoted, operator == "<<-"))
        elif operator == "<<<":
            command.stdin = target
        elif operator in ("<", "<&"):
            command.stdin = UNKNOWN
        elif operator == ">>":
            command.appends.append(target)
        elif not (operator == ">&" and (target.isdigit() or target == "-")):
            command.writes.append(target)

    def _read_documents(self) -> None:
        for command, end, quoted, indented in self._waiting:
            lines: list[str] = []
            while self.at < len(self.text):
                stop = self.text.find("\n", self.at)
                stop = len(self.text) if stop < 0 else stop
                line = self.text[self.at : stop]
                self.at = stop + 1
                if (line.lstrip("\t") if indented else line) == end:
                    break
                lines.append(line)
            body = "\n".join(lines)
            command.stdin = body if quoted else self._expand(body)
        self._waiting = []
        self.at = min(self.at, len(self.text))

    def _at_word(self) -> bool:
        text, at = self.text, self.at
        return at < len(text) and (text[at] not in _ENDS_WORD or text[at : at + 2] in ("<(", ">("))

    def _read_word(self) -> str:
        out: list[str] = []
        while self._at_word():
            c = self.text[self.at]
            if c == "'":
                out.append(self._to("'"))
            elif c == '"':
                out.append(self._quoted())
            elif c == "$":
                out.append(self._dollar(quoted=False))
            elif c == "\\":
                out.append(self.text[self.at + 1 : self.at + 2].replace("\n", ""))
                self.at += 2
            elif c == "`":
                out.append(self._backtick())
            elif c in "<>":
                self.at += 2
                self._inner()
                out.append(UNKNOWN)
            else:
                start = self.at
                while self.at < len(self.text) and self.text[self.at] not in _ENDS_WORD + "'\"$\\`":
                    self.at += 1
                out.append(self.text[start : self.at])
        return "".join(out)

    def _quoted(self) -> str:
        self.at += 1
        out: list[str] = []
        while self.at < len(self.text):
            c = self.text[self.at]
            if c == '"':
                self.at += 1
                return "".join(out)
            out.append(self._inside(c, escapes='$`"\\\n'))
        raise BadAnswer("a shell line that does not parse: no closing quotation")

    def _inside(self, c: str, escapes: str) -> str:
        if c == "\\" and self.text[self.at + 1 : self.at + 2] in tuple(escapes):
            self.at += 2
            return self.text[self.at - 1].replace("\n", "")
        if c == "$":
            return self._dollar(quoted=True)
        if c == "`":
            return self._backtick()
        self.at += 1
        return c

    def _expand(self, text: str) -> str:
        """A here-document's body: only ``$``, backticks and backslashes mean something."""
        reader = self._child(text)
        out: list[str] = []
        while reader.at < len(text):
            out.append(reader._inside(text[reader.at], escapes="$`\\\n"))
        return "".join(out)

    def _dollar(self, *, quoted: bool) -> str:
        after = self.text[self.at + 1 : self.at + 2]
        if self.text.startswith("$((", self.at):
            self._skip_arithmetic(3)
            return UNKNOWN
        if after == "(":
            self.at += 2
            self._inner()
            return UNKNOWN
        if after == "{":
            end = _find_close(self.text, self.at + 1)
            name = self.text[self.at + 2 : end]
            self.at = end + 1
            self._expand(name)
            return UNKNOWN
        if after == "'" and not quoted:
            self.at += 1
            return self._ansi()
        if after == '"' and not quoted:
            self.at += 1
            return self._quoted()
        if found := _NAME.match(self.text, self.at + 1):
            self.at = found.end()
            return UNKNOWN
        self.at += 1
        if after and after in "@*#?$!-0123456789":
            self.at += 1
            return UNKNOWN
        return "$"

    def _inner(self) -> None:
        """Read a substitution in place, so that no text is read twice."""
        if self.depth >= _DEEPEST:
            raise BadAnswer("commands nested too deeply to check")
        waiting, self._waiting, self.depth = self._waiting, [], self.depth + 1
        self.read(until_paren=True)
        self._waiting, self.depth = waiting, self.depth - 1

    def _backtick(self) -> str:
        start = self.at + 1
        at = start
        while at < len(self.text) and self.text[at] != "`":
            at += 2 if self.text[at] == "\\" else 1
        if at >= len(self.text):
            raise BadAnswer("a shell line that does not parse: no closing backtick")
        self.at = at + 1
        self._child(re.sub(r"\\([`$\\])", r"\1", self.text[start:at])).read()
        return UNKNOWN

    def _child(self, text: str) -> _Reader:
        child = _Reader(text, self.depth + 1)
        child.commands = self.commands
        return child

    def _skip_arithmetic(self, opening: int) -> None:
        """Arithmetic ends with two parentheses at once; bash reads anything else as commands in commands."""
        depth = 2
        for found in _PARENS.finditer(self.text, self.at + opening):
            depth += 1 if found.group() == "(" else -1
            if depth == 1:
                start, end = self.at + opening, found.start()
                if self.text[end + 1 : end + 2] != ")":
                    break
                self._expand(self.text[start:end])
                self.at = end + 2
                return
        raise BadAnswer("double parentheses that are no arithmetic")

    def _to(self, mark: str) -> str:
        end = self.text.find(mark, self.at + 1)
        if end < 0:
            raise BadAnswer("a shell line that does not parse: no closing quotation")
        piece = self.text[self.at + 1 : end]
        self.at = end + 1
        return piece

    def _ansi(self) -> str:
        start = at = self.at + 1
        while at < len(self.text) and self.text[at] != "'":
            at += 2 if self.text[at] == "\\" else 1
        if at >= len(self.text):
            raise BadAnswer("a shell line that does not parse: no closing quotation")
        self.at = at + 1
        return _ANSI.sub(_unescape, self.text[start:at])


def _add(command: Command, word: str) -> None:
    setting = not command.words or command.words[0] in _SETTERS
    found = _ASSIGNMENT.fullmatch(word) if setting else None
    if found:
        command.assigned[found.group(1)] = found.group(2)
    if not found or command.words:
        command.words.append(word)


def _unescape(found: re.Match[str]) -> str:
    code = found.group(1)
    if code[0] in "xuU" and len(code) > 1:
        number = int(code[1:], 16)
        return chr(number) if 0 < number < 0x110000 else UNKNOWN
    if code[0] in "01234567":
        return chr(int(code, 8) & 0xFF) if int(code, 8) & 0xFF else UNKNOWN
    return _ANSI_NAMES.get(code, code)


def _find_close(text: str, at: int) -> int:
    depth = 0
    for found in _braces(text, at):
        depth += 1 if text[found] == "{" else -1
        if depth == 0:
            return found
    raise BadAnswer("a shell line that does not parse: no closing brace")


def _braces(text: str, at: int) -> Iterator[int]:
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "{}":
            yield at
        at += 1
