"""What an active stage waits for, kept beside its job for everybody who looks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gtft.artifact import write_json

WAITING_FILE = "waiting.json"


@dataclass(frozen=True)
class Waiting:
    """``why``: queue = the device is taken; memory = it would not fit now; yielded = it gave way.

    ``position``: 1 = its turn; ``behind``: the runs before it; ``since_us``: microseconds since the epoch;
    ``yields``: how often it gave way since its runner began.
    """

    why: Literal["queue", "memory", "yielded"]
    text: str
    device: str = ""
    position: int = 1
    behind: tuple[str, ...] = ()
    since_us: int = 0
    yields: int = 0

    def __str__(self) -> str:
        return f"{self.why}: {self.text}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def write_waiting(job_dir: Path, waiting: Waiting) -> None:
    write_json(job_dir / WAITING_FILE, waiting.as_dict())


def clear_waiting(job_dir: Path) -> None:
    (job_dir / WAITING_FILE).unlink(missing_ok=True)


def read_waiting(job_dir: Path) -> Waiting | None:
    """None when it waits for nothing, as far as its runner told."""
    try:
        doc = json.loads((job_dir / WAITING_FILE).read_text("utf-8"))
        return Waiting(**{**doc, "behind": tuple(doc["behind"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        # Of another version: who waits tells it again.
        return None
