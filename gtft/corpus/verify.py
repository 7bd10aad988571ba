"""The second scan: over every example before it is written, and over the files after.

Fails closed: what still hits after it was replaced, or what is found on disk, ends the harvest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gtft.corpus.example import Example
from gtft.corpus.redact import Redactor
from gtft.corpus.second_reader import SecondReader, replace_suspects
from gtft.errors import RedactionError

# A replacement may bring to light what it stood beside; the scan of the files refuses what is left.
_ROUNDS = 3


@dataclass
class Verifier:
    """Cleans text with both readers; ``suspects`` counts what the second one added, by plugin."""

    redactor: Redactor
    reader: SecondReader
    suspects: Counter[str] = field(default_factory=Counter)
    sweep: Callable[[str], str] = str

    def clean_text(self, text: str) -> str:
        """Values propagated, rules applied again, then the second reader's suspects replaced."""
        for _ in range(_ROUNDS):
            before = text
            text = self.redactor.redact(self.sweep(text))
            text, plugins = replace_suspects(text, self.reader, self.redactor)
            self.suspects.update(plugins)
            if text == before:
                break
        return text

    def clean_example(self, example: Example) -> Example:
        """The example with every string cleaned; a call argument is read with its key as well."""
        cleaned = example.map_strings(self.clean_text)
        return replace(
            cleaned, messages=tuple(self._clean_arguments(m) for m in cleaned.messages)
        ).identified()

    def _clean_arguments(self, message: dict[str, Any]) -> dict[str, Any]:
        if not message.get("tool_calls"):
            return message
        calls = []
        for c in message["tool_calls"]:
            f = c["function"]
            calls.append(
                {**c, "function": {**f, "arguments": self._clean_pairs(f["arguments"], "")}}
            )
        return {**message, "tool_calls": calls}

    def _clean_pairs(self, value: Any, key: str) -> Any:
        if isinstance(value, str):
            hits = self.reader.find(write_pair(key, value)) if key else []
            if hits:
                self.suspects.update(sorted({h.plugin for h in hits}))
                return self.redactor.placeholder("suspect", value)
            return value
        if isinstance(value, list):
            return [self._clean_pairs(v, key) for v in value]
        if isinstance(value, dict):
            return {k: self._clean_pairs(v, k) for k, v in value.items()}
        return value

    def scan_files(self, paths: list[Path]) -> int:
        """Read back what was written; the number of texts read.

        Raises RedactionError that names the file and line when either reader finds anything.
        """
        texts = 0
        for path in paths:
            with path.open(encoding="utf-8") as f:
                for number, line in enumerate(f, start=1):
                    for text, pair in _walk(path, line):
                        texts += 1
                        self._refuse(text, pair, path.name, number)
        return texts

    def _refuse(self, text: str, pair: str, file: str, line: int) -> None:
        by = ""
        found = self.redactor.find(text)
        if found:
            by = f"our rule {found[0].kind}"
        for part in [*text.split("\n"), pair]:
            hits = self.reader.find(part) if part and not by else []
            if hits:
                by = f"detect-secrets' {hits[0].plugin}"
        if by:
            raise RedactionError(
                "the finished corpus still holds what looks like a secret: it is not written",
                why=f"{by} hits line {line} of {file}",
                fix="find it with: gtft corpus redact FILE, remove that file from the sources, run again",
            )


def write_pair(key: str, value: str) -> str:
    """A key and a value as they would stand in JSON, on one line."""
    return f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"


def _walk(path: Path, line: str) -> Iterator[tuple[str, str]]:
    """(text, text with its key) for each string of a line: decoded when the file is JSON lines."""
    if path.suffix != ".jsonl":
        yield line.rstrip("\n"), ""
        return
    yield from _strings(json.loads(line), "")


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield value, write_pair(key, value) if key and key != "content" else ""
    elif isinstance(value, list):
        for v in value:
            yield from _strings(v, key)
    elif isinstance(value, dict):
        for k, v in value.items():
            yield k, ""
            yield from _strings(v, k)
