"""The train worker: ``python -m gtft.workers.train JOB_DIR``. A corpus in, an adapter out."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtft.artifact import Artifact, stage_artifact, verify_artifact
from gtft.contract import PLAN_FILE, Job
from gtft.errors import InputError
from gtft.memory import PeakSampler, measure_free, read_anonymous
from gtft.recipe.schema import Recipe
from gtft.training.environment import prepare_environment, require_training_extra
from gtft.training.watch import StopRequested, Watch
from gtft.workers.frame import Reporter, Stopped, main

if TYPE_CHECKING:
    from gtft.training.averaging import Averager
    from gtft.training.base import BaseModel
    from gtft.training.device import Settings


def work(job: Job, report: Reporter) -> Artifact:
    """Locate or build the base, prove the mask, train, publish the adapter."""
    peak = PeakSampler()
    recipe = Recipe.model_validate_json(json.dumps(job.recipe))
    require_training_extra()
    # Before anything below imports torch or the hub client.
    prepare_environment(os.environ, offline=recipe.base.model == "nano")

    from gtft.training.figures import mirror

    given = job.input("harvest")
    corpus = verify_artifact(given.path, kind="corpus", expect=given.id)
    train = recipe.train
    try:
        with mirror(
            train.report_to, job.workdir / "tracking", job.run_id, report, os.environ
        ) as watch:
            return _train(job, recipe, corpus, watch, peak)
    except StopRequested as e:
        raise Stopped(e.step, e.text) from e


def _train(job: Job, recipe: Recipe, corpus: Artifact, watch: Watch, peak: PeakSampler) -> Artifact:
    from gtft.training.adapter import write_adapter
    from gtft.training.adapters import KIND, attach, find_ancestors, require_trainable
    from gtft.training.averaging import Averaging
    from gtft.training.base import load_tokenizer, locate_base
    from gtft.training.fit import Task, count_per_step, fit
    from gtft.training.ranks import start_ranks
    from gtft.training.watchdog import Watchdog, read_pace
    from gtft.workers.lesson import prepare_lesson

    train = recipe.train
    require_trainable(recipe.base, train)
    began = time.monotonic()
    base = locate_base(
        recipe.base,
        text_file=corpus.file("base.txt"),
        root=job.root,
        workspace=job.workspace,
        watch=watch,
        clock=time.monotonic,
    )
    watch.metric(0, "base_seconds", time.monotonic() - began)
    ancestors = find_ancestors(train, job.artifacts, base, watch)
    tokenizer = load_tokenizer(base)
    job_dir = job.workdir.parent
    with start_ranks(train.processes, job_dir, os.environ) as ranks:
        settings = _settle(recipe, base, ranks.local)
        lesson = prepare_lesson(recipe, settings.packing, corpus, tokenizer, job.root, watch)
        watchdog = Watchdog(read_pace(job_dir / PLAN_FILE), watch, time.monotonic, read_anonymous)
        task = Task(
            base=base,
            tokenizer=tokenizer,
            train=train,
            settings=settings,
            corpus=corpus.id,
            recipe_hash=job.recipe_hash,
            workdir=_make(job.workdir),
            watch=watch,
            clock=time.monotonic,
            equip=lambda model: attach(model, train, ancestors),
            measure_memory=read_anonymous,
            companions=(lesson.retention, watchdog),
            keep_threads="OMP_NUM_THREADS" in os.environ and ranks.world == 1,
            place=None if settings.device == "cpu" else ranks.local,
            ranks=ranks,
        )
        began = time.monotonic()
        with _open_averager(job, recipe, base, watch) as averager:
            meeting = Averaging(averager, watch, count_per_step(train))
            trained = fit(replace(task, companions=(meeting, *task.companions)), lesson.material)
            evidence = averager.evidence()
        if ranks.rank:
            raise StopRequested(
                trained.steps, f"rank {ranks.rank} is done; rank 0 writes the adapter"
            )
    lesson.retention.finish(trained.model)
    watch.metric(trained.steps, "train_seconds", time.monotonic() - began)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    watch.metric(trained.steps, "peak_memory_bytes", float(resident))
    watch.metric(trained.steps, "peak_anon_bytes", float(peak.close()))
    summary: dict[str, Any] = {"retention": {**lesson.retention.as_dict(), **lesson.summary}}
    if evidence:
        summary["swarm"] = evidence
    with stage_artifact(job.artifacts, KIND, parents=(corpus.id, *ancestors.ids)) as staging:
        write_adapter(
            staging.path, trained, tokenizer, base, lesson.account, train, ancestors,
            mask=lesson.mask, summary=summary,
        )  # fmt: skip
    return staging.result


def _settle(recipe: Recipe, base: BaseModel, place: int) -> Settings:
    """What "auto" becomes here, by what fits into the memory that is free now."""
    import torch

    from gtft.footprint import fits_without_checkpointing, read_shape_of
    from gtft.recipe.load import plan_load
    from gtft.training.device import settle

    cuda = torch.cuda.is_available()
    if recipe.train.gradient_checkpointing != "auto" or cuda:
        fits = True
    else:
        load = plan_load(recipe.base, recipe.train, gpu=False, checkpointing=False)
        try:
            # What this process holds already is in the estimate.
            free = measure_free() + read_anonymous()
            fits = fits_without_checkpointing(read_shape_of(base.path), load, free)
        except InputError:
            # A family whose shape is not known: the careful way.
            fits = False
    return settle(recipe.train, cuda=cuda, bf16=cuda and torch.cuda.is_bf16_supported(), fits=fits)


@contextmanager
def _open_averager(job: Job, recipe: Recipe, base: BaseModel, watch: Watch) -> Iterator[Averager]:
    """What the training meets on its way: the peer of a swarm, or nobody."""
    if recipe.train.engine == "local":
        from gtft.training.averaging import LocalAverager

        yield LocalAverager()
        return
    from gtft.training.swarm.opening import open_swarm

    averager = open_swarm(job, recipe, base, watch, time.monotonic)
    try:
        yield averager
    finally:
        averager.close()


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main(work)
