"""A formula file as gtft reads it: tolerant of everything that gt and bd tolerate."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli

from gtft.errors import InputError, Problem, RecipeError, translate_os_error
from gtft.recipe.lines import KeyPath, Lines, TooDeep, locate

SUFFIX = ".formula.toml"
# Formulas are a few kilobytes; anything much larger is not one.
MAX_BYTES = 1_000_000

_PLACE = re.compile(r"\s*\(at line (\d+), column \d+\)\s*$")


@dataclass(frozen=True)
class Document:
    """One TOML file: its data, and where each key stands."""

    file: str
    data: Mapping[str, Any]
    lines: Lines
    sha256: str

    def problem(self, path: KeyPath, key: str, text: str) -> Problem:
        """A problem at the line of ``path``."""
        return Problem(self.file, self.lines.find(path), key, text)


@dataclass(frozen=True)
class Variable:
    """One ``[vars.NAME]`` table, or its string shorthand (the string is the default)."""

    name: str
    description: str = ""
    required: bool = False
    default: str | None = None
    enum: tuple[str, ...] = ()
    pattern: str | None = None
    type: str = "string"


@dataclass(frozen=True)
class Step:
    """One ``[[steps]]`` table; prose for the agent."""

    id: str
    title: str
    description: str = ""
    needs: tuple[str, ...] = ()
    acceptance: str = ""


@dataclass(frozen=True)
class Formula:
    """A parsed formula. ``gtft`` is None for a plain one, which gt and bd run without gtft.

    Values of a wrong type read as absent here; ``lint`` is what names them.
    """

    name: str
    description: str
    version: int
    type: str
    vars: tuple[Variable, ...]
    steps: tuple[Step, ...]
    gtft: Mapping[str, Any] | None
    source: Path
    document: Document = field(repr=False)

    @property
    def summary(self) -> str:
        """The first line of the description that says what it is for."""
        for line in self.description.splitlines():
            if line.strip() and not line.startswith("Run:"):
                return line.strip().lstrip("# ")
        return ""


def read_formula(path: Path, *, shown: str | None = None) -> Formula:
    """Read a formula file; ``shown`` is how messages name it (default: the path as given).

    Raises InputError when it cannot be read and RecipeError when it is not TOML.
    """
    return parse_formula(read_bytes(path), source=path, shown=shown)


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file of at most ``MAX_BYTES``. Raises InputError."""
    try:
        if not path.is_file():
            raise InputError(
                f"{path} is not a file" if path.exists() else f"there is no file {path}",
                why="a formula or an overlay is a TOML file",
                fix="gtft recipe list",
            )
        with path.open("rb") as f:
            data = f.read(MAX_BYTES + 1)
    except OSError as e:
        raise translate_os_error(e, f"reading {path}") from e
    if len(data) > MAX_BYTES:
        raise InputError(
            f"{path} is larger than {MAX_BYTES:,} bytes",
            why="a formula is a few kilobytes of TOML",
            fix="name the formula file itself; gtft recipe list shows what is found",
        )
    return data


def parse_formula(data: bytes, *, source: Path, shown: str | None = None) -> Formula:
    """Formula from bytes. Raises RecipeError (with file and line) when they are not TOML."""
    document = parse_document(data, shown or str(source))
    raw = document.data
    gtft = raw.get("gtft")
    return Formula(
        name=_text(raw.get("formula")) or source.name.removesuffix(SUFFIX),
        description=_text(raw.get("description")),
        version=_whole(raw.get("version"), 1),
        type=_text(raw.get("type")) or "workflow",
        vars=_read_vars(raw.get("vars")),
        steps=_read_steps(raw.get("steps")),
        gtft=gtft if isinstance(gtft, dict) else None,
        source=source,
        document=document,
    )


def parse_document(data: bytes, file: str) -> Document:
    """TOML bytes with positions. Raises RecipeError with one Problem on a syntax error."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise _syntax_error(file, line, f"not UTF-8 text (byte 0x{data[e.start]:02x})") from e
    if text.startswith("\ufeff"):
        raise _syntax_error(file, 1, "starts with a byte order mark; save it as plain UTF-8")
    try:
        parsed = tomli.loads(text)
        lines = locate(text)
    except tomli.TOMLDecodeError as e:
        found = _PLACE.search(str(e))
        line = int(found.group(1)) if found else text.count("\n") + 1
        raise _syntax_error(file, line, f"not TOML: {_PLACE.sub('', e.msg)}") from e
    except (RecursionError, TooDeep) as e:
        raise _syntax_error(file, 1, "tables or arrays are nested too deeply") from e
    except ValueError as e:
        # Python refuses to convert integers of thousands of digits.
        raise _syntax_error(file, 1, f"a value cannot be read: {e}") from e
    return Document(file, parsed, lines, hashlib.sha256(data).hexdigest())


def _syntax_error(file: str, line: int, text: str) -> RecipeError:
    return RecipeError(
        f"{file} cannot be read",
        problems=(Problem(file, line, "", text),),
        fix=f"mend that line, then: gtft recipe lint {file}",
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _read_vars(raw: object) -> tuple[Variable, ...]:
    if not isinstance(raw, dict):
        return ()
    out: list[Variable] = []
    for name, spec in raw.items():
        if isinstance(spec, str):
            out.append(Variable(name, default=spec))
        elif isinstance(spec, dict):
            default, pattern = spec.get("default"), spec.get("pattern")
            out.append(
                Variable(
                    name,
                    description=_text(spec.get("description")),
                    required=spec.get("required") is True,
                    default=default if isinstance(default, str) else None,
                    enum=_texts(spec.get("enum")),
                    pattern=pattern if isinstance(pattern, str) else None,
                    type=_text(spec.get("type")) or "string",
                )
            )
    return tuple(out)


def _read_steps(raw: object) -> tuple[Step, ...]:
    if not isinstance(raw, list):
        return ()
    return tuple(
        Step(
            id=_text(s.get("id")),
            title=_text(s.get("title")),
            description=_text(s.get("description")),
            needs=_texts(s.get("needs")),
            acceptance=_text(s.get("acceptance")),
        )
        for s in raw
        if isinstance(s, dict)
    )
