"""The train worker is killed at many points; what it makes in the end must not show it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gtft.artifact import Artifact, hash_file, verify_artifact
from training_case import make_corpus, make_job, read_events

LIMIT_S = 120.0


def start(job: Path) -> subprocess.Popen[bytes]:
    with (job / "worker.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gtft.workers.train", str(job)],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def wait_until(worker: subprocess.Popen[bytes], reached: Callable[[], bool]) -> bool:
    """True when it was reached, False when the worker ended before."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if reached():
            return True
        if worker.poll() is not None:
            return False
        time.sleep(0.01)
    worker.kill()
    raise AssertionError("the worker neither moved on nor ended")


def count_steps(job: Path, since: int = 0) -> int:
    """The last step that this job reports, after its first ``since`` events."""
    done = [
        e["done"]
        for e in read_events(job)[since:]
        if e["event"] == "progress" and e["unit"] == "steps"
    ]
    return max(done, default=0)


def finish(job: Path) -> Artifact:
    worker = start(job)
    assert worker.wait(LIMIT_S) == 0, (job / "worker.log").read_text()[-3000:]
    made = read_events(job)[-1]
    assert made["event"] == "artifact"
    return verify_artifact(Path(made["path"]), kind="adapter", expect=made["id"])


def last_checkpoint(job: Path) -> int:
    sealed = (job / "work").glob("checkpoint-*/gtft-checkpoint.json")
    return max((int(p.parent.name.split("-")[1]) for p in sealed), default=0)


def read_pack_sizes(adapter: Artifact) -> list[int]:
    """Rows of each pack, as the adapter's proof tells."""
    return list(json.loads(adapter.file("mask.json").read_text("utf-8"))["packs"])


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact, Artifact]:
    """A workspace, its corpus, and the adapter of a run that nothing interrupted."""
    root = tmp_path_factory.mktemp("town")
    corpus = make_corpus(root / "artifacts")
    return root, corpus, finish(make_job(root, corpus, "whole"))


def test_killed_anywhere_and_resumed_gives_the_same_adapter(
    town: tuple[Path, Artifact, Artifact],
) -> None:
    """SIGKILL while saving, between checkpoints and at a random step; then to the end."""
    root, corpus, whole = town
    job = make_job(root, corpus, "killed")
    work = job / "work"
    at = random.Random(11).randint(5, 7)
    points: list[tuple[str, Callable[[], bool]]] = [
        ("as the first checkpoint appears", lambda: bool(list(work.glob("checkpoint-*")))),
        (
            "after a checkpoint and a step",
            lambda: (
                bool(list(work.glob("checkpoint-*/gtft-checkpoint.json"))) and count_steps(job) >= 3
            ),
        ),
        ("at a random step", lambda: count_steps(job) >= at),
    ]
    for where, reached in points:
        worker = start(job)
        assert wait_until(worker, reached), f"the worker ended before it was {where}"
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert not list((root / "artifacts").glob("adapter-*/.tmp*"))
    made = finish(job)
    assert hash_file(made.file("adapter_model.safetensors")) == hash_file(
        whole.file("adapter_model.safetensors")
    )
    assert made.file("loss.jsonl").read_bytes() == whole.file("loss.jsonl").read_bytes()
    assert made.id == whole.id


def test_ten_kills_with_packing_and_accumulation_give_the_same_adapter(tmp_path: Path) -> None:
    """SIGKILL ten times, each at a random moment after some new step; dropout is on."""
    corpus = make_corpus(tmp_path / "artifacts", 40)
    recipe = {"packing": "on", "accumulation": 3, "max_steps": 60, "checkpoint_steps": 2}
    whole = finish(make_job(tmp_path, corpus, "whole", **recipe))
    assert any(n > 1 for n in read_pack_sizes(whole)), "no row shares a pack"
    job = make_job(tmp_path, corpus, "killed", **recipe)
    dice = random.Random(int.from_bytes(os.urandom(4)))
    resumed: list[int] = []
    # Three steps after a checkpoint is past the next one: five of the ten kills surely move on.
    for steps in dice.sample([1, 1, 1, 2, 2, 3, 3, 4, 4, 5], 10):
        saved, told = last_checkpoint(job), len(read_events(job))
        resumed.append(saved)
        worker = start(job)
        further = saved + steps
        moved = wait_until(worker, lambda s=told, to=further: count_steps(job, s) >= to)  # type: ignore[misc]
        assert moved, f"it ended before step {further}"
        time.sleep(dice.random() * 0.1)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    made = finish(job)
    assert len(set(resumed)) > 3, f"the kills fell too close together: {resumed}"
    assert made.file("adapter_model.safetensors").read_bytes() == (
        whole.file("adapter_model.safetensors").read_bytes()
    )
    assert made.id == whole.id


def test_paused_by_sigterm_and_resumed_gives_the_same_adapter(
    town: tuple[Path, Artifact, Artifact],
) -> None:
    root, corpus, whole = town
    job = make_job(root, corpus, "paused")
    worker = start(job)
    assert wait_until(worker, lambda: count_steps(job) >= 3)
    worker.terminate()
    assert worker.wait(LIMIT_S) == 75
    paused = read_events(job)[-1]
    assert paused["event"] == "paused"
    assert 3 <= paused["step"] < 8
    assert (job / "work" / f"checkpoint-{paused['step']}" / "gtft-checkpoint.json").is_file()
    assert finish(job).id == whole.id


def test_damaged_newest_checkpoint_is_set_aside_and_the_result_is_the_same(
    town: tuple[Path, Artifact, Artifact],
) -> None:
    root, corpus, whole = town
    job = make_job(root, corpus, "damaged", keep_checkpoints=3)
    worker = start(job)
    assert wait_until(
        worker, lambda: (job / "work" / "checkpoint-6" / "gtft-checkpoint.json").is_file()
    )
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    newest = max(
        (p for p in (job / "work").glob("checkpoint-*") if (p / "gtft-checkpoint.json").is_file()),
        key=lambda p: int(p.name.split("-")[1]),
    )
    weights = newest / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-16:] = os.urandom(16)
    weights.write_bytes(bytes(data))
    made = finish(job)
    warned = [e["text"] for e in read_events(job) if e["event"] == "warning"]
    assert any(newest.name in t and "adapter_model.safetensors" in t for t in warned)
    assert (job / "work" / f"damaged-{newest.name}").is_dir()
    assert hash_file(made.file("adapter_model.safetensors")) == hash_file(
        whole.file("adapter_model.safetensors")
    )


def test_killed_while_the_base_is_built_leaves_nothing_half_written(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "artifacts")
    nano = {"vocab": 600, "hidden": 64, "layers": 2, "heads": 2, "context": 256, "steps": 400}
    job = make_job(tmp_path, corpus, base={"model": "nano", "nano": nano})
    worker = start(job)
    assert wait_until(
        worker, lambda: any(e.get("unit") == "base steps" and e["done"] for e in read_events(job))
    )
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert list((tmp_path / "bases").glob("nano-*")) == []
