"""JSON lines as agents really leave them: glued, torn, NUL-filled, not UTF-8, nested too deep."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gtft.corpus.files import InputFile, open_input
from gtft.corpus.tally import Tally
from gtft.errors import translate_os_error

LONGEST_LINE = 64 * 1024 * 1024
DEEPEST = 64
# Where a record begins when the text before it is torn.
_RESUME = re.compile(r'\{\s*"(?:parentUuid|type|uuid|_type|id|key|issue_id|sessionId)"\s*:')


@dataclass(frozen=True)
class Row:
    """One record. ``line`` is 1-based; ``order`` counts records, since a line may hold several."""

    line: int
    order: int
    value: dict[str, Any]


def read_rows(file: InputFile, tally: Tally) -> Iterator[Row]:
    """The records of a file, in order. What cannot be read is counted and named, never fatal.

    Tables: ``lines`` (read, bad, recovered), ``bad`` (reason). Raises InputError when the system
    refuses to read.
    """
    order = 0
    for line, text in _read_lines(file, tally):
        for value in _decode(text, file, line, tally):
            if not isinstance(value, dict):
                tally.name("not an object", file.name, line, type(value).__name__)
            elif _too_deep(value):
                tally.name("nested too deep", file.name, line)
            else:
                yield Row(line, order, value)
                order += 1


def _read_lines(file: InputFile, tally: Tally) -> Iterator[tuple[int, str]]:
    number = 0
    with open_input(file) as f:
        while True:
            try:
                raw = f.readline(LONGEST_LINE + 1)
                if len(raw) > LONGEST_LINE and not raw.endswith(b"\n"):
                    number += 1
                    tally.name("line too long", file.name, number)
                    while raw and not raw.endswith(b"\n"):
                        raw = f.readline(LONGEST_LINE)
                    continue
            except OSError as e:
                raise translate_os_error(e, f"reading {file.name}") from e
            if not raw:
                return
            number += 1
            if b"\x00" in raw:
                tally.name("NUL bytes", file.name, number)
                raw = raw.replace(b"\x00", b"")
            if not raw.strip():
                continue
            tally.add("lines", "read")
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError:
                tally.name("not UTF-8", file.name, number)
                text = raw.decode("utf-8", "replace")
            yield number, text.lstrip("\ufeff")


def _decode(text: str, file: InputFile, line: int, tally: Tally) -> Iterator[Any]:
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        tally.name("bad line", file.name, line)
        yield from _recover(text, tally)
        return
    yield _mend(value) if "\\u" in text else value


def _recover(text: str, tally: Tally) -> Iterator[Any]:
    """Whole records in a line that is not one record."""
    at = 0
    while at < len(text):
        while at < len(text) and text[at].isspace():
            at += 1
        if at >= len(text):
            return
        try:
            value, end = _DECODER.raw_decode(text, at)
            if not isinstance(value, dict):
                raise ValueError("a fragment, not a record")
        except (ValueError, RecursionError):
            found = _RESUME.search(text, at + 1)
            end = found.start() if found else len(text)
            tally.add("lines", "lost characters", end - at)
        else:
            tally.add("lines", "recovered")
            yield _mend(value)
        at = end


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=str)


def _mend(value: Any) -> Any:
    """Lone surrogates become U+FFFD: they cannot be written as UTF-8."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mend(v) for v in value]
    if isinstance(value, dict):
        return {_mend(k): _mend(v) for k, v in value.items()}
    return value


def _too_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for v in level
            for child in (v.values() if isinstance(v, dict) else v)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
