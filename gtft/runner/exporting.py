"""An export of a model: its worker, the store's row about it, and the copy that the user asked for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, is_alive, short_id, verify_artifact, write_json
from gtft.contract import SUMMARY_FILE
from gtft.errors import DiskFull, UsageError, WorkerFailed, find_kind, translate_os_error
from gtft.records.deployments import Deployments
from gtft.records.rows import ArtifactRow, ModelRow
from gtft.runner.process import WORKER_ENV
from gtft.runner.workspace import Workspace
from gtft.shelf import read_document

KIND = "export"
# The same names as in gtft.exports.format, which the runner may not import.
FORMATS = ("adapter", "merged", "gguf", "lora-gguf", "ollama")
DTYPES = ("bf16", "f32")
QUANTS = ("f16", "q8_0", "q4_k_m")

# Doing, done, total (0: not known).
Listen = Callable[[str, int, int], None]
_STOP_S = 10.0


@dataclass(frozen=True)
class Wanted:
    """What is asked of the worker, beside the model."""

    format: str
    dtype: str = "bf16"
    quant: str = "f16"
    verify: bool = True


def export_model(
    ws: Workspace,
    model: ModelRow,
    adapter: Path,
    wanted: Wanted,
    *,
    root: Path,
    environ: Mapping[str, str],
    listen: Listen,
    actor: str,
    card: Path | None = None,
) -> Artifact:
    """Make an export, verified, on the shelf and in the store. ``root``: where the run's relative paths start.

    Raises what the worker reports: GateFailed when it does not answer as the adapter did; ConflictError when the model was
    archived meanwhile. Killed at any point it leaves nothing half; the same command makes the same export again.
    """
    asked = {
        "name": model.name,
        "adapter": str(adapter),
        "adapter_id": model.adapter_id,
        "workspace": str(ws.path),
        "root": str(root),
        "artifacts": str(ws.artifacts),
        "card": "" if card is None else str(card),
        "card_id": model.card_id,
        **asdict(wanted),
    }
    path = _run_worker(asked, root if root.is_dir() else ws.path, environ, listen)
    made = verify_artifact(path, kind=KIND)
    row = ArtifactRow(
        id=made.id,
        kind=KIND,
        path=str(made.path.relative_to(ws.path)),
        summary=read_document(made, SUMMARY_FILE),
        created_us=ws.store.now_us(),
    )
    text = f"{wanted.format} {short_id(made.id)} of {model.name}"
    Deployments(ws.store).add_artifact(row, made.parents, model=model, actor=actor, text=text)
    return made


def check_out(out: Path) -> None:
    """Raises UsageError unless ``out`` can become a new folder."""
    if out.absolute() == Path.cwd():
        raise UsageError(
            f"{out} is the folder that you are in",
            why="the copy is put in its place whole, and you would stand in what is gone",
            fix="name a new folder",
        )
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UsageError(
            f"{out} is there already",
            why="an export is never written over another",
            fix="name a new folder",
        )


def place_copy(made: Artifact, out: Path) -> None:
    """Copy an export to ``out``: whole, or not at all. Raises UsageError, DiskFull or InputError."""
    check_out(out)
    aside = out.with_name(f".{out.name}.gtft-{os.getpid()}")
    size = sum(f.size for f in made.files)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep_dead(out)
        free = shutil.disk_usage(out.parent).free
        if free < size:
            raise DiskFull(
                f"{out.parent} has {free / 1e6:.0f} MB free; the export needs {size / 1e6:.0f} MB",
                fix="free some space, or give another --out",
            )
        shutil.copytree(made.path, aside)
        for path in (p for p in aside.rglob("*") if p.is_file()):
            with path.open("rb") as f:
                os.fsync(f.fileno())
        aside.rename(out)
    except OSError as e:
        raise translate_os_error(e, f"copying the export to {out}") from e
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _run_worker(
    asked: Mapping[str, object], cwd: Path, environ: Mapping[str, str], listen: Listen
) -> Path:
    with tempfile.TemporaryDirectory(prefix="gtft-export-") as folder:
        ask, log = Path(folder) / "export.json", Path(folder) / "export.log"
        write_json(ask, dict(asked))
        with log.open("wb") as err:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "gtft.workers.export", str(ask)],
                cwd=cwd,
                # It ends when this closes: also when we are killed.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env={**environ, **WORKER_ENV},
            )
        try:
            return _listen(worker, log, listen)
        except KeyboardInterrupt:
            worker.send_signal(signal.SIGINT)
            raise
        finally:
            _stop(worker)


def _listen(worker: subprocess.Popen[str], log: Path, listen: Listen) -> Path:
    assert worker.stdout is not None
    for line in worker.stdout:
        said = _read_line(line)
        if error := said.get("error"):
            raise find_kind(error["kind"])(error["what"], why=error["why"], fix=error["fix"])
        if "artifact" in said:
            return Path(said["artifact"])
        if "doing" in said:
            listen(said["doing"], int(said["done"]), int(said["total"]))
    code = worker.wait()
    last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
    ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
    raise WorkerFailed(
        f"the export's worker made nothing ({ended})", why=last[0][:300], fix="gtft doctor"
    )


def _read_line(line: str) -> dict[str, Any]:
    """A library may print too, and what it prints may look like ours."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _stop(worker: subprocess.Popen[str]) -> None:
    """As Ctrl-C does, so that it takes away what is half made; one that has answered ends by itself."""
    try:
        # Its stdin stays open meanwhile: at its end it would leave everything as it is.
        worker.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        worker.kill()
    worker.communicate()


def _sweep_dead(out: Path) -> None:
    """Copies that a killed process left beside ``out``."""
    for left in out.parent.glob(f".{out.name}.gtft-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
