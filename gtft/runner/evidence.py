"""Evidence: what must hold before a bead may leave ``active``, and again before it may close."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, short_id, verify_artifact
from gtft.contract import SUMMARY_FILE, Job, Produced, Stage
from gtft.errors import EvidenceError
from gtft.shelf import find_adapter, read_document

KINDS: dict[Stage, str] = {
    "harvest": "corpus",
    "train": "adapter",
    "eval": "eval",
    "card": "card",
}
# A worker must not be able to fill the store.
MAX_SUMMARY = 256 * 1024


@dataclass(frozen=True)
class Evidence:
    artifact: Artifact
    summary: dict[str, Any]
    # What the bead's note says.
    text: str


def check_evidence(job: Job, produced: Produced) -> Evidence:
    """Hash what the worker says it wrote, against the run. Raises EvidenceError that names what is off."""
    home = job.artifacts.resolve()
    if home not in produced.path.resolve().parents:
        raise EvidenceError(
            f"{produced.path} is outside the workspace",
            why="a worker writes only under artifacts/",
            fix=f"gtft runs logs {job.run_id} --stage {job.stage}",
        )
    found = verify_artifact(produced.path, kind=KINDS[job.stage], expect=produced.id)
    wanted = sorted([*(a.id for a in job.inputs), *_find_ancestors(job)])
    if sorted(found.parents) != wanted:
        raise EvidenceError(
            f"the {found.kind} {short_id(found.id)} was not made from this run's artifacts",
            why=f"its parents are {[short_id(p) for p in found.parents]}, "
            f"the run's are {[short_id(p) for p in wanted]}",
            fix=f"gtft runs resume {job.run_id}",
        )
    summary = _read_summary(found)
    text = f"{found.kind} {found.id}; {len(found.files)} files re-hashed"
    if job.stage == "train":
        _check_adapter(found)
        if job.recipe.get("train", {}).get("engine") == "swarm":
            text += f"; {_check_swarm(found, summary)}"
    if job.stage == "eval":
        _check_generations(found)
    return Evidence(found, summary, text)


def _find_ancestors(job: Job) -> tuple[str, ...]:
    """The ids of the adapters that the recipe says a training goes on from or lies on."""
    if job.stage != "train":
        return ()
    given = {k: str(job.recipe.get("train", {}).get(k, "")) for k in ("continues", "stacks_on")}
    return tuple(
        find_adapter(job.artifacts, start, f"train.{key}").id
        for key, start in given.items()
        if start
    )


def _read_summary(found: Artifact) -> dict[str, Any]:
    path = found.file(SUMMARY_FILE)
    if path.stat().st_size > MAX_SUMMARY:
        raise EvidenceError(
            f"{path} is larger than {MAX_SUMMARY} bytes",
            why="a summary holds figures, no data",
            fix="gtft doctor",
        )
    try:
        summary = json.loads(path.read_bytes())
    except ValueError as e:
        raise EvidenceError(f"{path} is not JSON", why=str(e)) from e
    if not isinstance(summary, dict):
        raise EvidenceError(f"{path} is not a JSON object")
    return summary


def _check_adapter(found: Artifact) -> None:
    """An adapter whose every lora_B is zero changes nothing: nothing was trained."""
    if any(f.name == "model.safetensors" for f in found.files):
        _check_full(found)
        return
    path = found.file("adapter_model.safetensors")
    if not any(_is_nonzero(path, name) for name in _list_tensors(path) if "lora_B" in name):
        raise EvidenceError(
            f"the adapter {short_id(found.id)} changes nothing",
            why="every lora_B tensor in it is zero or there is none",
            fix="gtft runs logs RUN --stage train",
        )


def _check_full(found: Artifact) -> None:
    """A full training whose weights are its base's own changes nothing."""
    base = read_document(found, "base.json").get("files")
    own = {f.sha256 for f in found.files if f.name.endswith(".safetensors")}
    if not isinstance(base, dict) or own & set(base.values()):
        raise EvidenceError(
            f"the model {short_id(found.id)} changes nothing",
            why="a file of weights in it is its base's own",
            fix="gtft runs logs RUN --stage train",
        )


def _check_swarm(found: Artifact, summary: dict[str, Any]) -> str:
    """Every peer's signed record, and that this run ended with the adapter that the swarm ended with."""
    from gtft.swarm.report import check_evidence_block
    from gtft.swarm.tensors import hash_adapter

    block = summary.get("swarm")
    if not isinstance(block, dict):
        raise EvidenceError(
            f"the adapter {short_id(found.id)} has no record of its swarm",
            why='its recipe says engine = "swarm"',
            fix="gtft runs logs RUN --stage train",
        )
    return check_evidence_block(block, hash_adapter(found.file("adapter_model.safetensors")))


def _list_tensors(path: Path) -> dict[str, Any]:
    """The header of a safetensors file (8 bytes of length, then JSON), without reading the tensors."""
    with path.open("rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        if size > min(path.stat().st_size, 100 * 1024 * 1024):
            raise EvidenceError(f"{path} has a header longer than itself")
        try:
            header = json.loads(f.read(size))
        except ValueError as e:
            raise EvidenceError(f"{path} is not a safetensors file", why=str(e)) from e
    return {k: (v, 8 + size) for k, v in header.items() if k != "__metadata__"}


def _is_nonzero(path: Path, name: str) -> bool:
    entry, base = _list_tensors(path)[name]
    start, end = entry["data_offsets"]
    with path.open("rb") as f:
        f.seek(base + start)
        return any(f.read(end - start))


def _check_generations(found: Artifact) -> None:
    """Base and tuned answered every item with every seed; others may lack items, and nothing stands twice."""
    items = {row["id"] for row in _read_lines(found.file("items.jsonl"))}
    lines = _read_lines(found.file("generations.jsonl"))
    rows = [(r["candidate"], r["item"], r.get("seed", 0)) for r in lines]
    have, seeds = set(rows), sorted({s for _, _, s in rows})
    wanted = [(c, i, s) for c in ("base", "tuned") for i in sorted(items) for s in seeds]
    missing = [row for row in wanted if row not in have]
    foreign = [row for row in rows if row[1] not in items]
    if not items or not rows or missing or foreign or len(rows) != len(have):
        raise EvidenceError(
            f"the eval {short_id(found.id)} does not hold one generation per item",
            why=f"{len(items)} items, {len(rows)} generations, {len(missing)} missing, "
            f"{len(rows) - len(have)} twice, {len(foreign)} of other items; "
            f"first: {[*missing, *foreign][:1]}",
            fix="gtft runs resume RUN",
        )


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except ValueError as e:
        raise EvidenceError(f"{path} holds a line that is not JSON", why=str(e)) from e
