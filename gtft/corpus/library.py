"""The corpora of a workspace: found by their artifact folders, named by the start of their id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, read_artifact, short_id
from gtft.corpus.example import Example
from gtft.errors import EvidenceError, UsageError

KIND = "corpus"


@dataclass(frozen=True)
class Shelf:
    """What a listing found: readable corpora by folder name, and what could not be read, with why."""

    corpora: tuple[Artifact, ...]
    damaged: tuple[tuple[str, str], ...]


def list_corpora(artifacts: Path) -> Shelf:
    """Every corpus below ``artifacts``; a folder that cannot be read is named, not hidden."""
    found: list[Artifact] = []
    damaged: list[tuple[str, str]] = []
    for path in sorted(artifacts.glob(f"{KIND}-*")):
        try:
            found.append(read_artifact(path, kind=KIND))
        except EvidenceError as e:
            damaged.append((path.name, e.what))
    return Shelf(tuple(found), tuple(damaged))


def find_corpus(artifacts: Path, prefix: str | None) -> Artifact:
    """The corpus whose id starts with ``prefix``; without one, the only or the newest corpus.

    Raises UsageError when there is none, or several fit.
    """
    corpora = list_corpora(artifacts).corpora
    if not corpora:
        raise UsageError(
            "there is no corpus yet",
            why=f"{artifacts} holds no folder {KIND}-*",
            fix="gtft run mol-gtft-quickstart",
        )
    if not prefix:
        return max(corpora, key=lambda c: ((c.path / "artifact.json").stat().st_mtime, c.id))
    wanted = prefix.removeprefix("sha256:").removeprefix(f"{KIND}-")
    fits = [c for c in corpora if c.id.removeprefix("sha256:").startswith(wanted)]
    if len(fits) == 1:
        return fits[0]
    raise UsageError(
        f"{len(fits) or 'no'} corpora start with {wanted}",
        why="known: " + ", ".join(short_id(c.id) for c in corpora),
        fix="gtft corpus list",
    )


def read_document(corpus: Artifact, name: str) -> dict[str, Any]:
    """One of a corpus's JSON files. Raises EvidenceError when it is missing or damaged."""
    path = corpus.file(name)
    try:
        doc = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise EvidenceError(f"{path} cannot be read", why=str(e), fix="gtft doctor") from e
    if not isinstance(doc, dict):
        raise EvidenceError(f"{path} is not a JSON object", fix="gtft doctor")
    return doc


def read_examples(corpus: Artifact, name: str) -> Iterator[Example]:
    """The examples of ``train.jsonl`` or ``heldout.jsonl``, one by one."""
    path = corpus.file(name)
    try:
        with path.open(encoding="utf-8") as f:
            for line in f:
                yield Example.from_json(json.loads(line))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise EvidenceError(f"{path} cannot be read", why=repr(e), fix="gtft doctor") from e
