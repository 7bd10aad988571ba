"""SIGKILL of runners and workers that wait, train, give way or pause: never two trainings at once, nothing lost.

The workers only count (admission_case) and hold a lock of their own as they work, which tells when two train.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from admission_case import (
    PLENTY,
    STEPS,
    make_training,
    read_steps,
    set_free,
    start_training,
    wait_until,
    write_worker,
)
from gtft.records.rows import Run
from gtft.runner.admission import FOLDER_VARIABLE, list_holders
from gtft.runner.control import get_run, pause, resume
from gtft.runner.process import ATTEMPT_FILE, is_locked
from gtft.runner.waiting import read_waiting
from gtft.runner.workspace import Workspace

# Within it a runner sees what the operator asked.
HEARTBEAT = 1.0
ALL = list(range(1, STEPS + 1))


class Site:
    """Runs of workspaces of their own on one box, and what free memory it has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.free = folder / "free"
        self.worker = write_worker(folder / "worker")
        self.queue = folder / "queue"
        self.processes: list[subprocess.Popen[str]] = []
        self.set_free(PLENTY)

    def set_free(self, size: int) -> None:
        set_free(self.free, size)

    def hold(self, *names: str) -> None:
        """``hold``: workers stay half way; ``slow``: saving takes until it is let go."""
        for name in names:
            (self.worker.parent / name).touch()

    def let_go(self) -> None:
        for name in ("hold", "slow"):
            (self.worker.parent / name).unlink(missing_ok=True)

    def make(self, name: str) -> tuple[Workspace, Run]:
        return make_training(self.folder, name)

    def start(self, ws: Workspace, run: Run) -> subprocess.Popen[str]:
        process = start_training(ws, run, self.worker, self.free)
        self.processes.append(process)
        return process

    def assert_never_two(self) -> None:
        assert not (self.worker.parent / "twice").exists()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "queue"))
    made = Site(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def state(ws: Workspace, run: Run) -> tuple[str, str | None]:
    row = ws.store.find_stage(run.id, "train")
    return row.state, row.reason


def waits(ws: Workspace, run: Run) -> str:
    found = read_waiting(ws.job_dir(run.id, "train"))
    return found.why if found is not None else ""


def is_asked(ws: Workspace, run: Run) -> bool:
    """A runner noted that it asks the worker to stop; the request follows at once."""
    noted = json.loads((ws.job_dir(run.id, "train") / ATTEMPT_FILE).read_text())
    time.sleep(0.05 if noted["asked"] else 0)
    return bool(noted["asked"])


def worker_pid(ws: Workspace, run: Run) -> int:
    noted = json.loads((ws.job_dir(run.id, "train") / ATTEMPT_FILE).read_text())
    return int(noted["pid"])


def test_a_runner_killed_while_it_waits_loses_its_place_and_nothing_else(site: Site) -> None:
    one, two, three = site.make("one"), site.make("two"), site.make("three")
    site.hold("hold")
    first = site.start(*one)
    wait_until(lambda: read_steps(*one), "the first to train")
    second = site.start(*two)
    wait_until(lambda: waits(*two) == "queue", "the second to wait")
    third = site.start(*three)
    wait_until(lambda: len(list_holders(site.queue)) == 3, "the third to wait")
    kill(second)
    assert [h.run for h in list_holders(site.queue)] == [one[1].id, three[1].id]
    site.let_go()
    finish(first)
    finish(third)
    assert state(*two) == ("active", None), "its lease is over; whoever comes takes it over"
    finish(site.start(*two))
    assert read_steps(*two) == ALL
    site.assert_never_two()


def test_an_orphan_worker_holds_its_device(site: Site) -> None:
    one, two = site.make("one"), site.make("two")
    site.hold("hold")
    first = site.start(*one)
    wait_until(lambda: read_steps(*one), "the first to train")
    kill(first)
    second = site.start(*two)
    wait_until(lambda: waits(*two) == "queue" or read_steps(*two), "the second to wait")
    assert [h.run for h in list_holders(site.queue)] == [one[1].id, two[1].id]
    again = site.start(*one)
    wait_until(lambda: one[0].store.find_stage(one[1].id, "train").attempt == 2, "the take-over")
    site.let_go()
    finish(again)
    finish(second)
    assert read_steps(*one) == read_steps(*two) == ALL, (
        "the orphan's work was taken over, not repeated"
    )
    site.assert_never_two()


def test_a_runner_killed_while_its_worker_gives_way(site: Site) -> None:
    """The next runner finds the worker as it saves, and goes on by itself when there is room."""
    ws, run = site.make("one")
    site.hold("hold", "slow")
    first = site.start(ws, run)
    wait_until(lambda: read_steps(ws, run), "a step")
    site.set_free(0)
    wait_until(lambda: is_asked(ws, run), "the worker to be asked")
    assert waits(ws, run) == "yielded"
    kill(first)
    assert is_locked(ws.job_dir(run.id, "train")), "its worker still saves"
    second = site.start(ws, run)
    wait_until(lambda: ws.store.find_stage(run.id, "train").attempt == 2, "the take-over")
    site.let_go()
    wait_until(lambda: not is_locked(ws.job_dir(run.id, "train")), "the worker to end")
    wait_until(lambda: "needed" in str(read_waiting(ws.job_dir(run.id, "train"))), "the wait")
    assert state(ws, run) == ("active", "expired"), "not held as paused: nobody asked for that"
    site.set_free(PLENTY)
    said = finish(second)
    assert '"resumed"' in said
    assert read_steps(ws, run) == ALL
    site.assert_never_two()


def test_a_runner_killed_while_it_waits_for_memory(site: Site) -> None:
    ws, run = site.make("one")
    site.hold("hold")
    first = site.start(ws, run)
    wait_until(lambda: read_steps(ws, run), "a step")
    site.set_free(0)
    wait_until(
        lambda: "needed" in str(read_waiting(ws.job_dir(run.id, "train"))), "it to have given way"
    )
    kill(first)
    second = site.start(ws, run)
    wait_until(lambda: ws.store.find_stage(run.id, "train").attempt == 2, "the take-over")
    assert read_steps(ws, run) != ALL
    site.let_go()
    site.set_free(PLENTY)
    finish(second)
    assert read_steps(ws, run) == ALL
    site.assert_never_two()


def test_a_runner_killed_while_its_worker_pauses(site: Site) -> None:
    """The next runner must not ask again: the second request would not let the worker save."""
    ws, run = site.make("one")
    site.hold("hold", "slow")
    first = site.start(ws, run)
    wait_until(lambda: read_steps(ws, run), "a step")
    pause(ws, run, "me")
    wait_until(lambda: is_asked(ws, run), "the worker to be asked")
    kill(first)
    second = site.start(ws, run)
    wait_until(lambda: ws.store.find_stage(run.id, "train").attempt == 2, "the take-over")
    time.sleep(2 * HEARTBEAT)
    site.let_go()
    assert second.wait(60) == 1
    assert state(ws, run) == ("ready", "paused")
    saved = (ws.job_dir(run.id, "train") / "work" / "step").read_text()
    assert int(saved) == read_steps(ws, run)[-1]
    resume(ws, get_run(ws, run.id), "me")
    finish(site.start(ws, run))
    assert read_steps(ws, run) == ALL


def test_a_worker_killed_while_it_pauses(site: Site) -> None:
    ws, run = site.make("one")
    site.hold("hold", "slow")
    first = site.start(ws, run)
    wait_until(lambda: read_steps(ws, run), "a step")
    pause(ws, run, "me")
    wait_until(lambda: is_asked(ws, run), "the worker to be asked")
    os.kill(worker_pid(ws, run), signal.SIGKILL)
    assert first.wait(60) == 1
    assert state(ws, run) == ("ready", "paused")
    assert list_holders(site.queue) == ()
    site.let_go()
    resume(ws, get_run(ws, run.id), "me")
    finish(site.start(ws, run))
    # Nothing was saved, so it began again; nothing but the steps since then is lost.
    assert read_steps(ws, run)[-STEPS:] == ALL
    site.assert_never_two()


def test_runners_and_workers_killed_at_random_never_train_at_once(site: Site) -> None:
    chance = random.Random(5)
    runs = [site.make(name) for name in ("one", "two", "three")]
    runners = [site.start(*r) for r in runs]
    for _ in range(8):
        time.sleep(chance.uniform(0.1, 0.7))
        n = chance.randrange(len(runs))
        ws, run = runs[n]
        if chance.random() < 0.3 and is_locked(ws.job_dir(run.id, "train")):
            os.kill(worker_pid(ws, run), signal.SIGKILL)
        else:
            kill(runners[n])
            runners[n] = site.start(ws, run)
    for n, runner in enumerate(runners):
        said, _ = runner.communicate(timeout=120)
        row = runs[n][0].store.find_stage(runs[n][1].id, "train")
        assert row.state == "done", said
    site.assert_never_two()
