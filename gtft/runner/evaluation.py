"""An evaluation outside a run: the eval's worker on an adapter of the shelf, with no bead and no review."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gtft.artifact import Artifact, hash_json, read_artifact, short_id, write_json
from gtft.contract import JOB_FILE, Event, Failed, InputArtifact, Job, Paused, Produced
from gtft.errors import EvidenceError, UsageError, WorkerFailed, find_kind
from gtft.recipe.resolve import Resolved
from gtft.runner.lineage import list_incident_items
from gtft.runner.process import WorkerProcess, start_worker
from gtft.runner.workspace import Workspace
from gtft.shelf import list_shelf, read_document

FOLDER = "evals"
_POLL_S = 0.25


def evaluate(
    ws: Workspace,
    resolved: Resolved,
    adapter: Artifact,
    root: Path,
    environ: Mapping[str, str],
    listen: Callable[[Event], None],
    *,
    insist: bool = False,
) -> Artifact | Paused:
    """Answer and score as the recipe says; the same adapter and recipe go on where they were stopped.

    KeyboardInterrupt asks the worker to save and stop: Paused. Raises what the worker reports, EvidenceError when
    the adapter's corpus is not on the shelf any more, UsageError when it is of another role and nobody
    ``insist``s on it.
    """
    corpus = find_corpus(ws.artifacts, adapter)
    recipe = resolved.recipe.model_dump(mode="json")
    trained_for = read_document(corpus, "manifest.json").get("harvest", {}).get("role")
    if not insist and trained_for not in (None, resolved.recipe.role):
        raise UsageError(
            f"adapter {short_id(adapter.id)} was trained for {trained_for}, the recipe is for {resolved.recipe.role}",
            why="nobody named this adapter: it is the newest one",
            fix=f"add --var role={trained_for}, or --adapter {short_id(adapter.id)}",
        )
    name = hash_json([adapter.id, recipe]).removeprefix("sha256:")[:12]
    job_dir = ws.path / FOLDER / name
    job_dir.mkdir(parents=True, exist_ok=True)
    job = Job(
        run_id=f"eval-{name}",
        stage="eval",
        bead_id="",
        actor="",
        recipe=recipe,
        recipe_hash=resolved.hash,
        inputs=(
            InputArtifact(stage="harvest", id=corpus.id, path=corpus.path),
            InputArtifact(stage="train", id=adapter.id, path=adapter.path),
        ),
        workspace=ws.path,
        workdir=job_dir / "work",
        artifacts=ws.artifacts,
        seed=resolved.recipe.train.seed,
        root=root,
        store_url=ws.store.url,
        incidents=tuple(list_incident_items(ws)),
    )
    write_json(job_dir / JOB_FILE, json.loads(job.model_dump_json()))
    worker = start_worker(job_dir, "eval", root, environ)
    last = _follow(worker, listen)
    if isinstance(last, Produced):
        return read_artifact(last.path)
    if isinstance(last, Paused):
        return last
    if isinstance(last, Failed):
        raise find_kind(last.kind)(last.message, why=last.why, fix=last.fix)
    raise WorkerFailed(
        "the eval ended without a word",
        why=f"{worker.describe_end()}; its log is {job_dir / 'worker.log'}",
        fix="run the same command again: it goes on from the answers so far",
    )


def find_corpus(artifacts: Path, adapter: Artifact) -> Artifact:
    """The corpus that the adapter was trained on. Raises EvidenceError when it is not on the shelf."""
    for found in list_shelf(artifacts, "corpus").found:
        if found.id in adapter.parents:
            return found
    raise EvidenceError(
        f"the corpus of adapter {short_id(adapter.id)} is not here any more",
        why="items could not be compared with what it was trained on",
        fix="put its folder back below artifacts/, then run the same command",
    )


def _follow(worker: WorkerProcess, listen: Callable[[Event], None]) -> Event | None:
    last: Event | None = None
    while True:
        try:
            ended = worker.has_ended()
            for event in worker.read_events():
                last = event
                listen(event)
            if ended:
                return last
            time.sleep(_POLL_S)
        except KeyboardInterrupt:
            worker.stop()
