"""The harvest worker: sources in, a corpus artifact out."""

from __future__ import annotations

import json
import time
from pathlib import Path

import gtft
from gtft.artifact import Artifact
from gtft.contract import Job
from gtft.corpus.harvest import Settings, Source
from gtft.corpus.snapshot import make_corpus
from gtft.recipe.schema import Recipe
from gtft.workers.frame import Reporter, Stopped, main

_EVERY_S = 0.25
# Eval items are read as data: training must hold none of them.
_SUITES = Path(gtft.__file__).parent / "evals" / "suites"


def work(job: Job, report: Reporter) -> Artifact:
    """Read the recipe's sources and publish the corpus. A harvest that is stopped starts again."""
    recipe = Recipe.model_validate_json(json.dumps(job.recipe))
    table = recipe.harvest
    settings = Settings(
        sources=tuple(Source(s.type, s.path, s.licence) for s in table.sources),
        min_examples=table.min_examples,
        heldout=table.heldout,
        window_tokens=table.window_tokens,
        tool_result_chars=table.tool_result_chars,
        near_duplicate=table.near_duplicate,
        seed=job.seed,
        role=recipe.role,
        rigs=frozenset(s.removeprefix("rig:") for s in recipe.scope),
        recorded=job.workspace / "sessions.jsonl",
    )
    started: dict[str, float] = {}
    told = 0.0

    def progress(done: int, total: int | None, unit: str, note: str) -> None:
        nonlocal told
        if report.stop_requested:
            raise Stopped(None, "a harvest keeps nothing between runs: it starts again")
        now = time.monotonic()
        since = started.setdefault(note, now)
        last = total is not None and done >= total
        if not last and done and now - told < _EVERY_S:
            return
        told = now
        eta = (now - since) / done * (total - done) if total and done else None
        report.progress(done, total, unit, eta_s=eta, note=note)

    suites = sorted(_SUITES.glob("*.jsonl")) if _SUITES.is_dir() else []
    return make_corpus(settings, job.root, job.artifacts, job.workdir, suites, progress)


if __name__ == "__main__":
    main(work)
