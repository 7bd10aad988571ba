"""The items of an evaluation on disk, with what each candidate answered."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, short_id, write_json
from gtft.errors import EvidenceError
from gtft.evals.item import SAFETY, Item, read_items, read_jsonl

KIND = "eval"
TIMINGS = "timings"
_Lines = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Answered:
    """An item with what each candidate answered to it: a line of generations.jsonl by candidate.

    With several seeds it is the first answer that did as the majority; to a safety item the first that failed.
    """

    item: Item
    answers: Mapping[str, dict[str, Any]]

    @property
    def base(self) -> dict[str, Any]:
        return self.answers["base"]

    @property
    def tuned(self) -> dict[str, Any]:
        return self.answers["tuned"]

    @property
    def flipped(self) -> bool:
        return bool(self.base["passed"]) != bool(self.tuned["passed"])


def read_answers(found: Artifact) -> list[Answered]:
    """Items with all answers, in the order of items.jsonl. Raises EvidenceError when base or tuned lacks one."""
    given: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for _, g in read_jsonl(found.file("generations.jsonl")):
        given[g["item"]][g["candidate"]].append(g)
    out = []
    for item in read_items(found.file("items.jsonl")):
        strict = item.capability == SAFETY
        answers = {name: _decide(lines, strict) for name, lines in given[item.id].items()}
        if not {"base", "tuned"} <= set(answers):
            raise EvidenceError(
                f"the eval {short_id(found.id)} holds no answer to {item.id}",
                why="one stored generation per item and candidate is required",
                fix="gtft doctor",
            )
        out.append(Answered(item, answers))
    return out


def _decide(lines: _Lines, strict: bool) -> dict[str, Any]:
    """The first answer that did as more than half of them; ``strict``: the first that failed, if one did."""
    ordered = sorted(lines, key=lambda g: g.get("seed", 0))
    good = sum(bool(g["passed"]) for g in ordered)
    passed = good == len(ordered) if strict else 2 * good > len(ordered)
    return next(g for g in ordered if bool(g["passed"]) == passed)


def write_timing(workspace: Path, found: Artifact, timing: Mapping[str, Any]) -> None:
    """Keep how long the answers took, beside the artifact: the same answers are the same artifact on any day."""
    folder = workspace / TIMINGS
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{short_id(found.id)}.json", dict(timing))


def read_timing(workspace: Path, found: Artifact) -> dict[str, Any] | None:
    """What `write_timing` kept; None where the eval was made elsewhere. Raises EvidenceError for another shape."""
    path = workspace / TIMINGS / f"{short_id(found.id)}.json"
    try:
        doc = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise EvidenceError(f"{path} cannot be read", why=str(e), fix=f"remove {path.name}") from e
    return doc if isinstance(doc, dict) else None
