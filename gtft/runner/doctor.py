"""Doctor: what is installed, what is off in the workspace, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from gtft.artifact import short_id, verify_artifact
from gtft.beads.ledger import LABEL, map_state
from gtft.errors import ConflictError, EvidenceError, InputError, TownError
from gtft.records.deployments import Deployments
from gtft.runner.box import LEAST_MEMORY, say_count, say_size, survey_box
from gtft.runner.doctor_answers import check_answers, mend_answers
from gtft.runner.doctor_deployments import check_deployments, mend_deployments
from gtft.runner.doctor_town import UNREACHABLE, ListParts, check_town
from gtft.runner.finding import Finding
from gtft.runner.lease import find_lapsed
from gtft.runner.process import is_locked
from gtft.runner.workspace import Workspace, open_workspace

CORE = (
    "click",
    "detect-secrets",
    "psutil",
    "pydantic",
    "PyMySQL",
    "SQLAlchemy",
    "tomli",
    "tomli-w",
)
TRAIN = (
    "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "safetensors",
    "matplotlib",
)  # fmt: skip
LOW_DISK = 2 * 1024**3


def examine(
    path: Path,
    cwd: Path,
    environ: Mapping[str, str],
    list_parts: ListParts | None = None,
    *,
    fix: bool = False,
) -> list[Finding]:
    """Every check of the workspace at ``path``, in a fixed order; it goes on where one thing is wrong.

    Nothing is changed but, with ``fix``, what a crash left of a deployment.
    """
    findings = [*_check_install(), *_check_box(path, cwd)]
    of_town = list(check_town(path, cwd, environ, list_parts))
    findings += of_town
    if any(f.level == "wrong" and f.about in UNREACHABLE for f in of_town):
        text = f"{path} was not opened: its town is not reachable"
        return [*findings, Finding("note", "workspace", text)]
    if not (path / "config.toml").exists():
        text = f"{path} is not there yet: the first run makes it"
        return [*findings, Finding("note", "workspace", text)]
    try:
        ws = open_workspace(path, environ=environ)
        if fix:
            findings.extend([*mend_deployments(ws), *mend_answers(ws)])
        of_service = (check_deployments, check_answers)
        for check in (_check_store, _check_runs, _check_artifacts, *of_service):
            findings.extend(check(ws))
    except (ConflictError, InputError, TownError) as e:
        text = f"{path} cannot be read: {e.what}"
        findings.append(Finding("wrong", "workspace", text, e.fix))
    return findings


def _check_install() -> Iterator[Finding]:
    v = sys.version_info
    yield Finding("ok", "python", f"{v.major}.{v.minor}.{v.micro}")
    missing = [name for name in CORE if _version(name) is None]
    if missing:
        yield Finding("wrong", "install", f"missing: {', '.join(missing)}", "pip install gtft")
    else:
        yield Finding("ok", "install", f"core complete ({len(CORE)} packages)")
    absent = [name for name in TRAIN if _version(name) is None]
    if absent:
        yield Finding(
            "note",
            "extra train",
            f"not installed: {', '.join(absent)}",
            "pip install 'gtft[train]'",
        )
    else:
        yield Finding("ok", "extra train", f"torch {_version('torch')}, trl {_version('trl')}")
    if _version("kernels") is not None:
        yield Finding(
            "wrong",
            "kernels",
            "bitsandbytes fetches code from a hub when this package is installed",
            "pip uninstall kernels",
        )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_box(path: Path, cwd: Path) -> Iterator[Finding]:
    box = survey_box(path if path.is_dir() else cwd)
    free = box.disk_free
    low = free < LOW_DISK
    yield Finding(
        "wrong" if low else "ok",
        "disk",
        f"{free / 1024**3:.1f} GiB free at {path}",
        "free some space, or use --workspace elsewhere" if low else "",
    )
    low = box.free < LEAST_MEMORY
    yield Finding(
        "note" if low else "ok",
        "memory",
        f"{say_size(box.free)} available, {box.cores} cores",
        "training a nano base needs about 1.5 GiB; the sweep starts nothing now" if low else "",
    )
    if box.groups:
        who = ", ".join(say_count(len(g.pids), g.what) for g in box.groups)
        yield Finding("ok", "also here", who)


def _check_store(ws: Workspace) -> Iterator[Finding]:
    yield Finding("ok", "store", f"schema {ws.store.migrate()}, {len(ws.store.list_runs())} runs")
    waiting = ws.store.list_messages(pending=True)
    if waiting:
        yield Finding(
            "note", "outbox", f"{len(waiting)} messages wait: {waiting[0].last_error or 'not tried'}",
            "gtft sweep delivers them",
        )  # fmt: skip


def _check_runs(ws: Workspace) -> Iterator[Finding]:
    for row in find_lapsed(ws):
        alive = is_locked(ws.job_dir(row.run_id, row.stage))
        yield Finding(
            "note",
            f"{row.run_id} {row.stage}",
            f"its runner is gone; its worker {'still works' if alive else 'is gone too'}",
            f"gtft run {row.run_id}",
        )
    labelled = ws.ledger.find(label=LABEL)
    yield Finding("ok", "ledger", f"answers; {len(labelled)} beads with the label {LABEL}")
    rows = ws.store.list_stages()
    beads = ws.ledger.look(row.bead_id for row in rows if row.bead_id)
    for row in rows:
        show = f"gtft runs show {row.run_id}"
        if row.bead_id is None:
            yield Finding("wrong", row.run_id, f"{row.stage} has no bead", f"gtft run {row.run_id}")
        elif row.bead_id not in beads:
            yield Finding("wrong", row.bead_id, f"the ledger has no bead of {row.stage}", show)
        elif row.state == "ready" and beads[row.bead_id].status == "hooked":
            text = f"on the hook of {beads[row.bead_id].assignee}, who has not begun"
            yield Finding("ok", row.bead_id, text)
        elif (seen := map_state(beads[row.bead_id])) != row.state:
            text = f"the store says {row.state}, the ledger says {seen}"
            yield Finding("note", row.bead_id, text, show)


def _check_artifacts(ws: Workspace) -> Iterator[Finding]:
    pruned = Deployments(ws.store).list_pruned()
    rows = [
        r
        for r in ws.store.list_artifacts()
        if r.id not in pruned or ws.artifact_path(r.path).exists()
    ]
    broken = 0
    for row in rows:
        try:
            verify_artifact(ws.artifact_path(row.path), kind=row.kind, expect=row.id)
        except EvidenceError as e:
            broken += 1
            yield Finding("wrong", f"{row.kind} {short_id(row.id)}", e.what, e.fix)
    if not broken:
        yield Finding("ok", "artifacts", f"{len(rows)} hashed again, all whole")
    for left in sorted(ws.artifacts.glob(".damaged-*")):
        yield Finding(
            "note", "artifacts", f"{left.name} was set aside as damaged", f"look at {left}"
        )
