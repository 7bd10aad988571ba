"""Items made by program, with computed answers: one module per capability, each with ``make(dice)``.

The suites in ``gtft/evals/suites/generated`` are what ``python -m gtft.evals.making`` wrote; a test makes them
again. A new capability is one file and one line here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gtft.artifact import write_file
from gtft.evals.making import (
    bead_creation,
    bead_repair,
    calibration,
    commands,
    dependencies,
    explain,
    formula,
    formula_repair,
    git,
    lifecycle,
    migration,
    patrol,
    planning,
    routes,
    safety,
    witness,
)
from gtft.evals.making.made import SUITE, Made
from gtft.evals.shipped import SUITES

Maker = Callable[[random.Random], Iterator[Made]]

MAKERS: dict[str, Maker] = {
    "bead-creation": bead_creation.make,
    "bead-repair": bead_repair.make,
    "calibration": calibration.make,
    "commands": commands.make,
    "dependencies": dependencies.make,
    "explain": explain.make,
    "formula": formula.make,
    "formula-repair": formula_repair.make,
    "git": git.make,
    "lifecycle": lifecycle.make,
    "migration": migration.make,
    "patrol-decision": patrol.make,
    "planning": planning.make,
    "routing": routes.make,
    "safety": safety.make,
    "witness": witness.make,
}


def make_suite(capability: str, seed: int = 1) -> list[Made]:
    """The same seed gives the same items, in the same order."""
    dice = random.Random(f"{capability}:{seed}")  # noqa: S311 - names and numbers, no secrets
    return list(MAKERS[capability](dice))


def write_suites(folder: Path = SUITES) -> Mapping[str, int]:
    """Write every suite below ``folder``; returns the number of items of each."""
    counts: dict[str, int] = {}
    (folder / SUITE).mkdir(parents=True, exist_ok=True)
    for capability in sorted(MAKERS):
        items = [m.item.to_json() for m in make_suite(capability)]
        write_file(folder / SUITE / f"{capability}.jsonl", write_lines(items).encode())
        counts[capability] = len(items)
    return counts


def write_lines(docs: list[dict[str, Any]]) -> str:
    """JSON lines with sorted keys."""
    return "".join(json.dumps(d, sort_keys=True, ensure_ascii=True) + "\n" for d in docs)
