"""The items of an evaluation: held-out sessions, what ships with gtft, Gas Town's cases, files of the recipe."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtft.artifact import Artifact, short_id, verify_artifact
from gtft.contract import Job
from gtft.errors import EvidenceError, MissingExtra
from gtft.evals.checks.promptfoo import find_node
from gtft.evals.heldout import build_heldout
from gtft.evals.item import Item
from gtft.evals.promptfoo import SUITE as MODEL_EVAL
from gtft.evals.promptfoo import Cases, find_cases_folders, leave_out, read_cases
from gtft.evals.shipped import read_file, read_shipped
from gtft.recipe.schema import Recipe
from gtft.shelf import list_shelf

# Items made from harm that a model did in service: whatever the recipe's suites are.
INCIDENTS = "incidents"


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
    found = Gathered(list(_read_incidents(job)), {}, [])
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


def _read_incidents(job: Job) -> Iterator[Item]:
    for doc in job.incidents:
        try:
            yield Item.from_json(doc)
        except (KeyError, TypeError, ValueError) as e:
            raise EvidenceError(
                "the store holds an incident whose item cannot be read",
                why=f"{type(e).__name__}: {e}",
                fix="gtft doctor",
            ) from e


def find_trained(
    adapters: Sequence[Artifact], artifacts: Path, known: Sequence[Artifact] = ()
) -> list[Artifact]:
    """Every corpus that one of the adapters has read: its run's, and those of the adapters that it goes on from or
    lies on; ``known``: corpora that are verified already, first.

    Raises EvidenceError when one is not on the shelf any more: held-out items could have been learned there.
    """
    shelf = {a.id: a for kind in ("adapter", "corpus") for a in list_shelf(artifacts, kind).found}
    found = {c.id: c for c in known}
    wanted = [p for a in adapters for p in a.parents]
    while wanted:
        parent = wanted.pop()
        if parent in found:
            continue
        if parent not in shelf:
            raise EvidenceError(
                f"{short_id(parent)}, which the adapter comes from, is not here any more",
                why="what it was trained on could not be compared with the items",
                fix="put its folder back below artifacts/, then: gtft runs resume RUN",
            )
        found[parent] = verify_artifact(shelf[parent].path, expect=parent)
        if found[parent].kind == "adapter":
            wanted += found[parent].parents
    return [a for a in found.values() if a.kind == "corpus"]


def _locate(job: Job, path: str) -> Path:
    given = Path(path).expanduser()
    return given if given.is_absolute() else job.root / given
