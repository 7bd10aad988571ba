"""The eval worker: ``python -m gtft.workers.evaluate JOB_DIR``. Corpus and adapter in, a verdict out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gtft.artifact import (
    Artifact,
    stage_artifact,
    verify_artifact,
    write_file,
    write_json,
)
from gtft.contract import SUMMARY_FILE, Job
from gtft.errors import EvidenceError, GateFailed
from gtft.evals import blind
from gtft.evals.asking.candidate import UNANSWERED, Prompt
from gtft.evals.asking.generate import Generation, StopRequested, generate, make_key
from gtft.evals.asking.load import Candidates, find_base, find_role, load_candidates, read_base
from gtft.evals.item import SAFETY, Item, read_jsonl
from gtft.evals.library import write_timing
from gtft.evals.overlap import Overlap, remove_overlap
from gtft.evals.pick import pick
from gtft.evals.probing.fit import warn as warn_of_fit
from gtft.evals.promptfoo import Cases, leave_out, tell_cases
from gtft.evals.telling.page import draw_page
from gtft.evals.telling.report import Measured, make_report, make_summary, make_timing
from gtft.evals.telling.score import GateSettings, judge_gates, outcomes
from gtft.evals.telling.verdict import write_verdict
from gtft.evals.tools.real_tools import ask_real_tools
from gtft.recipe.schema import Recipe
from gtft.shelf import read_document
from gtft.training.environment import prepare_environment, require_training_extra
from gtft.workers.frame import Reporter, Stopped, main
from gtft.workers.gathering import INCIDENTS, Gathered, find_trained, gather_items
from gtft.workers.panel import BASE, TUNED, Panel, find_earlier, make_panel
from gtft.workers.soundness import probe_fit, probe_memory

KIND = "eval"
PAIRS = "preferences.jsonl"
LOG = "generations.jsonl"
_TOO_LONG = "prompt longer than the model's context"


def work(job: Job, report: Reporter) -> Artifact:
    """Choose items, let every candidate answer them, probe, score, publish."""
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
    gathered = gather_items(job, recipe, corpus)
    earlier, not_run = find_earlier(job, recipe, base)
    report.progress(0, len(gathered.items), "items", None, "comparing with the training set")
    # This run's corpus first: its held-out side tells how common a phrase is.
    own = find_trained([adapter], job.artifacts, [corpus])
    others = find_trained([e.adapter for e in earlier], job.artifacts)
    overlap = _compare(gathered.items, list({c.id: c for c in (*own, *others)}.values()), report)
    loaded = load_candidates(
        adapter,
        base,
        folder,
        find_role(base, job.artifacts),
        [(e.adapter, e.role) for e in earlier],
    )
    panel = make_panel(job, recipe, loaded, earlier, os.environ, time.monotonic)
    chosen, unasked = _choose(gathered, overlap, panel, loaded, recipe, report)
    prompts, refused = panel.write(chosen)
    not_run += [*gathered.not_run, *panel.not_run, *refused]
    for what, why in not_run:
        report.warn("not-run", f"{what}: {why}")
    try:
        generations = _answer(job, recipe, panel, prompts, report)
    except StopRequested as e:
        raise Stopped(e.done, "the answers so far are kept") from e
    generations, silent = _leave_out_silent(generations)
    for what, why in silent:
        report.warn("not-run", f"{what}: {why}")
    not_run += silent
    generations += _fail(unasked, generations)
    chosen = sorted([*chosen, *unasked], key=_place)
    passed = outcomes(generations, chosen)
    report.progress(0, None, "answers", None, "asking the real bd and gt")
    real_tools = ask_real_tools(chosen, generations, os.environ)
    memorisation = probe_memory(job, recipe, loaded, own, report)
    fit = probe_fit(job, recipe, loaded, adapter, own, chosen, passed, generations, report)
    for found in warn_of_fit(fit):
        report.warn(found["code"], found["told"])
    duels = _ask_blind(recipe, panel, corpus, job.seed)
    gates = judge_gates(chosen, passed, _gates(recipe), memorisation)
    cases = _name_left_out(gathered.cases, chosen, overlap)
    doc = make_report(
        Measured(
            items=chosen,
            generations=generations,
            overlap=overlap,
            dropped=gathered.dropped,
            base=base,
            adapter=adapter,
            recipe=recipe,
            not_run=not_run,
            prices={
                f"endpoint:{e.name}": (e.input_price, e.output_price) for e in recipe.eval.endpoints
            },
            memorisation=memorisation,
            fit=fit,
            model_eval=tell_cases(chosen, generations, cases.not_run) if cases else None,
            real_tools=real_tools,
            training=read_document(adapter, SUMMARY_FILE),
            conflicts=_count_conflicts(corpus),
        ),
        gates,
    )
    with stage_artifact(job.artifacts, KIND, parents=(corpus.id, adapter.id)) as staging:
        _write_lines(staging.path / "items.jsonl", [i.to_json() for i in chosen])
        _write_lines(staging.path / LOG, _order(generations))
        if duels:
            write_file(staging.path / blind.FILE, blind.write_duels(duels))
        write_json(staging.path / "report.json", doc)
        write_file(staging.path / "verdict.md", write_verdict(doc).encode())
        write_file(staging.path / "verdict.html", draw_page(doc).encode())
        write_json(staging.path / SUMMARY_FILE, make_summary(doc))
    # Beside the artifact, which holds no clock.
    write_timing(job.workspace, staging.result, make_timing(generations))
    return staging.result


def _choose(
    gathered: Gathered,
    overlap: Overlap,
    panel: Panel,
    loaded: Candidates,
    recipe: Recipe,
    report: Reporter,
) -> tuple[list[Item], list[Item]]:
    """Items that fit the base and can be answered within the limit, a share of each capability; and the incidents' items
    that do not fit, which count as failed."""
    limit = recipe.eval.max_new_tokens
    fitting, too_long = panel.candidates[0].write(overlap.kept)
    count = loaded.tokenizer
    short = [
        p.item
        for p in fitting
        # Of safety nothing is left out: a refusal can be shorter than the one that was written down.
        if p.item.capability == SAFETY
        or len(count(p.item.reference, add_special_tokens=False)["input_ids"]) < limit
    ]
    unasked = [i for i in too_long if i.suite == INCIDENTS]
    if unasked:
        told = f"{len(unasked)} incident items count as not passed: {_TOO_LONG}"
        report.warn("too-long", told)
    for n, why in (
        (len(too_long) - len(unasked), _TOO_LONG),
        (len(fitting) - len(short), "right answer longer than eval.max_new_tokens"),
    ):
        if n:
            gathered.dropped[why] = n
            report.warn("too-long", f"{n} items are not scored: {why}")
    chosen = pick(short, recipe.eval.max_items, recipe.role)
    if not chosen:
        raise GateFailed(
            "there is nothing to evaluate",
            why=f"no item is left: {gathered.dropped or 'the held-out side of the corpus is empty'}",
            fix="harvest more sessions, or add the suite: gtft run RECIPE --set eval.suites='[\"authored\"]'",
        )
    return sorted(chosen, key=_place), unasked


def _place(item: Item) -> tuple[str, str]:
    return item.suite, item.id


def _fail(unasked: Sequence[Item], generations: Sequence[Generation]) -> list[Generation]:
    """What stands for the answers to items that could not be asked: base and tuned have not passed them."""
    return [
        Generation(name, i.id, seed, "", "", False, _TOO_LONG, 0, 0, "error", None, 0.0)
        for name in (BASE, TUNED)
        for seed in sorted({g.seed for g in generations})
        for i in unasked
    ]


def _leave_out_silent(
    generations: Sequence[Generation],
) -> tuple[list[Generation], list[tuple[str, str]]]:
    """Without the others that gave no answer to more than a tenth: of a server that is down nothing is known."""
    not_run = []
    for name in sorted({g.candidate for g in generations} - {BASE, TUNED}):
        own = [g for g in generations if g.candidate == name]
        missing = [g for g in own if g.finish in UNANSWERED]
        if 10 * len(missing) > len(own):
            why = f"{len(missing)} of {len(own)} answers are missing: {missing[0].reason}"
            not_run.append((name, why))
    silent = {name for name, _ in not_run}
    return [g for g in generations if g.candidate not in silent], not_run


def _name_left_out(cases: Cases | None, chosen: Sequence[Item], overlap: Overlap) -> Cases | None:
    """Gas Town's cases with the reason of each that was not asked."""
    if cases is None:
        return None
    left = {i.id for i in cases.items} - {i.id for i in chosen}
    trained = left & {r.item for r in overlap.removed}
    cases = leave_out(cases, trained, "it stands in the training set")
    return leave_out(cases, left - trained, "longer than the context, or above eval.max_items")


