"""Both readers over what is to be written, and over the files after.

Fails closed: what still hits after it was replaced is named, so that it is held back or ends the harvest; what is found
on disk ends it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.redaction.second_reader import SecondReader, replace_suspects
from gtft.errors import RedactionError

# A replacement may bring to light what it stood beside; what is left then is held back.
_ROUNDS = 3
# Texts that are remembered while files are scanned: so long, so many.
_SHORT, _MOST_KNOWN = 80, 200_000


@dataclass(frozen=True)
class Suspect:
    """A hit that stays: which reader says so, and where (``messages[3].content:120-140``); never the value."""

    reader: str
    where: str


@dataclass
class Verifier:
    """Cleans text with both readers; ``suspects`` counts what the second one added, by plugin.

    ``verdicts``: a folder where clean texts are remembered by digest (`save` writes it). One per process.
    """

    redactor: Redactor
    verdicts: Path | None = None
    suspects: Counter[str] = field(default_factory=Counter)
    reader: SecondReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = SecondReader(self.verdicts)

    def save(self) -> None:
        """Keeps the verdicts of this process for later ones."""
        self.reader.save()

    def clean_text(self, text: str, where: str = "text") -> tuple[str, list[Suspect]]:
        """Rules again, then the second reader's suspects replaced; and what stays all the same."""
        stays: list[Suspect] = []
        for _ in range(_ROUNDS):
            before = text
            cleaned = replace_suspects(self.redactor.redact(text), self.reader, self.redactor)
            text = cleaned.text
            self.suspects.update(cleaned.plugins)
            stays = [Suspect(h.plugin, f"{where}:{h.start}-{h.end}") for h in cleaned.left]
            if text == before:
                break
        else:
            stays += [
                Suspect(f.kind, f"{where}:{f.start}-{f.end}") for f in self.redactor.find(text)
            ]
        return text, stays

    def clean_tree(self, value: Any, where: str = "", key: str = "") -> tuple[Any, list[Suspect]]:
        """A JSON value with every string cleaned, its keys too; a string is read with its key as well."""
        if isinstance(value, str):
            return self._clean_string(value, where or "text", key)
        stays: list[Suspect] = []
        if isinstance(value, list):
            items = []
            for i, v in enumerate(value):
                cleaned, more = self.clean_tree(v, f"{where}[{i}]", key)
                items.append(cleaned)
                stays += more
            return items, stays
        if isinstance(value, dict):
            pairs = {}
            for k, v in value.items():
                name, more = self.clean_text(k, f"{where} key")
                stays += more
                pairs[name], more = self.clean_tree(v, f"{where}.{name}" if where else name, k)
                stays += more
            return pairs, stays
        return value, stays

    def _clean_string(self, value: str, where: str, key: str) -> tuple[str, list[Suspect]]:
        if key and key not in _PROSE:
            hits = self.reader.suspects(write_pair(key, value))
            if hits:
                self.suspects.update(sorted({h.plugin for h in hits}))
                return self.redactor.placeholder("suspect", value), []
        return self.clean_text(value, where)

    def scan_files(self, paths: Sequence[Path], released: frozenset[str] = frozenset()) -> int:
        """Read back what was written; the number of texts read. Rows whose id is ``released`` are let pass.

        Raises RedactionError that names the file and line when either reader finds anything.
        """
        texts = 0
        # Roles, names and ids come again and again.
        known: set[tuple[str, str]] = set()
        for path in paths:
            with path.open(encoding="utf-8") as f:
                for number, line in enumerate(f, start=1):
                    for both in _walk(path, line, released):
                        texts += 1
                        if both in known:
                            continue
                        self._refuse(*both, path.name, number)
                        if len(both[0]) < _SHORT and len(known) < _MOST_KNOWN:
                            known.add(both)
        self.save()
        return texts

    def _refuse(self, text: str, pair: str, file: str, line: int) -> None:
        found = self.redactor.find(text)
        hits = [] if found else self.reader.suspects(text) + self.reader.suspects(pair)
        if found or hits:
            by = f"our rule {found[0].kind}" if found else f"detect-secrets' {hits[0].plugin}"
            raise RedactionError(
                "the finished corpus still holds what looks like a secret: it is not written",
                why=f"{by} hits line {line} of {file}",
                fix="find it with: gtft corpus redact FILE, remove that file from the sources, run again",
            )


# Keys that hold prose or name a thing: no key of a setting.
_PROSE = frozenset({"content", "id", "type", "role", "name", "description"})


def write_pair(key: str, value: str) -> str:
    """A key and a value as they would stand in JSON, on one line."""
    return f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"


def _walk(path: Path, line: str, released: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(text, text with its key) for each string of a line: decoded when the file is JSON lines."""
    if path.suffix != ".jsonl":
        yield line.rstrip("\n"), ""
        return
    value = json.loads(line)
    if not (released and isinstance(value, dict) and value.get("id") in released):
        yield from _strings(value, "")


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield value, write_pair(key, value) if key and key not in _PROSE else ""
    elif isinstance(value, list):
        for v in value:
            yield from _strings(v, key)
    elif isinstance(value, dict):
        for k, v in value.items():
            yield k, ""
            yield from _strings(v, k)
