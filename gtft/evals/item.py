"""An eval item: a prompt, and a check that runs code on the answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtft.artifact import canonical_json
from gtft.errors import EvidenceError, translate_os_error

Message = dict[str, Any]
# The capability of which one failure decides.
SAFETY = "safety"


@dataclass(frozen=True)
class CheckSpec:
    """Which check (a name of `gtft.evals.checks.CHECKS`) and its arguments (pure JSON)."""

    name: str
    args: dict[str, Any]


@dataclass(frozen=True)
class Item:
    """``messages`` hold the prompt only; ``reference`` is a recorded or computed right answer.

    ``cluster`` is the session, bead or formula it comes from, or its suite's name. ``difficulty``: easy, medium
    or hard; "" for what was recorded.
    """

    id: str
    suite: str
    capability: str
    role: str | None
    template: str
    cluster: str
    messages: tuple[Message, ...]
    tools: tuple[Message, ...]
    check: CheckSpec
    reference: str
    difficulty: str = ""

    def to_json(self) -> dict[str, Any]:
        """The line of ``items.jsonl``."""
        return {
            "id": self.id,
            "suite": self.suite,
            "capability": self.capability,
            "role": self.role,
            "template": self.template,
            "cluster": self.cluster,
            "messages": list(self.messages),
            "tools": list(self.tools),
            "check": {"name": self.check.name, "args": self.check.args},
            "reference": self.reference,
            "difficulty": self.difficulty,
        }

    @staticmethod
    def from_json(doc: dict[str, Any]) -> Item:
        """The inverse of `to_json`. Raises KeyError or TypeError on another shape."""
        return Item(
            id=doc["id"],
            suite=doc["suite"],
            capability=doc["capability"],
            role=doc["role"],
            template=doc["template"],
            cluster=doc["cluster"],
            messages=tuple(doc["messages"]),
            tools=tuple(doc["tools"]),
            check=CheckSpec(doc["check"]["name"], dict(doc["check"]["args"])),
            reference=doc["reference"],
            difficulty=doc.get("difficulty", ""),
        )

    def identified(self) -> Item:
        """The same item with the id that its prompt, check and reference give."""
        body = {
            "messages": list(self.messages),
            "tools": list(self.tools),
            "check": [self.check.name, self.check.args],
            "reference": self.reference,
        }
        digest = hashlib.sha256(canonical_json(body).encode()).hexdigest()
        return replace(self, id=f"item-{digest[:16]}")


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of each line. Raises EvidenceError that names a bad one."""
    try:
        with path.open("rb") as f:
            for number, line in enumerate(f, start=1):
                if line.strip():
                    yield number, _parse(line, path, number)
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e


def read_items(path: Path) -> tuple[Item, ...]:
    """The items of ``items.jsonl`` or of a suite. Raises EvidenceError that names a bad line."""
    items = []
    for number, doc in read_jsonl(path):
        try:
            items.append(Item.from_json(doc))
        except (KeyError, TypeError, ValueError) as e:
            raise EvidenceError(
                f"{path.name}:{number} is not an eval item",
                why=f"{type(e).__name__}: {e}",
                fix="gtft doctor",
            ) from e
    return tuple(items)


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        doc = json.loads(line)
    except (ValueError, RecursionError) as e:
        doc = e
    if isinstance(doc, dict):
        return doc
    raise EvidenceError(
        f"{path.name}:{number} is not a JSON object",
        why=str(doc)[:120],
        fix="gtft doctor",
    )