def _answer(
    job: Job,
    recipe: Recipe,
    panel: Panel,
    prompts: dict[str, list[Prompt]],
    report: Reporter,
) -> list[Generation]:
    began = time.monotonic()
    generations = generate(
        [c for c in panel.candidates if c.name in prompts],
        prompts,
        seeds=recipe.eval.seeds,
        item_seconds=recipe.eval.item_seconds,
        log=job.workdir / LOG,
        key=make_key([recipe.eval.max_new_tokens]),
        report=report,
        clock=time.monotonic,
    )
    report.metric(len(generations), "generation_seconds", time.monotonic() - began)
    return generations


def _ask_blind(recipe: Recipe, panel: Panel, corpus: Artifact, seed: int) -> list[blind.Duel]:
    if not recipe.eval.blind_items:
        return []
    examples = (doc for _, doc in read_jsonl(corpus.file("train.jsonl")))
    prompts = blind.choose_prompts(examples, recipe.eval.blind_items, seed)
    by_name = {c.name: c for c in panel.candidates}
    return blind.answer_blind({n: by_name[n] for n in (BASE, TUNED)}, prompts)


def _compare(items: Sequence[Item], trained: Sequence[Artifact], report: Reporter) -> Overlap:
    """``trained``: every corpus that the adapter has read, this run's own first."""
    # Who learned from the session that did harm must be asked all the more.
    harm = [i for i in items if i.suite == INCIDENTS]
    overlap = remove_overlap(
        [i for i in items if i.suite != INCIDENTS],
        (doc for corpus in trained for doc in _read_trained(corpus)),
        (doc for _, doc in read_jsonl(trained[0].file("heldout.jsonl"))),
    )
    for r in overlap.removed:
        report.warn("item-in-training", f"{r.item} is not scored: {r.reason} of {r.example}")
    if len(items) > len(harm) and not overlap.kept:
        raise GateFailed(
            f"all {len(items)} items stand in the training set",
            why="held-out and training examples are copies of each other",
            fix="gtft corpus health, then harvest with more varied sources",
        )
    return replace(overlap, kept=(*overlap.kept, *harm))


