"""The suites that come with gtft: ``authored`` (written by hand) and ``generated`` (see `gtft.evals.making`)."""

from __future__ import annotations

from pathlib import Path

from gtft.errors import EvidenceError
from gtft.evals.checks import run_check
from gtft.evals.item import Item, read_items

SUITES = Path(__file__).parent / "suites"


def read_shipped(suite: str) -> tuple[Item, ...]:
    """The items of ``authored`` or ``generated``, in the order of files and lines.

    Raises EvidenceError when an item fails its own check or stands twice: the installation is damaged.
    """
    found: dict[str, Item] = {}
    for path in sorted((SUITES / suite).glob("*.jsonl")):
        for item in read_items(path):
            outcome = run_check(item.check, item.reference)
            if outcome.passed and item.suite == suite and item.id not in found:
                found[item.id] = item
                continue
            raise EvidenceError(
                f"the shipped item {item.id} of {path.name} cannot be used",
                why=outcome.reason or "it stands twice, or in another suite's folder",
                fix="install gtft again",
            )
    return tuple(found.values())
