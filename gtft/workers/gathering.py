"""The items of an evaluation: held-out sessions, what ships with gtft, Gas Town's cases, files of the recipe."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gtft.artifact import Artifact
from gtft.contract import Job
from gtft.errors import MissingExtra
from gtft.evals.checks.promptfoo import find_node
from gtft.evals.heldout import build_heldout
from gtft.evals.item import Item
from gtft.evals.promptfoo import SUITE as MODEL_EVAL
from gtft.evals.promptfoo import Cases, find_cases_folders, leave_out, read_cases
from gtft.evals.shipped import read_file, read_shipped
from gtft.recipe.schema import Recipe


@dataclass(frozen=True)
class Gathered:
    """``dropped``: reason → number of items that are not scored. ``not_run``: (suite, why). ``cases``: gt-model-eval."""

    items: list[Item]
    dropped: dict[str, int]
    not_run: list[tuple[str, str]]
    cases: Cases | None = None


def gather_items(job: Job, recipe: Recipe, corpus: Artifact) -> Gathered:
    """Everything that the recipe's suites hold. Raises EvidenceError for a damaged installation, InputError for a
    file or folder that the recipe names and that cannot be used."""
    table = recipe.eval
    found = Gathered([], {}, [])
    if "heldout" in table.suites:
        heldout = build_heldout(corpus.file("heldout.jsonl"))
        found.items.extend(heldout.items)
        found.dropped.update(heldout.dropped)
    for suite in ("authored", "generated"):
        if suite in table.suites:
            found.items.extend(read_shipped(suite))
    for path in table.files:
        found.items.extend(read_file(_locate(job, path)))
    if MODEL_EVAL not in table.suites:
        return found
    folders = find_cases_folders(table.gt_model_eval, job.workspace, job.root)
    if not folders:
        why = "no folder gt-model-eval below the town; name it in eval.gt_model_eval"
        found.not_run.append((MODEL_EVAL, why))
        return found
    cases = read_cases(folders[0])
    try:
        find_node(os.environ.get("PATH"))
    except MissingExtra as e:
        found.not_run.append((MODEL_EVAL, f"{e.what}: {e.why}"))
        cases = leave_out(cases, {i.id for i in cases.items}, e.what)
    return Gathered([*found.items, *cases.items], found.dropped, found.not_run, cases)


def _locate(job: Job, path: str) -> Path:
    given = Path(path).expanduser()
    return given if given.is_absolute() else job.root / given
