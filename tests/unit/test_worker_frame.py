"""The frame around a worker: events, exit codes, the lock, the signal. A real process each."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gtft.contract import Failed, Job, Paused, Produced, parse_event
from gtft.workers.frame import Reporter

SCRIPT = """
import sys, time
from gtft.artifact import stage_artifact
from gtft.errors import CorpusTooSmall
from gtft.workers.frame import Stopped, main

def work(job, report):
    how = job.recipe["how"]
    report.progress(0, 1, "things")
    if how == "error":
        raise CorpusTooSmall("3 examples, 20 are needed", why="the town is young", fix="wait")
    if how == "bug":
        raise KeyError("oops")
    if how == "disk":
        raise OSError(28, "No space left on device", "x.bin")
    if how == "wait":
        while not report.stop_requested:
            time.sleep(0.01)
        raise Stopped(7, "saved")
    with stage_artifact(job.artifacts, "corpus") as s:
        (s.path / "summary.json").write_text("{}")
    return s.result

main(work)
"""


def start(tmp_path: Path, how: str) -> subprocess.Popen[str]:
    job_dir = tmp_path / "job"
    job_dir.mkdir(exist_ok=True)
    job = Job(
        run_id="run-1",
        stage="harvest",
        bead_id="b",
        actor="a",
        recipe={"how": how},
        recipe_hash="sha256:0",
        workspace=tmp_path,
        workdir=job_dir / "work",
        artifacts=tmp_path / "artifacts",
        seed=1,
        root=tmp_path,
        store_url="sqlite://",
    )
    (job_dir / "job.json").write_text(job.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(job_dir)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def read_last(tmp_path: Path) -> object:
    return parse_event((tmp_path / "job" / "events.jsonl").read_bytes().splitlines()[-1])


@pytest.mark.parametrize(
    ("how", "code", "kind"),
    [("error", 5, "corpus-too-small"), ("bug", 70, "internal"), ("disk", 9, "disk-full")],
)
def test_a_failure_says_class_cause_and_next_command(
    tmp_path: Path, how: str, code: int, kind: str
) -> None:
    worker = start(tmp_path, how)
    _, err = worker.communicate(timeout=30)
    last = read_last(tmp_path)
    assert worker.returncode == code
    assert isinstance(last, Failed) and last.kind == kind and last.fix
    assert ("Traceback" in err) == (how == "bug")


def test_an_artifact_is_the_last_word(tmp_path: Path) -> None:
    worker = start(tmp_path, "make")
    assert worker.wait(30) == 0
    last = read_last(tmp_path)
    assert isinstance(last, Produced) and last.path.is_dir()


def test_sigterm_means_save_and_stop(tmp_path: Path) -> None:
    worker = start(tmp_path, "wait")
    events = tmp_path / "job" / "events.jsonl"
    while not events.exists() or not events.read_text():
        time.sleep(0.01)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 75
    assert read_last(tmp_path) == Paused(step=7, text="saved")


def test_a_second_worker_of_the_same_job_gives_up_and_is_silent(tmp_path: Path) -> None:
    first = start(tmp_path, "wait")
    events = tmp_path / "job" / "events.jsonl"
    while not events.exists() or not events.read_text():
        time.sleep(0.01)
    before = events.read_bytes()
    second = start(tmp_path, "wait")
    assert second.wait(30) == 8
    assert events.read_bytes() == before
    first.kill()
    first.wait()


def test_a_torn_line_of_a_killed_worker_is_closed(tmp_path: Path) -> None:
    job_dir = tmp_path / "job"
    job_dir.mkdir()
    (job_dir / "events.jsonl").write_text('{"event":"prog')
    assert start(tmp_path, "make").wait(30) == 0
    lines = (job_dir / "events.jsonl").read_text().splitlines()
    assert lines[0] == '{"event":"prog'
    assert isinstance(parse_event(lines[-1]), Produced)


def test_metrics_are_events_and_lines(tmp_path: Path) -> None:
    with Path(os.devnull).open("w") as quiet:
        Reporter(tmp_path, quiet).metric(3, "loss", 1.5)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 3, "name": "loss", "value": 1.5
    }  # fmt: skip
