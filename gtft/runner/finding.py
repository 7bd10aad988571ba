"""What doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """``level``: ok, note (works, but look) or wrong (something will fail)."""

    level: Level
    about: str
    text: str
    fix: str = ""
