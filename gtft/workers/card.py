"""The card worker: ``python -m gtft.workers.card JOB_DIR``. What the store knows of a run, as a model card."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path

import sqlalchemy as sa

from gtft.artifact import (
    Artifact,
    canonical_json,
    short_id,
    stage_artifact,
    verify_artifact,
    write_file,
    write_json,
)
from gtft.contract import SUMMARY_FILE, InputArtifact, Job
from gtft.errors import EvidenceError, InputError, MissingExtra
from gtft.models.card import summarise_card, write_card
from gtft.models.figures import SOURCES, find_recorded, gather_figures
from gtft.models.plots import draw_plots
from gtft.records.dolt import open_dolt, read_url
from gtft.records.store import Store, open_sqlite
from gtft.workers.frame import Reporter, Stopped, main

KIND = "card"
README = "README.md"
_NEEDED = ("huggingface_hub", "matplotlib")
_STEPS = ("evidence re-hashed", "figures read", "plots drawn", "card written")


def work(job: Job, report: Reporter) -> Artifact:
    """Check what the card will quote, then write it. Nothing is read from an artifact but its hashes."""
    require_card_extra()
    store = open_store(job.store_url)
    for given in job.inputs:
        check_input(store, job.run_id, given)
    _tell(report, 1)
    figures = gather_figures(store, job.run_id)
    if figures.recipe_hash != job.recipe_hash:
        raise EvidenceError(
            f"the job's recipe is {short_id(job.recipe_hash)}, the run's is {short_id(figures.recipe_hash)}",
            why="a card tells of the recipe that the run recorded",
            fix=f"gtft runs resume {job.run_id}",
        )
    _tell(report, 2)
    plots = draw_plots(figures)
    _tell(report, 3)
    if report.stop_requested:
        raise Stopped(text="nothing to save: a card is made in seconds")
    with stage_artifact(job.artifacts, KIND, parents=tuple(figures.artifact_ids.values())) as out:
        for name, data in plots.items():
            path = out.path / name
            path.parent.mkdir(exist_ok=True)
            write_file(path, data)
        write_file(out.path / README, write_card(figures).encode())
        write_json(out.path / SUMMARY_FILE, summarise_card(figures, tuple(plots)))
    _tell(report, 4)
    return out.result


def require_card_extra() -> None:
    """Raises MissingExtra that names the packages a card needs and the install has not."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"a card needs {', '.join(missing)}",
            why="the core install leaves plots and the Hub's card format out",
            fix="pip install 'gtft[train]' -c constraints.txt",
        )


def open_store(url: str) -> Store:
    """The run's store. A worker only reads from it. Raises InputError when it is not there."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        target = read_url(url, os.environ.get("GT_DOLT_PASSWORD", ""))
        return Store(open_dolt(target), time.time)
    path = Path(parsed.database or "")
    if not path.is_file():
        raise InputError(f"there is no store at {path}", fix="gtft doctor")
    return Store(open_sqlite(path), time.time)


def check_input(store: Store, run_id: str, given: InputArtifact) -> None:
    """Hash an input again and hold it against the store: its id, and the summary that the card quotes.

    Raises EvidenceError when either is not the recorded one.
    """
    recorded = find_recorded(store, run_id, given.stage)
    if given.id != recorded.id:
        raise EvidenceError(
            f"the {recorded.kind} given to the card is {short_id(given.id)}, "
            f"the run recorded {short_id(recorded.id)}",
            fix=f"gtft runs resume {run_id}",
        )
    found = verify_artifact(given.path, kind=SOURCES[given.stage], expect=recorded.id)
    on_disk = json.loads(found.file(SUMMARY_FILE).read_bytes())
    if canonical_json(on_disk) != canonical_json(recorded.summary):
        raise EvidenceError(
            f"the figures in the store are not those of the {recorded.kind} {short_id(recorded.id)}",
            why=f"its {SUMMARY_FILE} says something else",
            fix="gtft doctor",
        )


def _tell(report: Reporter, done: int) -> None:
    report.progress(done, len(_STEPS), "steps", note=_STEPS[done - 1])


if __name__ == "__main__":
    main(work)
