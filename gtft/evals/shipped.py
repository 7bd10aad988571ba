"""Suites on disk: those that come with gtft (``authored``, written by hand, and ``generated``, see `gtft.evals.making`),
and files of the recipe's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gtft.errors import EvidenceError, InputError
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


def read_file(path: Path) -> tuple[Item, ...]:
    """The items of a file that the recipe names (``eval.files``), as the suite ``file:<its name>``.

    Raises InputError when it is missing, or an item fails its own check or stands twice.
    """
    if not path.is_file():
        raise InputError(
            f"the eval file {path.name} does not exist",
            why="the recipe names it in eval.files",
            fix="correct eval.files in the recipe (gtft recipe lint)",
        )
    found: dict[str, Item] = {}
    suite = f"file:{path.stem}"
    for item in read_items(path):
        cluster = suite if item.cluster == item.suite else item.cluster
        item = replace(item, suite=suite, cluster=cluster).identified()
        outcome = run_check(item.check, item.reference)
        if not outcome.passed or item.id in found:
            raise InputError(
                f"item {len(found) + 1} of {path.name} cannot be used",
                why=outcome.reason or "the same item stands before it",
                fix=f"mend {path.name}: the reference must pass the item's own check",
            )
        found[item.id] = item
    return tuple(found.values())
