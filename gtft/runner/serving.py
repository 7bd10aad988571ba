"""An endpoint for an adapter on this machine, for as long as it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gtft.artifact import Artifact, write_json
from gtft.errors import WorkerFailed, find_kind
from gtft.runner.process import WORKER_ENV
from gtft.runner.workspace import Workspace

_STOP_S = 10.0


@contextmanager
def serve_for(
    ws: Workspace, adapter: Artifact, root: Path, environ: Mapping[str, str]
) -> Iterator[str]:
    """The base address (``http://127.0.0.1:…/v1``) of an OpenAI-compatible endpoint with the models ``tuned`` and
    ``base``. It ends with the block, and with this process. Raises what the worker reports."""
    with tempfile.TemporaryDirectory(prefix="gtft-serve-") as folder:
        ask, log = Path(folder) / "serve.json", Path(folder) / "serve.log"
        places = {"workspace": ws.path, "root": root, "artifacts": ws.artifacts}
        write_json(ask, {"adapter": str(adapter.path), **{k: str(v) for k, v in places.items()}})
        with log.open("wb") as err:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "gtft.workers.serve", str(ask)],
                cwd=root,
                # It ends when this closes.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env={**environ, **WORKER_ENV},
            )
        try:
            yield _read_address(worker, log)
        finally:
            worker.terminate()
            try:
                worker.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.communicate()


def _read_address(worker: subprocess.Popen[str], log: Path) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    said = json.loads(line) if line.startswith("{") else {}
    if error := said.get("error"):
        raise find_kind(error["kind"])(error["what"], why=error["why"], fix=error["fix"])
    if "url" in said:
        return str(said["url"])
    last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise WorkerFailed("the endpoint did not start", why=last[0][:300], fix="gtft doctor")
