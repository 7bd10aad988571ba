"""The training examples of a corpus artifact, as conversations."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.errors import EvidenceError, translate_os_error


@dataclass(frozen=True)
class Conversation:
    """One example: chat messages and tools in the shapes that chat templates read.

    ``weight``: how much its loss counts, from the outcome of the work; 1 where nothing is known.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    weight: float = 1.0


def read_conversations(path: Path) -> Iterator[Conversation]:
    """The lines of ``train.jsonl``, in order. Raises EvidenceError naming the line that is not an example."""
    try:
        with path.open("rb") as f:
            for number, line in enumerate(f, start=1):
                if line.strip():
                    yield _parse(line, path, number)
    except OSError as e:
        raise translate_os_error(e, "reading the training examples") from e


def _parse(line: bytes, path: Path, number: int) -> Conversation:
    try:
        doc = json.loads(line)
        messages = tuple({**m, "role": str(m["role"])} for m in doc["messages"])
        weight = float(doc.get("weight", 1.0))
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight {weight}")
        return Conversation(str(doc["id"]), messages, tuple(doc.get("tools") or ()), weight)
    except (ValueError, KeyError, TypeError) as e:
        raise EvidenceError(
            f"{path.name}:{number} is not a training example",
            why=f"{type(e).__name__}: {e}",
            fix="gtft run RECIPE (a new run harvests again)",
        ) from e
