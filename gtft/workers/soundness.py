"""What an eval measures of a model besides its answers: what it memorised, and how it fits.

The probes are `gtft.evals`'s, the rows and the arithmetic `gtft.training`'s, the placeholders `gtft.corpus`'s.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact
from gtft.contract import Job
from gtft.corpus import canary
from gtft.corpus.governance.withdrawal import KEY_FILE
from gtft.corpus.redaction.redactor import RedactionConfig, Redactor, load_key
from gtft.corpus.redaction.rule_files import read_rule_file
from gtft.errors import EvidenceError
from gtft.evals.asking.generate import Generation
from gtft.evals.asking.load import Candidates
from gtft.evals.item import Item, read_jsonl
from gtft.evals.probing.exposure import read_canaries
from gtft.evals.probing.fit import Known, Texts, Thresholds, measure_fit
from gtft.evals.probing.memorisation import Secrets, measure_memorisation
from gtft.recipe.schema import Recipe
from gtft.workers.frame import Reporter, Stopped

TRAIN, HELDOUT = "train.jsonl", "heldout.jsonl"


def probe_memory(
    job: Job,
    recipe: Recipe,
    candidates: Candidates,
    trained: Sequence[Artifact],
    report: Reporter,
) -> dict[str, Any]:
    """`measure_memorisation` over every corpus that the model has read. Raises Stopped between batches."""
    table = recipe.harvest.redaction
    rules = [
        rule
        for path in table.rules
        for rule in read_rule_file(job.root / Path(path).expanduser()).rules
    ]
    config = RedactionConfig(table.names, table.hosts, tuple(rules))
    redactor = Redactor(load_key(job.workspace / KEY_FILE), config)
    listed = [c.file(canary.FILE) for c in trained if _has(c, canary.FILE)]

    def find(text: str) -> Iterator[tuple[int, int, str]]:
        yield from ((f.start, f.end, f.value) for f in redactor.find(text) if not f.personal)

    return measure_memorisation(
        candidates,
        read_canaries(listed),
        (doc for c in trained for _, doc in read_jsonl(c.file(TRAIN))),
        Secrets(find, redactor.mark),
        samples=recipe.eval.memorisation_samples,
        seed=job.seed,
        tell=lambda done, total, note: _tell(report, done, total, note),
    )


def probe_fit(
    job: Job,
    recipe: Recipe,
    candidates: Candidates,
    adapter: Artifact,
    trained: Sequence[Artifact],
    items: Sequence[Item],
    passed: Mapping[tuple[str, str], bool],
    generations: Sequence[Generation],
    report: Reporter,
) -> dict[str, Any]:
    """`measure_fit` for the corpora that the model has read, this run's first. Raises Stopped between rows."""
    # They import torch.
    from gtft.training.kl import Compared, compare
    from gtft.training.measurement import FORGETTING_KL, FORGETTING_NATS
    from gtft.training.render import Row

    def measure(rows: Sequence[Row]) -> list[Compared]:
        return compare(
            candidates.answering, rows, lambda done, total: _tell(report, done, total, "losses")
        )

    return measure_fit(
        measure,
        _make_texts(job, recipe, candidates, adapter, trained[0], items, report),
        items,
        passed,
        generations,
        learn_known(trained, items),
        Thresholds(FORGETTING_NATS, FORGETTING_KL),
        seed=job.seed,
    )


