"""The serve worker on this machine: for as long as a block needs it, or until somebody ends it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from gtft.artifact import Artifact, write_json
from gtft.errors import MissingExtra, WorkerFailed, find_kind
from gtft.runner.process import WORKER_ENV
from gtft.runner.workspace import Workspace

_STOP_S = 10.0
# Of the extra "serve"; the worker imports them first of all.
_NEEDED = ("httpx", "starlette", "uvicorn")


@dataclass(frozen=True)
class Listening:
    """A server that answers: ``url`` with /v1, the names of its models, whether it asks for a token."""

    url: str
    models: tuple[str, ...]
    token: bool


@contextmanager
def serve_for(
    ws: Workspace, adapter: Artifact, root: Path, environ: Mapping[str, str]
) -> Iterator[str]:
    """The base address (``http://127.0.0.1:…/v1``) of an OpenAI-compatible endpoint with the models ``tuned`` and
    ``base``. It ends with the block, and with this process. Raises what the worker reports."""
    with tempfile.TemporaryDirectory(prefix="gtft-serve-") as folder:
        log = Path(folder) / "serve.log"
        with log.open("wb") as err:
            worker = _start(ws, root, environ, {"adapter": str(adapter.path)}, Path(folder), err)
        try:
            yield _read_address(worker, log).url
        finally:
            worker.terminate()
            try:
                worker.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.communicate()


def serve_here(
    ws: Workspace,
    root: Path,
    environ: Mapping[str, str],
    asked: Mapping[str, Any],
    tell: Callable[[Listening], None],
) -> int:
    """Serve in the foreground; ``asked``: what the worker's file says besides the places. ``tell`` hears when it answers.

    Returns the worker's exit code when it has ended: by a signal, or with this process. Raises what the worker reports.
    """
    with tempfile.TemporaryDirectory(prefix="gtft-serve-") as folder:
        worker = _start(ws, root, environ, asked, Path(folder), None)
        try:
            tell(_read_address(worker, None))
            return _wait(worker)
        finally:
            # It ends when this closes, after the answers in flight.
            assert worker.stdin is not None
            worker.stdin.close()
            _wait(worker)


def _wait(worker: subprocess.Popen[str]) -> int:
    """A Ctrl-C reached the worker too: it is waited for all the same, and a second one does not wait."""
    try:
        return worker.wait()
    except KeyboardInterrupt:
        return worker.wait()


def _start(
    ws: Workspace,
    root: Path,
    environ: Mapping[str, str],
    asked: Mapping[str, Any],
    folder: Path,
    err: IO[bytes] | None,
) -> subprocess.Popen[str]:
    if missing := [m for m in _NEEDED if find_spec(m) is None]:
        raise MissingExtra(
            "models are served with packages that are not installed",
            why=", ".join(missing),
            fix="pip install 'gtft[serve]' -c constraints.txt",
        )
    ask = folder / "serve.json"
    places = {"workspace": ws.path, "root": root, "artifacts": ws.artifacts}
    write_json(ask, {**asked, **{k: str(v) for k, v in places.items()}})
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "gtft.workers.serve", str(ask)],
        cwd=root,
        # It ends when this closes.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=err,
        text=True,
        env={**environ, **WORKER_ENV, "PYTHONWARNINGS": "ignore"},
    )


def _read_address(worker: subprocess.Popen[str], log: Path | None) -> Listening:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    said = json.loads(line) if line.startswith("{") else {}
    if error := said.get("error"):
        raise find_kind(error["kind"])(error["what"], why=error["why"], fix=error["fix"])
    if "url" in said:
        return Listening(str(said["url"]), tuple(said["models"]), bool(said["token"]))
    last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] if log else []
    why = last[0][:300] if last else "it said nothing"
    raise WorkerFailed("the endpoint did not start", why=why, fix="gtft doctor")
