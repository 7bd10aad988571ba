"""The train worker: ``python -m gtft.workers.train JOB_DIR``. A corpus in, an adapter out."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

from gtft.artifact import Artifact, stage_artifact, verify_artifact
from gtft.contract import Job
from gtft.recipe.schema import Recipe
from gtft.training.environment import prepare_environment, require_training_extra
from gtft.training.watch import StopRequested
from gtft.workers.frame import Reporter, Stopped, main


def work(job: Job, report: Reporter) -> Artifact:
    """Locate or build the base, prove the mask, train, publish the adapter."""
    recipe = Recipe.model_validate_json(json.dumps(job.recipe))
    require_training_extra()
    # Before anything below imports torch or the hub client.
    prepare_environment(os.environ, offline=recipe.base.model == "nano")
    given = job.input("harvest")
    corpus = verify_artifact(given.path, kind="corpus", expect=given.id)
    try:
        return _train(job, recipe, corpus, report)
    except StopRequested as e:
        raise Stopped(e.step, e.text) from e


def _train(job: Job, recipe: Recipe, corpus: Artifact, report: Reporter) -> Artifact:
    import psutil
    import torch

    from gtft.training.adapter import KIND, write_adapter
    from gtft.training.adapters import attach, find_ancestors, require_trainable
    from gtft.training.base import load_tokenizer, locate_base
    from gtft.training.device import settle
    from gtft.training.examples import read_conversations
    from gtft.training.fit import Task, fit
    from gtft.training.mask import check_proof, prove
    from gtft.training.material import Rows, balance_weights

    require_trainable(recipe.base, recipe.train)
    began = time.monotonic()
    base = locate_base(
        recipe.base,
        text_file=corpus.file("base.txt"),
        root=job.root,
        workspace=job.workspace,
        watch=report,
        clock=time.monotonic,
    )
    report.metric(0, "base_seconds", time.monotonic() - began)
    train = recipe.train
    ancestors = find_ancestors(train, job.artifacts, base, report)
    tokenizer = load_tokenizer(base)
    proof = prove(
        read_conversations(corpus.file("train.jsonl")), tokenizer, train.max_length, report
    )
    check_proof(proof, train.max_unsupervised, report)
    cuda = torch.cuda.is_available()
    settings = settle(train, cuda=cuda, bf16=cuda and torch.cuda.is_bf16_supported(), fits=True)
    rows = balance_weights(proof.rows) if train.outcome_weights else proof.rows
    material = Rows(rows, proof.as_dict(), train.max_length if settings.packing else 0)
    process = psutil.Process()
    began = time.monotonic()
    task = Task(
        base=base,
        tokenizer=tokenizer,
        train=train,
        settings=settings,
        corpus=corpus.id,
        recipe_hash=job.recipe_hash,
        workdir=_make(job.workdir),
        watch=report,
        clock=time.monotonic,
        equip=lambda model: attach(model, train, ancestors),
        measure_memory=lambda: int(process.memory_info().rss),
        keep_threads="OMP_NUM_THREADS" in os.environ,
        place=0 if cuda else None,
    )
    trained = fit(task, material)
    report.metric(trained.steps, "train_seconds", time.monotonic() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report.metric(trained.steps, "peak_memory_bytes", float(peak))
    with stage_artifact(job.artifacts, KIND, parents=(corpus.id, *ancestors.ids)) as staging:
        write_adapter(staging.path, trained, tokenizer, base, proof, train)
    return staging.result


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main(work)
