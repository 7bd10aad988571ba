"""Values as transcripts hold them: of the wrong type as often as not, never an error."""

from __future__ import annotations

import hashlib
from typing import Any

from gtft.artifact import canonical_json
from gtft.corpus.example import Entry
from gtft.corpus.jsonl import parse_object

FIRST_TEXTS = 6


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


def digest_entry(entry: Entry) -> bytes:
    """8 bytes that are equal for equal entries, wherever they stand."""
    calls = [[c.id, c.name, c.arguments] for c in entry.calls]
    text = canonical_json([entry.kind, entry.text, entry.call_id, calls])
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
