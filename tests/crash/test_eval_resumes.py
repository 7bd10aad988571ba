"""The eval worker is killed at many points; its report must not show it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import evals_case as case
from gtft.artifact import Artifact, verify_artifact

LIMIT_S = 180.0
LOG = "generations.jsonl"
# Batches of two, so that there are many moments between them.
WORKER = """
from gtft.evals.asking import generate
generate.BATCH = 2
from gtft.workers.evaluate import work
from gtft.workers.frame import main
main(work)
"""
SETTINGS = {
    "suites": ["heldout"],
    "candidates": ["base", "tuned"],
    "seeds": 3,
    "general_texts": 2,
    "memorisation_samples": 1,
}


def start(job: Path) -> subprocess.Popen[bytes]:
    with (job / "worker.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(job)],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def count_answers(job: Path) -> int:
    log = job / "work" / LOG
    return log.read_bytes().count(b"\n") if log.exists() else 0


def finish(job: Path) -> Artifact:
    worker = start(job)
    assert worker.wait(LIMIT_S) == 0, (job / "worker.log").read_text()[-3000:]
    made = json.loads((job / "events.jsonl").read_text().splitlines()[-1])
    return verify_artifact(Path(made["path"]), kind="eval", expect=made["id"])


def read_tables(found: Artifact) -> dict[str, str]:
    names = {f.name: f.sha256 for f in found.files}
    assert {"report.json", LOG, "items.jsonl", "summary.json"} <= set(names)
    return names


@dataclass(frozen=True)
class Town:
    """``whole``: the evaluation of a run that nothing interrupted; ``log``: its answers; ``count`` of them."""

    root: Path
    corpus: Artifact
    adapter: Artifact
    whole: Artifact
    log: Path
    count: int

    def make_job(self, name: str) -> Path:
        return case.make_job(self.root, self.corpus, self.adapter, name, **SETTINGS)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    root = tmp_path_factory.mktemp("town")
    corpus = case.make_corpus(
        root / "artifacts",
        [case.example(n) for n in range(1, 10)],
        [case.example(n) for n in range(34, 38)],
    )
    adapter = case.make_adapter(root / "artifacts", case.make_base(root), root, corpus)
    job = case.make_job(root, corpus, adapter, "whole", **SETTINGS)
    whole = finish(job)
    return Town(root, corpus, adapter, whole, job / "work" / LOG, count_answers(job))


def test_killed_anywhere_and_resumed_gives_the_same_report(town: Town) -> None:
    """SIGKILL four times, each at a random moment after some new answers; then to the end."""
    job = town.make_job("killed")
    dice = random.Random(int.from_bytes(os.urandom(4)))
    stopped_at = []
    for wanted in (0, 1, town.count // 3, town.count // 2):
        worker = start(job)
        deadline = time.monotonic() + LIMIT_S
        while count_answers(job) < wanted and worker.poll() is None:
            assert time.monotonic() < deadline, "the worker answers nothing"
            time.sleep(0.005)
        time.sleep(dice.random() * (2 if not wanted else 0.05))
        children = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        # What judges the answers sees that nobody asks any more.
        assert not psutil.wait_procs(children, timeout=20)[1]
        stopped_at.append(count_answers(job))
        if stopped_at[-1]:
            with (job / "work" / LOG).open("ab") as log:
                log.write(b'{"candidate": "tuned", "item": "it')
    assert stopped_at[0] < stopped_at[2] < town.count, f"the kills fell too late: {stopped_at}"
    assert read_tables(finish(job)) == read_tables(town.whole)
    assert count_answers(job) == town.count


def test_two_runs_give_the_same_outcomes_and_the_same_verdict(town: Town) -> None:
    again = finish(town.make_job("again"))
    assert read_tables(again) == read_tables(town.whole)
    verdicts = [
        json.loads(e.file("report.json").read_text())["verdict"] for e in (again, town.whole)
    ]
    assert verdicts[0] == verdicts[1] != ""


def test_an_answer_that_was_edited_stops_the_evaluation(town: Town) -> None:
    job = town.make_job("edited")
    lines = town.log.read_text().splitlines()
    lines[4] = lines[4].replace('"passed": false', '"passed": true')
    (job / "work").mkdir()
    (job / "work" / LOG).write_text("".join(line + "\n" for line in lines))
    assert start(job).wait(LIMIT_S) == 7
    told = json.loads((job / "events.jsonl").read_text().splitlines()[-1])
    assert told["kind"] == "evidence"
    assert f"{LOG}:5" in told["message"]
    assert "rm " in told["fix"]
