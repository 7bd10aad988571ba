"""Rows laid into batches: padded side by side, or packed end to end without seeing each other."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import torch

from gtft.training.render import IGNORED, Row


def plan_packs(lengths: Sequence[int], capacity: int) -> list[tuple[int, ...]]:
    """Rows in packs of at most ``capacity`` tokens: best fit, longest first (arXiv:2404.10830).

    Every row is in exactly one pack; a row longer than ``capacity`` has a pack of its own.
    """
    packs: list[list[int]] = []
    # (room left, pack), sorted: the first that is large enough fits best.
    open_: list[tuple[int, int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect.bisect_left(open_, (lengths[i], -1))
        if at == len(open_):
            packs.append([i])
            left, pack = capacity - lengths[i], len(packs) - 1
        else:
            left, pack = open_.pop(at)
            packs[pack].append(i)
            left -= lengths[i]
        if left > 0:
            bisect.insort(open_, (left, pack))
    return [tuple(p) for p in packs]


class Collator:
    """Numbers of units (a unit: one row, or the rows of a pack) → tensors [batch, length].

    A batch of one needs no padding and no attention mask. In a pack ``position_ids`` start again with
    each row: that is how transformers knows that rows must not see each other.
    """

    def __init__(self, units: Sequence[Sequence[Row]], pad: int) -> None:
        self._units = units
        self._pad = pad

    def __call__(self, batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        units = [self._units[b["unit"]] for b in batch]
        packed = any(len(rows) > 1 for rows in units)
        lines = [_join(rows) for rows in units]
        width = max(len(ids) for ids, *_ in lines)
        laid: dict[str, list[list[Any]]] = {
            "input_ids": [ids + [self._pad] * (width - len(ids)) for ids, *_ in lines],
            "labels": [labels + [IGNORED] * (width - len(labels)) for _, labels, *_ in lines],
        }
        if packed:
            # Padding is a row of its own.
            laid["position_ids"] = [p + list(range(width - len(p))) for *_, p, _ in lines]
        elif any(len(ids) < width for ids, *_ in lines):
            laid["attention_mask"] = [
                [1] * len(ids) + [0] * (width - len(ids)) for ids, *_ in lines
            ]
        out = {name: torch.tensor(rows) for name, rows in laid.items()}
        if any(w != 1.0 for *_, weights in lines for w in weights):
            out["answer_weights"] = torch.tensor(
                [w + [0.0] * (width - len(w)) for *_, w in lines], dtype=torch.float32
            )
        return out


def _join(rows: Sequence[Row]) -> tuple[list[int], list[int], list[int], list[float]]:
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    weights: list[float] = []
    for row in rows:
        ids += row.input_ids
        # Nothing of this row predicts its first token.
        labels += [IGNORED, *row.labels[1:]]
        positions += range(len(row.input_ids))
        weights += [row.weight] * len(row.input_ids)
    return ids, labels, positions, weights
