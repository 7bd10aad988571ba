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
        for value in decode_objects(text, file, line, tally):
            yield Row(line, order, value)
            order += 1


def read_document(file: InputFile, tally: Tally) -> Iterator[Row]:
    """A file that is one JSON object over many lines: its record, or what a torn one still gives.

    Longer than `LONGEST_LINE` it is named and left out. Tables and errors as `read_rows`.
    """
    try:
        with open_input(file) as f:
            raw = f.read(LONGEST_LINE + 1)
    except OSError as e:
        raise translate_os_error(e, f"reading {file.name}") from e
    if len(raw) > LONGEST_LINE:
        tally.name("document too long", file.name, 1)
        return
    text = _clean(raw, file, 1, tally)
    if text.strip():
        tally.add("lines", "read")
        for order, value in enumerate(decode_objects(text, file, 1, tally)):
            yield Row(1, order, value)


def decode_objects(text: str, file: InputFile, line: int, tally: Tally) -> Iterator[dict[str, Any]]:
    """The JSON objects of a text; what is none, or is nested too deep, is named."""
    for value in _decode(text, file, line, tally):
        if not isinstance(value, dict):
            tally.name("not an object", file.name, line, type(value).__name__)
        elif _too_deep(value):
            tally.name("nested too deep", file.name, line)
        else:
            yield value


def parse_object(text: str) -> dict[str, Any] | None:
    """A JSON object inside a string, as arguments of calls are; None when it is none or too deep."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return _mend(value) if isinstance(value, dict) and not _too_deep(value) else None


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
            text = _clean(raw, file, number, tally)
            if text.strip():
                tally.add("lines", "read")
                yield number, text


def _clean(raw: bytes, file: InputFile, number: int, tally: Tally) -> str:
    """Text without NULs and byte-order mark; bytes that are not UTF-8 become U+FFFD."""
    if b"\x00" in raw:
        tally.name("NUL bytes", file.name, number)
        raw = raw.replace(b"\x00", b"")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        tally.name("not UTF-8", file.name, number)
        text = raw.decode("utf-8", "replace")
    return text.lstrip("\ufeff")


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
