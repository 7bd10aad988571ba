"""Values as transcripts hold them: of the wrong type as often as not, never an error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
import xxhash

from gtft.artifact import canonical_json
from gtft.corpus.example import Entry
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import parse_object
from gtft.corpus.tally import Tally

_NAME = re.compile(r"[\w.:/$ -]{1,60}", re.ASCII)
_KEYS = 10


def read_text(value: Any) -> str:
    """The value when it is a string, else nothing."""
    return value if isinstance(value, str) else ""


def read_object(value: Any) -> dict[str, Any]:
    """The value when it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def list_blocks(content: Any) -> list[dict[str, Any]]:
    """Blocks of a message: a string is one block of text, an object one block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, dict):
        return [content]
    return [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []


def read_arguments(value: Any) -> dict[str, Any]:
    """Arguments of a call: an object, or one written in a string; other text stands under ``input``."""
    if isinstance(value, str):
        parsed = parse_object(value) if value.lstrip().startswith("{") else None
        return parsed if parsed is not None else ({"input": value} if value.strip() else {})
    return read_object(value)


def write_placeholder(kind: str, media: str = "") -> str:
    """What stands for an image or a file: ``[image: image/png]``."""
    return f"[{kind}: {media}]" if media else f"[{kind}]"


def name_kind(value: Any, absent: str = "no type") -> str:
    """A type as a report may state it. A file may say anything there: what is no name is "odd"."""
    if not isinstance(value, str) or not value:
        return absent
    return value if _NAME.fullmatch(value) else "odd"


def note_drift(what: str, value: dict[str, Any], file: InputFile, line: int, tally: Tally) -> None:
    """Count a shape that gtft does not know under ``drift``, with its keys, and name its place."""
    keys = name_keys(value)
    tally.add("drift", f"{what} {{{keys}}}")
    tally.name("unknown type", file.name, line, f"{what} {{{keys}}}")


def name_keys(keys: Iterable[str]) -> str:
    """The key set of a record, sorted and shortened."""
    names = sorted({name_kind(k) for k in keys})
    more = ", …" if len(names) > _KEYS else ""
    return ", ".join(names[:_KEYS]) + more


def digest_entry(entry: Entry) -> bytes:
    """Equal for equal entries, wherever they stand."""
    calls = [[c.id, c.name, c.arguments] for c in entry.calls]
    return digest_value([entry.kind, entry.text, entry.call_id, calls])


def digest_value(value: Any) -> bytes:
    """16 bytes that are equal for equal JSON values, whatever the order of their keys."""
    try:
        text = msgspec.json.encode(value, order="sorted")
    except (OverflowError, UnicodeEncodeError):
        # Integers beyond 64 bits.
        text = canonical_json(value).encode("utf-8", "replace")
    return xxhash.xxh3_128_digest(text)
