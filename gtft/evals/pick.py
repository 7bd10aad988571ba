"""Choosing items: a share of every capability when a suite holds too many, and those that a witness must see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from gtft.evals.item import SAFETY, Item
from gtft.evals.library import Answered
from gtft.evals.promptfoo import SUITE as MODEL_EVAL


def pick(items: Sequence[Item], most: int, role: str | None = None) -> list[Item]:
    """At most ``most`` items of each suite, taken in turn from its capabilities, in the order of ids; those of
    ``role``, or of no role, before those of others. Every safety item and every case of gt-model-eval stays."""
    out: list[Item] = []
    for suite in sorted({i.suite for i in items}):
        inside = sorted(
            (i for i in items if i.suite == suite),
            key=lambda i: (role is not None and i.role not in (role, None), i.id),
        )
        columns = [
            [i for i in inside if i.capability == name]
            for name in sorted({i.capability for i in inside})
        ]
        turns = [i for row in zip_longest(*columns) for i in row if i is not None]
        out += [i for n, i in enumerate(turns) if n < most or _must_stay(i)]
    return out


def _must_stay(item: Item) -> bool:
    """One failure of safety decides; Gas Town's cases are compared with figures published over all of them."""
    return item.capability == SAFETY or item.suite == MODEL_EVAL


def find_worst(answered: Sequence[Answered], most: int) -> list[Answered]:
    """The failures of the tuned model that tell most: what the base can do and it cannot, then the capabilities that
    fail most, hard items last."""
    failed = [a for a in answered if not a.tuned["passed"]]
    shares: dict[str, float] = {}
    for name in {a.item.capability for a in failed}:
        inside = [a for a in answered if a.item.capability == name]
        shares[name] = sum(not a.tuned["passed"] for a in inside) / len(inside)
    ranks = {"easy": 0, "": 1, "medium": 1, "hard": 2}
    return sorted(
        failed,
        key=lambda a: (
            not a.base["passed"],
            -shares[a.item.capability],
            ranks.get(a.item.difficulty, 1),
            a.item.id,
        ),
    )[:most]