def _make_texts(
    job: Job,
    recipe: Recipe,
    candidates: Candidates,
    adapter: Artifact,
    corpus: Artifact,
    items: Sequence[Item],
    report: Reporter,
) -> Texts:
    """Rows as training renders them, at most ``eval.general_texts`` of a kind, chosen by hash."""
    from gtft.training.examples import Conversation
    from gtft.training.general import make_rows, read_general
    from gtft.training.render import Renderer, Row

    most = recipe.eval.general_texts
    if not most:
        return Texts()
    length = min(recipe.train.max_length, candidates.context)
    renderer = Renderer(candidates.tokenizer, length)
    given = recipe.train.retention.general
    nano = recipe.base.model == "nano" and _has(corpus, "base.txt")
    base_text = corpus.file("base.txt") if nano else None
    source = read_general(given, root=job.root, base_text=base_text, watch=report)
    # What was replayed was trained: only the rest shows what it forgot.
    general = make_rows(source.measured[:most], candidates.tokenizer, length)

    def render(name: str, leave_out: Collection[str]) -> list[Row]:
        chosen = _choose(corpus.file(name), leave_out, most)
        return [row for c in chosen for row in renderer.render(c).rows][:most]

    rows: dict[str, Row] = {}
    for item in sorted(items, key=lambda i: _hash(i.id)):
        if len(rows) >= 2 * most or not item.reference:
            continue
        answer = {"role": "assistant", "content": item.reference}
        made = renderer.render(Conversation(item.id, (*item.messages, answer), item.tools)).rows
        if made:
            # Only the answer counts, not earlier turns.
            rows[item.id] = replace(made[-1], spans=made[-1].spans[-1:])
    kept_out = _read_kept_out(adapter)
    return Texts(general[:most], render(TRAIN, kept_out), render(HELDOUT, ()), rows)


def _choose(path: Path, leave_out: Collection[str], most: int) -> list[Any]:
    from gtft.training.examples import read_conversations
    from gtft.training.validation import read_clusters

    rows = zip(read_conversations(path), read_clusters(path), strict=True)
    wanted = (
        c
        for c, (_, cluster) in rows
        if cluster not in leave_out and not cluster.startswith(f"{canary.SOURCE}:")
    )
    return heapq.nsmallest(most, wanted, key=lambda c: _hash(c.id))


def _read_kept_out(adapter: Artifact) -> frozenset[str]:
    """The clusters that training kept out to measure on: it never read them."""
    if not _has(adapter, "mask.json"):
        return frozenset()
    path = adapter.file("mask.json")
    try:
        doc = json.loads(path.read_text("utf-8"))
        kept = doc.get("retention", {}).get("validation", {}).get("kept_out", ())
        return frozenset(map(str, kept))
    except (ValueError, AttributeError, TypeError) as e:
        raise EvidenceError(
            f"{path.name} of the adapter cannot be read",
            why=str(e),
            fix="gtft runs resume RUN",
        ) from e


def learn_known(trained: Sequence[Artifact], items: Sequence[Item]) -> Known:
    """Rigs, templates and id prefixes of the corpora, and which rig each held-out item is about.

    A prefix that beads of several rigs have, and a cluster of several rigs, tell nothing.
    """
    rigs: Counter[str] = Counter()
    templates: Counter[str] = Counter()
    of_prefix: dict[str, set[str]] = {}
    of_cluster: dict[str, set[str]] = {}
    for number, corpus in enumerate(trained):
        for side in (TRAIN, HELDOUT):
            for _, doc in read_jsonl(corpus.file(side)):
                rig, bead = doc.get("rig"), doc.get("bead")
                if rig and bead and "-" in bead:
                    of_prefix.setdefault(bead.rpartition("-")[0], set()).add(rig)
                if side == HELDOUT and number == 0:
                    of_cluster.setdefault(str(doc["cluster"]), set()).update([rig] if rig else [])
                elif side == TRAIN:
                    templates[str(doc.get("source"))] += 1
                    rigs.update([rig] if rig else [])
    return Known(
        frozenset(rigs),
        frozenset(templates) - {canary.SOURCE},
        {p: next(iter(r)) for p, r in sorted(of_prefix.items()) if len(r) == 1},
        {
            i.id: next(iter(found))
            for i in items
            if len(found := of_cluster.get(i.cluster, set())) == 1
        },
    )


def _has(artifact: Artifact, name: str) -> bool:
    return any(f.name == name for f in artifact.files)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _tell(report: Reporter, done: int, total: int, note: str) -> None:
    if report.stop_requested:
        raise Stopped(None, "the answers so far are kept")
    report.progress(done, total, "probes", None, note)
