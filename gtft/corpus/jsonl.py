"""JSON lines as agents really leave them: glued, torn, NUL-filled, not UTF-8, nested too deep."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt

from gtft.corpus.files import InputFile, open_input
from gtft.corpus.tally import Tally
from gtft.errors import translate_os_error

# In bytes. An empty list takes 30 times its size when it is built, a torn line even more while it is mended.
LONGEST_LINE = 32 * 1024 * 1024
LONGEST_MENDED = 8 * 1024 * 1024
BLOCK = 256 * 1024
MOST_VALUES = 1_000_000
_LARGE = 2 * 1024 * 1024
DEEPEST = 64
# Places in one torn line where a record is looked for: each may cost as much as the deepest nesting.
MOST_ATTEMPTS = 1000
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
    for lines in read_lines(file, tally):
        for line, raw in lines.split():
            tally.add("lines", "read")
            whole = _decode_whole(raw)
            for value in decode_line(raw, file, line, tally) if whole is None else (whole,):
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
    if _holds_too_many(raw, len(raw)):
        tally.name("too many values in a document", file.name, 1)
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
        elif is_too_deep(value):
            tally.name("nested too deep", file.name, line)
        else:
            yield value


def parse_object(text: str) -> dict[str, Any] | None:
    """A JSON object inside a string, as arguments of calls are; None when it is none or too deep."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return _mend(value) if isinstance(value, dict) and not is_too_deep(value) else None


class Lines(NamedTuple):
    """Whole lines of a file. ``data`` is good until the next ones are asked for.

    ``first``: the number of the first line; ``ends``: where newlines stand in ``data`` (the last may have none).
    """

    first: int
    data: memoryview
    ends: npt.NDArray[np.intp]

    def split(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank, with their numbers."""
        for line, raw in enumerate(bytes(self.data).split(b"\n"), start=self.first):
            if raw and not raw.isspace():
                yield line, raw


def read_lines(file: InputFile, tally: Tally) -> Iterator[Lines]:
    """A file in pieces of about `BLOCK` bytes. A line longer than `LONGEST_LINE` is named and left out.

    Raises InputError when the system refuses.
    """
    number = 1
    size = min(BLOCK, LONGEST_LINE)
    buffer = bytearray(size)
    held = 0
    skipping = False
    try:
        with cast(BufferedReader, open_input(file)) as f:
            while True:
                if len(buffer) - held < size:
                    # A new one: somebody may still look at the old one.
                    room = max(held + size, min(2 * len(buffer), LONGEST_LINE + 2 * size))
                    buffer, old = bytearray(room), buffer
                    memoryview(buffer)[:held] = memoryview(old)[:held]
                got = f.readinto(memoryview(buffer)[held : held + size])
                if not got:
                    break
                end = buffer.rfind(b"\n", held, held + got) + 1
                held += got
                if not end:
                    skipping = skipping or held > LONGEST_LINE
                    held = 0 if skipping else held
                    continue
                begin = 0
                first_end = buffer.find(b"\n", 0, end)
                reason = "line too long" if skipping else _refuse_line(buffer, first_end)
                if reason:
                    tally.name(reason, file.name, number)
                    number, begin, skipping = number + 1, first_end + 1, False
                if begin < end:
                    data = memoryview(buffer)[begin:end]
                    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
                    yield Lines(number, data, ends)
                    number += len(ends)
                memoryview(buffer)[: held - end] = memoryview(buffer)[end:held]
                held -= end
    except OSError as e:
        raise translate_os_error(e, f"reading {file.name}") from e
    reason = "line too long" if skipping else _refuse_line(buffer, held)
    if reason:
        tally.name(reason, file.name, number)
    elif held:
        yield Lines(number, memoryview(buffer)[:held], np.zeros(0, np.intp))


def _refuse_line(buffer: bytearray, size: int) -> str:
    """Why the line at the beginning of ``buffer`` is left out; "" when it is not."""
    if size > LONGEST_LINE:
        return "line too long"
    if size > _LARGE and _holds_too_many(buffer, size):
        return "too many values in a line"
    return ""


def _holds_too_many(data: bytes | bytearray, size: int) -> bool:
    inside = data.count(b"[", 0, size) + data.count(b"{", 0, size)
    return inside > MOST_VALUES or data.count(b",", 0, size) > 3 * MOST_VALUES


def decode_line(raw: bytes, file: InputFile, line: int, tally: Tally) -> Iterator[dict[str, Any]]:
    """The records of one line, whatever is wrong with it; what is lost is counted and named."""
    if len(raw) > LONGEST_MENDED:
        tally.name("torn line too long to mend", file.name, line)
        tally.add("lines", "lost characters", len(raw))
        return
    text = _clean(raw, file, line, tally)
    if text.strip():
        yield from decode_objects(text, file, line, tally)


def _decode_whole(raw: bytes) -> dict[str, Any] | None:
    """The record of a line that is as it should be; None asks for `decode_line`."""
    try:
        value = _READER.decode(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or b"\x00" in raw:
        return None
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and is_too_deep(value):
        return None
    return value


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
    failed = 0
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
            failed += 1
            found = _RESUME.search(text, at + 1) if failed < MOST_ATTEMPTS else None
            end = found.start() if found else len(text)
            tally.add("lines", "lost characters", end - at)
        else:
            tally.add("lines", "recovered")
            yield _mend(value)
        at = end


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


_NEWLINE = ord("\n")
_READER = msgspec.json.Decoder()
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


def is_too_deep(value: dict[str, Any]) -> bool:
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
