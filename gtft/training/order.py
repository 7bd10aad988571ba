"""The order in which rows are read, for the whole run, as a pure function of its settings.

The trainer then only reads on: a resumed run is at the same place of the same list. Rows of like length
share a batch, so that little is padded.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

_BATCHES_PER_WINDOW = 8


def plan_order(lengths: Sequence[int], batch: int, rows_wanted: int, seed: int) -> list[int]:
    """Indices into ``lengths``, ``rows_wanted`` of them, epoch after epoch.

    Every epoch reads each row once: shuffled, then sorted by length within windows of a few batches, and
    the batches shuffled again.
    """
    dice = random.Random(seed)  # noqa: S311 - a data order, not a secret
    order: list[int] = []
    while len(order) < rows_wanted:
        order += _plan_epoch(lengths, batch, dice)
    return order[:rows_wanted]


def _plan_epoch(lengths: Sequence[int], batch: int, dice: random.Random) -> list[int]:
    shuffled = list(range(len(lengths)))
    dice.shuffle(shuffled)
    window = batch * _BATCHES_PER_WINDOW
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), window):
        near = sorted(shuffled[start : start + window], key=lambda i: lengths[i])
        batches += [near[i : i + batch] for i in range(0, len(near), batch)]
    # The short one stays last, so that it does not shift the bounds of the others.
    full = [b for b in batches if len(b) == batch]
    dice.shuffle(full)
    return [i for b in [*full, *(b for b in batches if len(b) < batch)] for i in b]
