"""Choosing items when a suite holds more than are asked for: every capability keeps its share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from gtft.evals.item import Item


def pick(items: Sequence[Item], most: int) -> list[Item]:
    """At most ``most`` items of each suite, taken in turn from its capabilities, in the order of ids."""
    out: list[Item] = []
    for suite in sorted({i.suite for i in items}):
        inside = sorted((i for i in items if i.suite == suite), key=lambda i: i.id)
        columns = [
            [i for i in inside if i.capability == name]
            for name in sorted({i.capability for i in inside})
        ]
        turns = [i for row in zip_longest(*columns) for i in row if i is not None]
        out += turns[:most]
    return out
