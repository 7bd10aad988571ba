"""Doctor: what is installed, what is off in the workspace, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from gtft.artifact import short_id, verify_artifact
from gtft.beads.ledger import map_state
from gtft.errors import EvidenceError, GtftError
from gtft.runner.lease import find_lapsed
from gtft.runner.process import is_locked
from gtft.runner.workspace import Workspace

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
LOW_MEMORY = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """``level``: ok, note (works, but look) or wrong (something will fail)."""

    level: Literal["ok", "note", "wrong"]
    about: str
    text: str
    fix: str = ""


def examine(ws: Workspace) -> list[Finding]:
    """Every check, in a fixed order. Nothing is changed."""
    return [
        *_check_install(),
        *_check_box(ws.path),
        *_check_store(ws),
        *_check_runs(ws),
        *_check_artifacts(ws),
    ]


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
    for tool in ("bd", "gt", "dolt"):
        if shutil.which(tool) is None:
            yield Finding("note", tool, "not on PATH: the embedded ledger and store are used")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_box(path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path).free
    low = free < LOW_DISK
    yield Finding(
        "wrong" if low else "ok",
        "disk",
        f"{free / 1024**3:.1f} GiB free at {path}",
        "free some space, or use --workspace elsewhere" if low else "",
    )
    memory = psutil.virtual_memory().available
    low = memory < LOW_MEMORY
    yield Finding(
        "note" if low else "ok",
        "memory",
        f"{memory / 1024**3:.1f} GiB available, {os.cpu_count()} cores",
        "training a nano base needs about 1.5 GiB" if low else "",
    )


def _check_store(ws: Workspace) -> Iterator[Finding]:
    yield Finding("ok", "store", f"schema {ws.store.migrate()}, {len(ws.store.list_runs())} runs")
    waiting = ws.store.list_messages(pending=True)
    if waiting:
        yield Finding(
            "note", "outbox", f"{len(waiting)} messages wait: {waiting[0].last_error or 'not tried'}",
            "gtft work --once delivers them",
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
    for row in ws.store.list_stages():
        if row.bead_id is None:
            yield Finding("wrong", row.run_id, f"{row.stage} has no bead", f"gtft run {row.run_id}")
            continue
        try:
            seen = map_state(ws.ledger.show(row.bead_id))
        except GtftError as e:
            yield Finding("wrong", row.bead_id, e.what, f"gtft runs show {row.run_id}")
            continue
        if seen != row.state:
            yield Finding(
                "note",
                row.bead_id,
                f"the store says {row.state}, the ledger says {seen}",
                f"gtft runs show {row.run_id}",
            )


def _check_artifacts(ws: Workspace) -> Iterator[Finding]:
    rows = ws.store.list_artifacts()
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
