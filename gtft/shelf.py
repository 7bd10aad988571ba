"""The artifacts of one kind in a folder: listed, found by the start of an id, their JSON read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import MANIFEST, Artifact, read_artifact, short_id
from gtft.errors import EvidenceError, UsageError


@dataclass(frozen=True)
class Shelf:
    """``found``: oldest first. ``damaged``: folders that could not be read, with why."""

    found: tuple[Artifact, ...]
    damaged: tuple[tuple[str, str], ...]


def list_shelf(artifacts: Path, kind: str) -> Shelf:
    """Every artifact of ``kind`` below ``artifacts``; one that cannot be read is named, not hidden."""
    found: list[Artifact] = []
    damaged: list[tuple[str, str]] = []
    for path in sorted(artifacts.glob(f"{kind}-*")):
        try:
            found.append(read_artifact(path, kind=kind))
        except EvidenceError as e:
            damaged.append((path.name, e.what))
    return Shelf(tuple(sorted(found, key=_age)), tuple(damaged))


def find_on_shelf(artifacts: Path, kind: str, prefix: str | None) -> Artifact:
    """The one whose id starts with ``prefix``; without a prefix, the newest.

    Raises UsageError when there is none, or several fit.
    """
    found = list_shelf(artifacts, kind).found
    if not found:
        raise UsageError(
            f"there is no {kind} yet",
            why=f"{artifacts} holds no readable folder {kind}-*",
            fix="gtft run mol-gtft-quickstart",
        )
    if not prefix:
        return found[-1]
    wanted = prefix.removeprefix("sha256:").removeprefix(f"{kind}-")
    fits = [a for a in found if a.id.removeprefix("sha256:").startswith(wanted)]
    if len(fits) == 1:
        return fits[0]
    raise UsageError(
        f"{len(fits) or 'no'} ids of kind {kind} start with {wanted}",
        why="known: " + ", ".join(short_id(a.id) for a in found),
        fix=f"gtft {kind} list",
    )


def find_adapter(artifacts: Path, given: str, key: str) -> Artifact:
    """The adapter that a recipe's ``key`` names by the start of its id. Raises UsageError naming what is there."""
    try:
        return find_on_shelf(artifacts, "adapter", given)
    except UsageError as e:
        raise UsageError(f"{key}: {e.what}", why=e.why, fix="gtft model list") from e


def read_document(artifact: Artifact, name: str) -> dict[str, Any]:
    """One of an artifact's JSON files. Raises EvidenceError when it is missing or damaged."""
    path = artifact.file(name)
    try:
        doc = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise EvidenceError(f"{path} cannot be read", why=str(e), fix="gtft doctor") from e
    if not isinstance(doc, dict):
        raise EvidenceError(f"{path} is not a JSON object", fix="gtft doctor")
    return doc


def _age(artifact: Artifact) -> tuple[float, str]:
    return ((artifact.path / MANIFEST).stat().st_mtime, artifact.id)
