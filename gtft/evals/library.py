"""The evaluations of a workspace: found by their artifact folders, named by the start of their id."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, read_artifact, short_id
from gtft.errors import EvidenceError, UsageError
from gtft.evals.item import Item, read_items, read_jsonl

KIND = "eval"


@dataclass(frozen=True)
class Answered:
    """An item with what each candidate answered to it (lines of generations.jsonl)."""

    item: Item
    base: dict[str, Any]
    tuned: dict[str, Any]

    @property
    def flipped(self) -> bool:
        return bool(self.base["passed"]) != bool(self.tuned["passed"])


@dataclass(frozen=True)
class Shelf:
    """``damaged``: folders that could not be read, with why."""

    evals: tuple[Artifact, ...]
    damaged: tuple[tuple[str, str], ...]


def list_evals(artifacts: Path) -> Shelf:
    """Every evaluation below ``artifacts``, oldest first; a folder that cannot be read is named, not hidden."""
    found: list[Artifact] = []
    damaged: list[tuple[str, str]] = []
    for path in sorted(artifacts.glob(f"{KIND}-*")):
        try:
            found.append(read_artifact(path, kind=KIND))
        except EvidenceError as e:
            damaged.append((path.name, e.what))
    return Shelf(tuple(sorted(found, key=_age)), tuple(damaged))


def find_eval(artifacts: Path, prefix: str | None) -> Artifact:
    """The evaluation whose id starts with ``prefix``; without one, the newest.

    Raises UsageError when there is none, or several fit.
    """
    evals = list_evals(artifacts).evals
    if not evals:
        raise UsageError(
            "there is no evaluation yet",
            why=f"{artifacts} holds no folder {KIND}-*",
            fix="gtft run mol-gtft-quickstart",
        )
    if not prefix:
        return evals[-1]
    wanted = prefix.removeprefix("sha256:").removeprefix(f"{KIND}-")
    fits = [e for e in evals if e.id.removeprefix("sha256:").startswith(wanted)]
    if len(fits) == 1:
        return fits[0]
    raise UsageError(
        f"{len(fits) or 'no'} evaluations start with {wanted}",
        why="known: " + ", ".join(short_id(e.id) for e in evals),
        fix="gtft eval list",
    )


def read_report(found: Artifact) -> dict[str, Any]:
    """report.json. Raises EvidenceError when it is not JSON."""
    path = found.file("report.json")
    try:
        doc = json.loads(path.read_text("utf-8"))
    except ValueError as e:
        raise EvidenceError(f"{path} is not JSON", why=str(e), fix="gtft doctor") from e
    if not isinstance(doc, dict):
        raise EvidenceError(f"{path} is not a JSON object", fix="gtft doctor")
    return doc


def read_answers(found: Artifact) -> list[Answered]:
    """Items with both answers, in the order of items.jsonl. Raises EvidenceError when one is missing."""
    lines = read_jsonl(found.file("generations.jsonl"))
    given = {(g["candidate"], g["item"]): g for _, g in lines}
    out = []
    for item in read_items(found.file("items.jsonl")):
        base, tuned = given.get(("base", item.id)), given.get(("tuned", item.id))
        if base is None or tuned is None:
            raise EvidenceError(
                f"the eval {short_id(found.id)} holds no answer to {item.id}",
                why="one stored generation per item and candidate is required",
                fix="gtft doctor",
            )
        out.append(Answered(item, base, tuned))
    return out


def _age(found: Artifact) -> tuple[float, str]:
    return ((found.path / "artifact.json").stat().st_mtime, found.id)
