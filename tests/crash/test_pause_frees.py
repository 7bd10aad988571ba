"""Pause and cancel in the middle of a long step: memory is free within 30 s, what was done is kept, and a
resumed run ends in the same adapter. Real trainings, on a base whose one update takes many passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from admission_case import PLENTY, set_free, start_training, wait_until
from gtft.contract import EVENTS_FILE
from gtft.corpus.governance.withdrawal import KEY_FILE
from gtft.records.rows import StageRow
from gtft.runner.process import ATTEMPT_FILE, is_locked
from gtft.runner.workspace import Workspace, open_workspace
from gtft.training.checkpoint import MANIFEST, Fingerprint, find_resumable, list_checkpoints
from run_case import find_run
from tiny_town import FORMULA, gtft, make_town, start_gtft
from training_case import Recorder

pytestmark = pytest.mark.timeout(1200)
LIMIT_S = 30.0
SLOW = FORMULA.replace(
    "vocab = 512, hidden = 32, layers = 2, heads = 2, context = 256, steps = 4",
    "vocab = 512, hidden = 512, layers = 8, heads = 8, context = 256, steps = 0",
).replace("max_steps = 40\naccumulation = 2", "max_steps = 2\naccumulation = 32")


class Site:
    """A workspace of its own on the shared town, its corpus made, its next stage the training."""

    def __init__(self, town: Path, workspace: Path) -> None:
        self.town = town
        self.workspace = workspace
        self.environ = {
            **os.environ,
            "GTFT_WORKSPACE": str(workspace),
            "OMP_NUM_THREADS": "1",
        }
        # Placeholders and pseudonyms come of it: equal ids need equal keys.
        (workspace / KEY_FILE).write_bytes(b"k" * 32)
        self.gtft("dispatch", "mol-gtft-tiny", "--yes")
        self.gtft("work", "--once")

    def gtft(self, *argv: str) -> str:
        done = gtft(*argv, cwd=self.town, environ=self.environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return start_gtft(*argv, cwd=self.town, environ=self.environ)

    def open(self) -> Workspace:
        return open_workspace(self.workspace)

    @property
    def run_id(self) -> str:
        return self.open().store.list_runs()[0].id

    @property
    def job_dir(self) -> Path:
        return self.open().job_dir(self.run_id, "train")

    def stage(self) -> StageRow:
        return self.open().store.find_stage(self.run_id, "train")

    def checkpoints(self) -> list[int]:
        """Steps of the sealed ones."""
        found = list_checkpoints(self.job_dir / "work")
        return [step for step, path in found if (path / MANIFEST).is_file()]

    def start_step(self, step: int) -> subprocess.Popen[str]:
        """A runner whose training is in the middle of this step; 1 = the first."""
        runner = self.start("work", "--once")
        self.wait_for_step(step, runner)
        return runner

    def wait_for_step(self, step: int, runner: subprocess.Popen[str]) -> None:
        done = f'"done":{step - 1},"total":2'
        events = self.job_dir / EVENTS_FILE
        wait_until(
            lambda: (events.exists() and done in events.read_text()) or runner.poll() is not None,
            f"step {step}",
            300,
        )
        assert runner.poll() is None, runner.communicate()
        time.sleep(1.0)

    def measure_stop(self, *argv: str) -> float:
        """Seconds from the command until the worker's process is gone."""
        pid = int(json.loads((self.job_dir / ATTEMPT_FILE).read_text())["pid"])
        began = time.monotonic()
        self.gtft(*argv)
        wait_until(lambda: not psutil.pid_exists(pid), "the worker to be gone", LIMIT_S)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_town(tmp_path_factory.mktemp("town"))
    (root / "formulas" / "mol-gtft-tiny.formula.toml").write_text(SLOW)
    return root


@pytest.fixture(scope="module")
def calm(town: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The adapter of a training that nothing disturbs."""
    site = Site(town, tmp_path_factory.mktemp("calm"))
    site.gtft("work", "--once")
    made = site.stage().artifact_id
    assert made is not None
    return made


def test_pause_in_mid_step_frees_the_memory_and_loses_no_step(
    town: Path, calm: str, tmp_path: Path
) -> None:
    site = Site(town, tmp_path)
    runner = site.start_step(2)
    took = site.measure_stop("runs", "pause", site.run_id)
    assert took < LIMIT_S
    said, _ = runner.communicate(timeout=60)
    assert (site.stage().state, site.stage().reason) == ("ready", "paused"), said
    assert not is_locked(site.job_dir)
    assert site.checkpoints() == [1], "the step that ran is dropped, the one before is saved"
    site.gtft("runs", "resume", site.run_id)
    site.gtft("work", "--once")
    assert site.stage().artifact_id == calm
    print(f"gone {took:.1f} s after pause")


def test_cancel_in_mid_step_keeps_the_last_checkpoint(town: Path, tmp_path: Path) -> None:
    site = Site(town, tmp_path)
    runner = site.start_step(2)
    took = site.measure_stop("runs", "cancel", site.run_id, "--reason", "wrong rig")
    assert took < LIMIT_S
    runner.communicate(timeout=60)
    assert (site.stage().state, site.stage().reason) == ("done", "cancelled")
    assert site.checkpoints() == [1]
    # Whole, and still the run's own: what a resumed training would take, and what PEFT reads.
    work = site.job_dir / "work"
    doc = json.loads((work / "checkpoint-1" / MANIFEST).read_text())
    own = Fingerprint(doc["recipe"], doc["corpus"], doc["base"])
    found = find_resumable(work, own, doc["libraries"], Recorder())
    assert found is not None
    assert found.step == 1
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {
        p.name for p in found.path.iterdir()
    }
    print(f"gone {took:.1f} s after cancel")


def test_a_training_that_gave_way_ends_in_the_same_adapter(
    town: Path, calm: str, tmp_path: Path
) -> None:
    """Memory runs out in the middle of its second step, comes back, and it goes on by itself."""
    site = Site(town, tmp_path)
    free = tmp_path / "free"
    set_free(free, PLENTY)
    ws = site.open()
    run = find_run(ws, site.run_id)
    runner = start_training(ws, run, Path(sys.executable), free)
    site.wait_for_step(2, runner)
    set_free(free, 0)
    wait_until(lambda: not is_locked(site.job_dir), "the worker to be gone")
    assert site.stage().state == "active"
    set_free(free, PLENTY)
    said, _ = runner.communicate()
    assert site.stage().artifact_id == calm, said
    assert said.count('"code":"yielded"') == said.count('"code":"resumed"') == 1
