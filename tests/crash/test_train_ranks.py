"""Two processes that share a training: the updates of one process, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gtft.artifact import Artifact, verify_artifact
from training_case import make_corpus, make_job, read_events

LIMIT_S = 240.0


def start(job: Path, *prefix: str) -> subprocess.Popen[bytes]:
    with (job / "worker.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *(prefix or ("-m",)), "gtft.workers.train", str(job)],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def finish(job: Path, *prefix: str) -> Artifact:
    worker = start(job, *prefix)
    assert worker.wait(LIMIT_S) == 0, (job / "worker.log").read_text()[-3000:]
    made = read_events(job)[-1]
    assert made["event"] == "artifact"
    return verify_artifact(Path(made["path"]), kind="adapter", expect=made["id"])


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact, Artifact]:
    root = tmp_path_factory.mktemp("town")
    corpus = make_corpus(root / "artifacts", 24)
    shared = make_job(
        root, corpus, "shared", processes=2, accumulation=1, lora={"r": 4, "alpha": 8}
    )
    return root, corpus, finish(shared)


def test_two_processes_make_the_updates_of_one(town: tuple[Path, Artifact, Artifact]) -> None:
    from safetensors.torch import load_file

    root, corpus, shared = town
    alone = finish(make_job(root, corpus, "alone", accumulation=2, lora={"r": 4, "alpha": 8}))
    want = load_file(alone.file("adapter_model.safetensors"))
    got = load_file(shared.file("adapter_model.safetensors"))
    for name, tensor in want.items():
        assert (got[name] - tensor).abs().max() < 1e-5, name


def test_killed_together_and_resumed_gives_the_same_adapter(
    town: tuple[Path, Artifact, Artifact],
) -> None:
    root, corpus, whole = town
    job = make_job(root, corpus, "killed", processes=2, accumulation=1, lora={"r": 4, "alpha": 8})
    worker = start(job)
    deadline = time.monotonic() + LIMIT_S
    while not list((job / "work").glob("checkpoint-4/gtft-checkpoint.json")):
        assert worker.poll() is None, (job / "worker.log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    others = psutil.Process(worker.pid).children()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    # The other rank ends with it.
    _gone, alive = psutil.wait_procs(others, timeout=20)
    assert others
    assert not alive
    assert finish(job).id == whole.id
    log = (job / "worker.log").read_text()
    assert "RuntimeError" not in log


def test_torchrun_starts_the_same_worker(town: tuple[Path, Artifact, Artifact]) -> None:
    root, corpus, whole = town
    job = make_job(root, corpus, "torchrun", processes=2, accumulation=1, lora={"r": 4, "alpha": 8})
    made = finish(job, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    assert made.id == whole.id
