"""Redaction of any text, with nothing else set up: what ``gtft corpus redact`` shows."""

from __future__ import annotations

from typing import Any

from gtft.corpus.redact import Redactor, check_rules
from gtft.corpus.second_reader import SecondReader
from gtft.corpus.verify import Verifier

Readers = Verifier


def start_readers() -> Readers:
    """Both readers, self-tested. Raises RedactionError when one misses a planted secret."""
    check_rules()
    return Verifier(Redactor(), SecondReader())


def redact_text(text: str, readers: Readers) -> tuple[str, list[dict[str, Any]]]:
    """The text as a harvest would keep it, and the spans of the original that were replaced.

    A span is {start, end, kind, replacement, reader}; it never holds the value.
    """
    redactor = readers.redactor
    spans: list[dict[str, Any]] = []
    for f in redactor.find(text):
        spans.append(
            {
                "start": f.start,
                "end": f.end,
                "kind": f.kind,
                "replacement": redactor.replacement(f),
                "reader": "rules",
            }
        )
    redactor.redact(text)
    sweep = redactor.sweep()
    at = 0
    taken = [(s["start"], s["end"]) for s in spans]
    for line in text.split("\n"):
        for h in readers.reader.find(line):
            start, end = at + h.start, at + h.end
            if not any(start < e and s < end for s, e in taken):
                value = line[h.start : h.end]
                spans.append(
                    {
                        "start": start,
                        "end": end,
                        "kind": "suspect",
                        "replacement": redactor.placeholder("suspect", value),
                        "reader": h.plugin,
                    }
                )
        at += len(line) + 1
    readers.sweep = sweep
    return readers.clean_text(text), sorted(spans, key=lambda s: (s["start"], s["end"]))
