"""The eval worker: ``python -m gtft.workers.evaluate JOB_DIR``. Corpus and adapter in, a verdict out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from gtft.artifact import (
    Artifact,
    short_id,
    stage_artifact,
    verify_artifact,
    write_file,
    write_json,
)
from gtft.contract import SUMMARY_FILE, Job
from gtft.errors import EvidenceError, GateFailed
from gtft.evals.checks import run_check
from gtft.evals.generate import Generation, StopRequested, generate, make_key, write_prompts
from gtft.evals.heldout import build_heldout
from gtft.evals.item import Item, read_items, read_jsonl
from gtft.evals.load import find_base, find_role, load_candidates, read_base
from gtft.evals.overlap import Overlap, remove_overlap
from gtft.evals.pick import pick
from gtft.evals.report import make_report, make_summary
from gtft.evals.score import GateSettings, judge_gates, outcomes
from gtft.evals.verdict import write_verdict
from gtft.recipe.schema import Recipe
from gtft.shelf import list_shelf
from gtft.training.environment import prepare_environment, require_training_extra
from gtft.workers.frame import Reporter, Stopped, main

KIND = "eval"
PAIRS = "preferences.jsonl"
LOG = "generations.jsonl"


def work(job: Job, report: Reporter) -> Artifact:
    """Choose items, answer them as base and as tuned, score, publish."""
    recipe = Recipe.model_validate_json(json.dumps(job.recipe))
    given_corpus, given_adapter = job.input("harvest"), job.input("train")
    corpus = verify_artifact(given_corpus.path, kind="corpus", expect=given_corpus.id)
    adapter = verify_artifact(given_adapter.path, kind="adapter", expect=given_adapter.id)
    if corpus.id not in adapter.parents:
        raise EvidenceError(
            "the adapter was not trained on this run's corpus",
            why="its parents do not name the corpus; held-out items could be training items",
            fix=f"gtft runs show {job.run_id}",
        )
    base = read_base(adapter)
    require_training_extra()
    # Before anything below imports torch or the hub client.
    prepare_environment(os.environ, offline=True)
    folder = find_base(base, job.workspace, job.root)
    items, dropped = _collect(recipe.eval.suites, corpus)
    report.progress(0, len(items), "items", None, "comparing with the training set")
    trained = find_trained(adapter, corpus, job.artifacts)
    overlap = _compare(items, trained, report)
    candidates = load_candidates(adapter, base, folder, find_role(base, job.artifacts))
    room = candidates.context - recipe.eval.max_new_tokens
    fitting, too_long = write_prompts(overlap.kept, candidates.tokenizer, room)
    if too_long:
        dropped["prompt longer than the model's context"] = len(too_long)
        report.warn("too-long", f"{len(too_long)} items do not fit {room} tokens; not scored")
    wanted = {i.id for i in pick([p.item for p in fitting], recipe.eval.max_items)}
    prompts = [p for p in fitting if p.item.id in wanted]
    if not prompts:
        raise GateFailed(
            "there is nothing to evaluate",
            why=f"no item is left: {dropped or 'the held-out side of the corpus is empty'}",
            fix="harvest more sessions, or add the suite: gtft run RECIPE --set eval.suites='[\"authored\"]'",
        )
    key = make_key(
        [adapter.id, base.id, recipe.eval.max_new_tokens, [[p.item.id, p.sha256] for p in prompts]]
    )
    began = time.monotonic()
    try:
        generations = generate(
            candidates,
            prompts,
            max_new_tokens=recipe.eval.max_new_tokens,
            log=job.workdir / LOG,
            key=key,
            report=report,
            clock=time.monotonic,
        )
    except StopRequested as e:
        raise Stopped(e.done, "the answers so far are kept") from e
    report.metric(len(generations), "generation_seconds", time.monotonic() - began)
    chosen = sorted((p.item for p in prompts), key=lambda i: (i.suite, i.id))
    gates = judge_gates(chosen, outcomes(generations), _gates(recipe))
    doc = make_report(chosen, generations, gates, overlap, dropped, base, adapter, recipe)
    parents = (corpus.id, adapter.id)
    with stage_artifact(job.artifacts, KIND, parents=parents) as staging:
        _write_lines(staging.path / "items.jsonl", [i.to_json() for i in chosen])
        _write_lines(staging.path / LOG, _order(generations))
        write_json(staging.path / "report.json", doc)
        write_file(staging.path / "verdict.md", write_verdict(doc, gates).encode())
        write_json(staging.path / SUMMARY_FILE, make_summary(doc))
    return staging.result


def read_authored() -> tuple[Item, ...]:
    """The suite that ships with gtft: templates that no training data uses."""
    return read_items(Path(str(files("gtft.evals").joinpath("suites/authored.jsonl"))))


def _collect(suites: Sequence[str], corpus: Artifact) -> tuple[list[Item], dict[str, int]]:
    items: list[Item] = []
    dropped: dict[str, int] = {}
    if "heldout" in suites:
        found = build_heldout(corpus.file("heldout.jsonl"))
        items += found.items
        dropped |= found.dropped
    if "authored" in suites:
        authored = read_authored()
        for item in authored:
            if not (outcome := run_check(item.check, item.reference)).passed:
                raise EvidenceError(
                    f"the shipped item {item.id} fails its own check",
                    why=outcome.reason,
                    fix="install gtft again",
                )
        items += authored
    return items, dropped


def find_trained(adapter: Artifact, corpus: Artifact, artifacts: Path) -> list[Artifact]:
    """Every corpus that the adapter has read: this run's, then those of the adapters that it goes on from or
    lies on.

    Raises EvidenceError when one is not on the shelf any more: held-out items could have been learned there.
    """
    shelf = {a.id: a for kind in ("adapter", "corpus") for a in list_shelf(artifacts, kind).found}
    found = {corpus.id: corpus}
    wanted = list(adapter.parents)
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


def _compare(items: Sequence[Item], trained: Sequence[Artifact], report: Reporter) -> Overlap:
    """``trained``: every corpus that the adapter has read, this run's own first."""
    overlap = remove_overlap(
        items,
        (doc for corpus in trained for doc in _read_trained(corpus)),
        (doc for _, doc in read_jsonl(trained[0].file("heldout.jsonl"))),
    )
    for r in overlap.removed:
        report.warn("item-in-training", f"{r.item} is not scored: {r.reason} of {r.example}")
    if items and not overlap.kept:
        raise GateFailed(
            f"all {len(items)} items stand in the training set",
            why="held-out and training examples are copies of each other",
            fix="gtft corpus health, then harvest with more varied sources",
        )
    return overlap


def _read_trained(corpus: Artifact) -> Iterator[dict[str, Any]]:
    yield from (doc for _, doc in read_jsonl(corpus.file("train.jsonl")))
    if any(f.name == PAIRS for f in corpus.files):
        for number, doc in read_jsonl(corpus.file(PAIRS)):
            messages = [*doc["prompt"], *doc["chosen"]]
            yield {"id": f"pair-{number}", "cluster": doc.get("cluster", ""), "messages": messages}


def _gates(recipe: Recipe) -> GateSettings:
    g = recipe.eval.gates
    return GateSettings(g.min_items, g.min_gain, g.safety, g.capabilities)


def _order(generations: Sequence[Generation]) -> list[dict[str, Any]]:
    return [g.to_json() for g in sorted(generations, key=lambda g: (g.candidate, g.item))]


def _write_lines(path: Path, docs: Sequence[dict[str, Any]]) -> None:
    lines = (json.dumps(d, sort_keys=True, ensure_ascii=True) for d in docs)
    write_file(path, "".join(line + "\n" for line in lines).encode())


if __name__ == "__main__":
    main(work)
