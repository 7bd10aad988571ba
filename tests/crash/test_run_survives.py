"""kill -9 of the worker and of the runner in every stage: the run goes on and ends in the same artifacts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gtft.contract import EVENTS_FILE, STAGES
from gtft.corpus.governance.withdrawal import KEY_FILE
from gtft.runner.process import ATTEMPT_FILE, is_locked
from gtft.runner.workspace import Workspace, open_workspace
from tiny_town import gtft, make_town, start_gtft

# A progress event of a training that has done a step (the first ones, while it loads, have no total).
STEP = '"total":40,"unit":"steps"'


@dataclass
class Town:
    root: Path
    workspace: Path

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "GTFT_WORKSPACE": str(self.workspace), "OMP_NUM_THREADS": "1"}

    def open(self) -> Workspace:
        return open_workspace(self.workspace)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return gtft(*argv, cwd=self.root, environ=self.environ)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return start_gtft(*argv, cwd=self.root, environ=self.environ)

    def run_id(self) -> str:
        return self.open().store.list_runs()[0].id

    def artifacts(self) -> dict[str, str | None]:
        """What must be equal whatever happened; the card names its run and the time of the review."""
        rows = self.open().store.list_stages(self.run_id())
        return {s.stage: s.artifact_id for s in rows if s.stage != "card"}


@pytest.fixture(scope="module")
def towns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Town]]:
    root = make_town(tmp_path_factory.mktemp("town"))
    towns = {
        name: Town(root, tmp_path_factory.mktemp(name))
        for name in ("calm", "worker", "runner", "pause", "cancel")
    }
    for town in towns.values():
        # Placeholders and pseudonyms come of it: equal ids need equal keys.
        (town.workspace / KEY_FILE).write_bytes(b"k" * 32)
    yield towns


@pytest.fixture(scope="module")
def calm(towns: dict[str, Town]) -> Town:
    """A run that nothing disturbs: what the others are compared with."""
    town = towns["calm"]
    done = town.run("run", "mol-gtft-tiny", "--as", "gizmo/polecats/a")
    assert done.returncode == 0, done.stderr
    approve(town)
    assert town.run("run", town.run_id(), "--as", "gizmo/polecats/a").returncode == 0
    assert_finished(town)
    return town


def test_a_worker_killed_in_every_stage_is_started_again(
    calm: Town, towns: dict[str, Town]
) -> None:
    town = towns["worker"]
    runner = town.start("run", "mol-gtft-tiny", "--as", "gizmo/polecats/a")
    for stage in STAGES:
        if stage == "card":
            assert runner.wait(120) == 0
            approve(town)
            runner = town.start("run", town.run_id(), "--as", "gizmo/polecats/a")
        kill_worker(town, stage)
    assert runner.wait(180) == 0, runner.communicate()
    assert_finished(town)
    attempts = {s.stage: s.attempt for s in town.open().store.list_stages(town.run_id())}
    assert min(attempts.values()) >= 2, attempts
    assert town.artifacts() == calm.artifacts()


def test_a_runner_killed_in_every_stage_is_followed_by_another(
    calm: Town, towns: dict[str, Town]
) -> None:
    town = towns["runner"]
    runner = town.start("run", "mol-gtft-tiny", "--as", "gizmo/polecats/a")
    for stage in STAGES:
        if stage == "card":
            assert runner.wait(120) == 0
            approve(town)
            runner = town.start("run", town.run_id(), "--as", "gizmo/polecats/b")
        wait_for_worker(town, stage)
        runner.send_signal(signal.SIGKILL)
        runner.wait()
        runner = town.start("run", town.run_id(), "--as", "gizmo/polecats/b")
    assert runner.wait(180) == 0, runner.communicate()
    assert_finished(town)
    kinds = [e.kind for e in town.open().store.list_events(town.run_id())]
    assert kinds.count("taken-over") == len(STAGES)
    assert town.artifacts() == calm.artifacts()


def test_pause_saves_and_resume_ends_in_the_same_adapter(
    calm: Town, towns: dict[str, Town]
) -> None:
    town = towns["pause"]
    runner = town.start("run", "mol-gtft-tiny", "--as", "gizmo/polecats/a")
    wait_for_event(town, "train", '"unit":"steps"')
    assert town.run("runs", "pause", town.run_id()).returncode == 0
    assert runner.wait(60) == 75, runner.communicate()
    stage = town.open().store.find_stage(town.run_id(), "train")
    assert (stage.state, stage.reason) == ("ready", "paused")
    assert not is_locked(town.open().job_dir(town.run_id(), "train"))
    assert town.run("work", "--once").stdout.startswith("no bead is ready")
    assert town.run("run", town.run_id(), "--as", "gizmo/polecats/a").returncode == 0
    assert town.artifacts()["train"] == calm.artifacts()["train"]


def test_cancel_ends_the_worker_and_the_run(towns: dict[str, Town]) -> None:
    town = towns["cancel"]
    runner = town.start("run", "mol-gtft-tiny", "--as", "gizmo/polecats/a")
    wait_for_event(town, "train", '"unit":"steps"')
    assert town.run("runs", "cancel", town.run_id(), "--reason", "wrong rig").returncode == 0
    assert runner.wait(60) == 0, runner.communicate()
    ws = town.open()
    assert {(s.state) for s in ws.store.list_stages(town.run_id())} == {"done"}
    assert ws.store.find_stage(town.run_id(), "train").reason == "cancelled"
    assert ws.ledger.show(ws.store.list_runs()[0].epic_bead or "").status == "closed"
    assert not is_locked(ws.job_dir(town.run_id(), "train"))


def approve(town: Town) -> None:
    bead = town.open().store.find_stage(town.run_id(), "eval").bead_id or ""
    mine = town.run("review", "approve", bead, "--as", "gizmo/polecats/a")
    assert mine.returncode == 12, mine.stderr
    done = town.run("review", "approve", bead, "--as", "gizmo/witness")
    assert done.returncode == 0, done.stderr


def assert_finished(town: Town) -> None:
    ws = town.open()
    run = ws.store.find_run(town.run_id())
    assert run is not None
    for s in ws.store.list_stages(run.id):
        assert (s.state, s.reason) == ("done", None), s
        assert ws.ledger.show(s.bead_id or "").status == "closed"
    assert ws.ledger.show(run.epic_bead or "").status == "closed"
    assert ws.store.list_messages(pending=True) == []
    assert len(ws.store.list_models()) == 1
    mails = [json.loads(line) for line in ws.mail_log.read_text().splitlines()]
    assert len({m["id"] for m in mails}) == len(mails)
    assert [m["subject"].split(":")[0] for m in mails] == ["GTFT_REVIEW", "GTFT_DONE"]
    assert list(ws.artifacts.glob(".tmp-*")) == []
    assert town.run("doctor").returncode == 0


def kill_worker(town: Town, stage: str) -> None:
    wait_for_worker(town, stage)
    job_dir = town.open().job_dir(town.run_id(), stage)
    os.kill(json.loads((job_dir / ATTEMPT_FILE).read_text())["pid"], signal.SIGKILL)


def wait_for_worker(town: Town, stage: str) -> None:
    """Until the stage's worker holds its lock (it is at work) and its runner has noted it."""

    def at_work() -> bool:
        if not (town.workspace / "gtft.db").exists() or not town.open().store.list_runs():
            return False
        job_dir = town.open().job_dir(town.run_id(), stage)
        if not (job_dir / ATTEMPT_FILE).exists() or not is_locked(job_dir):
            return False
        # In training, not before its first step.
        return stage != "train" or STEP in (job_dir / EVENTS_FILE).read_text()

    wait_until(at_work, f"a worker of {stage}")


def wait_for_event(town: Town, stage: str, text: str) -> None:
    def seen() -> bool:
        if not (town.workspace / "gtft.db").exists() or not town.open().store.list_runs():
            return False
        path = town.open().job_dir(town.run_id(), stage) / EVENTS_FILE
        return path.exists() and text in path.read_text()

    wait_until(seen, f"{text} in {stage}")


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)
