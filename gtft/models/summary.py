"""Reading an artifact's summary from the store: what is missing or of another shape is named, never guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gtft.artifact import short_id
from gtft.errors import EvidenceError
from gtft.records.rows import ArtifactRow

_ABSENT = object()


class Summary:
    """The figures of one artifact; keys are dotted paths such as ``loss.first``.

    ``number``, ``count``, ``text`` and ``table`` raise EvidenceError that names the artifact and the key
    when the figure is not there or is not of that kind. The ``find_…`` twins give None when it is not there.
    """

    def __init__(self, label: str, data: Mapping[str, Any]) -> None:
        self.label = label
        self.data = data

    def number(self, key: str) -> float:
        value = self._get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self.refuse(key, "a number", value)
        return float(value)

    def count(self, key: str) -> int:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.refuse(key, "a count", value)
        return value

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str):
            raise self.refuse(key, "text", value)
        return value

    def table(self, key: str) -> Summary:
        value = self._get(key)
        if not isinstance(value, dict):
            raise self.refuse(key, "a table", value)
        return Summary(f"{self.label}: {key}", value)

    def array(self, key: str) -> list[Any]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self.refuse(key, "a list", value)
        return value

    def counts(self, key: str) -> dict[str, int]:
        """A table of counts, largest first, then by name."""
        table = self.table(key)
        found = {str(k): table.count(str(k)) for k in table.data}
        return dict(sorted(found.items(), key=lambda kv: (-kv[1], kv[0])))

    def has(self, key: str) -> bool:
        """True when the key is there and is not null."""
        return self._look(key) not in (_ABSENT, None)

    def find_number(self, key: str) -> float | None:
        return self.number(key) if self.has(key) else None

    def find_count(self, key: str) -> int | None:
        return self.count(key) if self.has(key) else None

    def find_text(self, key: str) -> str | None:
        return self.text(key) if self.has(key) else None

    def find_counts(self, key: str) -> dict[str, int] | None:
        return self.counts(key) if self.has(key) else None

    def refuse(self, key: str, wanted: str, found: object) -> EvidenceError:
        """The error of a figure that cannot go on the card."""
        if found is _ABSENT:
            what = f"the card cannot be written: {self.label} has no {key}"
        else:
            what = f"the card cannot be written: {key} of {self.label} is not {wanted}"
        return EvidenceError(
            what,
            why="a figure that is not in the store cannot get on the card",
            fix="gtft runs show RUN",
        )

    def _get(self, key: str) -> Any:
        value = self._look(key)
        if value is _ABSENT or value is None:
            raise self.refuse(key, "recorded", _ABSENT)
        return value

    def _look(self, key: str) -> Any:
        # A name may hold dots itself (a rig, a file), so an exact key wins over a path.
        if key in self.data:
            return self.data[key]
        value: Any = self.data
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return _ABSENT
            value = value[part]
        return value


def read_summary(row: ArtifactRow) -> Summary:
    """The summary of a recorded artifact."""
    return Summary(f"the summary of {row.kind} {short_id(row.id)}", row.summary)
