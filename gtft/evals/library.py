"""The items of an evaluation on disk, with what each candidate answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gtft.artifact import Artifact, short_id
from gtft.errors import EvidenceError
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