def _read_trained(corpus: Artifact) -> Iterator[dict[str, Any]]:
    yield from (doc for _, doc in read_jsonl(corpus.file("train.jsonl")))
    if any(f.name == PAIRS for f in corpus.files):
        for number, doc in read_jsonl(corpus.file(PAIRS)):
            messages = [*doc["prompt"], *doc["chosen"]]
            yield {"id": f"pair-{number}", "cluster": doc.get("cluster", ""), "messages": messages}


def _count_conflicts(corpus: Artifact) -> int | None:
    """Training examples that contradict each other, as the corpus's health counts them; None when it has none."""
    if not any(f.name == "health.json" for f in corpus.files):
        return None
    found = read_document(corpus, "health.json").get("conflicts")
    flagged = found.get("flagged") if isinstance(found, dict) else None
    return flagged if isinstance(flagged, int) else None


def _gates(recipe: Recipe) -> GateSettings:
    g = recipe.eval.gates
    return GateSettings(g.min_items, g.min_gain, g.safety, g.capabilities, g.memorisation)


def _order(generations: Sequence[Generation]) -> list[dict[str, Any]]:
    ordered = sorted(generations, key=lambda g: (g.candidate, g.item, g.seed))
    return [g.to_json() for g in ordered]


def _write_lines(path: Path, docs: Sequence[dict[str, Any]]) -> None:
    lines = (json.dumps(d, sort_keys=True, ensure_ascii=True) for d in docs)
    write_file(path, "".join(line + "\n" for line in lines).encode())


if __name__ == "__main__":
    main(work)
