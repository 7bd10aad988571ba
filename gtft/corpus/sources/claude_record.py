"""Records of Claude Code, typed: only the fields that are used are built, the rest is skipped undecoded.

Fields stand in the order in which the files have them, which is what the decoder is fastest at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from gtft.corpus.files import InputFile, read_head
from gtft.corpus.jsonl import Lines, decode_line, read_document, read_lines
from gtft.corpus.tally import Tally


class Source(msgspec.Struct, gc=False):
    """Of an image or a document; its data is skipped."""

    media_type: str | None = None


class Part(msgspec.Struct, gc=False):
    """A piece of a tool result."""

    type: str | None = None
    text: str | None = None
    source: Source | None = None


class Block(msgspec.Struct, gc=False):
    """A piece of a message."""

    type: str | None = None
    id: str | None = None
    tool_use_id: str | None = None
    text: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    content: str | list[Part] | None = None
    is_error: bool | None = None
    source: Source | None = None


class Message(msgspec.Struct, gc=False):
    model: str | None = None
    id: str | None = None
    content: str | list[Block] | None = None


class Sender(msgspec.Struct, gc=False):
    """``origin``: what kind of thing wrote a prompt, and which."""

    kind: str | None = None
    sender: str | None = msgspec.field(default=None, name="from")


class Attachment(msgspec.Struct, gc=False):
    type: str | None = None


class Record(msgspec.Struct, gc=False, rename="camel"):
    """One record of any type. A field that is absent, null or of a wrong type is None."""

    parent_uuid: str | None = None
    is_sidechain: bool | None = None
    cwd: str | None = None
    session_id: str | None = None
    version: str | None = None
    git_branch: str | None = None
    agent_id: str | None = None
    type: str | None = None
    subtype: str | None = None
    message: Message | None = None
    uuid: str | None = None
    timestamp: str | None = None
    is_meta: bool | None = None
    is_compact_summary: bool | None = None
    is_api_error_message: bool | None = None
    is_aborted_mid_stream: bool | None = None
    supersedes_uuids: list[str] | None = None
    retracted_message_uuids: list[str] | None = None
    source_tool: str | None = msgspec.field(default=None, name="sourceToolUseID")
    tool_denial_kind: str | None = None
    interrupted_message_id: str | None = None
    origin: Sender | None = None
    prompt_source: str | None = None
    attachment: Attachment | None = None
    operation: str | None = None
    content: str | list[Part] | None = None
    other_session: str | None = msgspec.field(default=None, name="session_id")
    agent_name: str | None = None
    pr_url: str | None = None
    # Records of version 1: calls and results outside messages.
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = msgspec.field(default=None, name="tool_use_id")
    output: str | list[Part] | None = None


class Batch:
    """Records that were decoded together, and the line of each."""

    def __init__(self, numbers: Sequence[int], records: list[Record], lines: Lines) -> None:
        self.numbers = numbers
        self.records = records
        self._lines = lines
        self._split: dict[int, bytes] = {}

    def decode(self, line: int, file: InputFile) -> dict[str, Any]:
        """The whole record of a line, for the report of what is not known; the first of several."""
        self._split = self._split or dict(self._lines.split())
        return next(decode_line(self._split[line], file, line, Tally()), {})


_EXPORT = re.compile(rb'\s*\{\s*"loglines"\s*:')
_OPEN, _CLOSE = b"{}"
_DECODER = msgspec.json.Decoder(Record)
_INSIDE: dict[tuple[type, str], type] = {
    (Record, "message"): Message,
    (Record, "origin"): Sender,
    (Record, "attachment"): Attachment,
    (Record, "content"): Part,
    (Record, "output"): Part,
    (Message, "content"): Block,
    (Block, "content"): Part,
    (Block, "source"): Source,
    (Part, "source"): Source,
}


def read_batches(file: InputFile, tally: Tally) -> Iterator[Batch]:
    """The records of a file in order; what cannot be read is counted and named (`gtft.corpus.jsonl`)."""
    if _EXPORT.match(read_head(file, 64)):
        yield from _read_export(file, tally)
        return
    # No name holds a batch here: the next one then takes the memory of the last, which is warm.
    for lines in read_lines(file, tally):
        yield _read_batch(lines, file, tally)


def _read_export(file: InputFile, tally: Tally) -> Iterator[Batch]:
    """A session as the web exports it: one object. It has no lines: the number of the record stands for it."""
    for row in read_document(file, tally):
        found = row.value.get("loglines")
        listed = found if isinstance(found, list) else []
        logged = [v for v in listed if isinstance(v, dict)]
        for _ in range(len(listed) - len(logged)):
            tally.name("not an object", file.name, 1)
        raw = b"\n".join(map(msgspec.json.encode, logged))
        lines = Lines(1, memoryview(raw), np.zeros(0, np.intp))
        yield Batch(range(1, len(logged) + 1), [_loosen(v, Record) for v in logged], lines)


def _read_batch(lines: Lines, file: InputFile, tally: Tally) -> Batch:
    try:
        records = _DECODER.decode_lines(lines.data)
    except (ValueError, RecursionError):
        return _read_carefully(lines, file, tally)
    if _count_whole(lines) != len(records):
        return _read_carefully(lines, file, tally)
    tally.add("lines", "read", len(records))
    return Batch(range(lines.first, lines.first + len(records)), records, lines)


def _count_whole(lines: Lines) -> int:
    """The number of lines, each beginning and ending as a record does; 0 when some do not.

    The decoder also takes glued records and such over several lines, and then the lines are not known.
    """
    view = np.frombuffer(lines.data, np.uint8)
    inner = lines.ends[lines.ends < len(view) - 1]
    whole = (view[inner - 1] == _CLOSE).all() and (view[inner + 1] == _OPEN).all()
    return len(inner) + 1 if whole else 0


def _read_carefully(lines: Lines, file: InputFile, tally: Tally) -> Batch:
    numbers: list[int] = []
    records: list[Record] = []
    for line, raw in lines.split():
        tally.add("lines", "read")
        try:
            found = _DECODER.decode_lines(raw)
            if len(found) > 1:
                tally.name("bad line", file.name, line)
                tally.add("lines", "recovered", len(found))
        except (ValueError, RecursionError):
            found = [_loosen(v, Record) for v in decode_line(raw, file, line, tally)]
        numbers += [line] * len(found)
        records += found
    return Batch(numbers, records, lines)


def _loosen(value: dict[str, Any], shape: type) -> Any:
    """The value as ``shape``, without the fields that are of a wrong type."""
    made = shape()
    for field in msgspec.structs.fields(shape):
        given = value.get(field.encode_name)
        if given is None:
            continue
        inner = _INSIDE.get((shape, field.name))
        if inner is None or isinstance(given, str):
            try:
                setattr(made, field.name, msgspec.convert(given, field.type))
            except msgspec.ValidationError:
                continue
        elif isinstance(given, dict) and inner not in (Part, Block):
            setattr(made, field.name, _loosen(given, inner))
        elif isinstance(given, list) and inner in (Part, Block):
            setattr(made, field.name, [_loosen_piece(v, inner) for v in given])
    return made


def _loosen_piece(value: Any, shape: type) -> Any:
    if isinstance(value, dict):
        return _loosen(value, shape)
    if isinstance(value, str):
        return shape(type="text", text=value)
    return shape(type="no object")
