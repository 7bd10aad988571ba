"""What a trainer reads, in units: one row each, or packs of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from gtft.training.packing import plan_packs
from gtft.training.render import Row


class Material(Protocol):
    """The trainable form of a corpus, for one family of methods."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each unit."""
        ...


@dataclass(frozen=True)
class Rows:
    """Rows for supervised fine-tuning. ``capacity``: tokens of a pack; 0 = every row by itself."""

    rows: tuple[Row, ...]
    capacity: int = 0

    @cached_property
    def units(self) -> list[tuple[Row, ...]]:
        if not self.capacity:
            return [(row,) for row in self.rows]
        packs = plan_packs([len(r.input_ids) for r in self.rows], self.capacity)
        return [tuple(self.rows[i] for i in pack) for pack in packs]

    @cached_property
    def lengths(self) -> list[int]:
        return [sum(len(r.input_ids) for r in unit) for unit in self.units]

    @property
    def pack_sizes(self) -> list[int]:
        """Rows of each pack; nothing when rows are not packed."""
        return [len(u) for u in self.units] if self.capacity else []


def balance_weights(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows whose weights are on average 1 over the supervised tokens: weighting moves attention between
    examples, not the learning rate."""
    tokens = sum(r.supervised for r in rows)
    mean = sum(r.weight * r.supervised for r in rows) / tokens if tokens else 1.0
    if mean <= 0 or all(r.weight == 1.0 for r in rows):
        return tuple(rows)
    return tuple(replace(r, weight=r.weight / mean) for r in rows)
