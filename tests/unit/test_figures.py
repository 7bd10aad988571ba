"""The figures of a job: what was appended, whatever became of the file, and what it says in the end."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gtft.contract import EVENTS_FILE, METRICS_FILE, Job, Warned
from gtft.runner.figures import (
    Figures,
    Follower,
    Tail,
    clean_text,
    draw_line,
    mark_columns,
    read_figures,
    summarize,
)
from gtft.workers.frame import Reporter


def line(step: object, value: object, name: object = "loss") -> bytes:
    return json.dumps({"step": step, "name": name, "value": value}).encode() + b"\n"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as f:
        f.write(data)


# -- reading what was appended


def test_only_what_was_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    path.write_bytes(line(1, 1.0) + line(2, 2.0))
    follower = Follower(tmp_path)
    follower.read()
    # Nobody reads this again, so nobody stumbles over it.
    with path.open("r+b") as f:
        f.write(b"#" * (path.stat().st_size - 1))
    append(path, line(3, 3.0))
    follower.read()
    assert follower.figures.points("loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert follower.figures.unreadable == 0


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    tail = Tail(path)
    assert tail.read() == []
    path.write_bytes(b"one\ntw")
    assert tail.read() == [b"one"]
    assert tail.read() == []
    append(path, b"o\n")
    assert tail.read() == [b"two"]


def test_a_first_look_begins_near_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"".join(b"line %04d\n" % n for n in range(1000)))
    assert Tail(path, last=25).read() == [b"line 0998", b"line 0999"]
    assert len(Tail(path, last=None).read()) == 1000


@pytest.mark.parametrize("how", ["cut off", "replaced"])
def test_another_file_of_that_name_is_read_from_its_start(tmp_path: Path, how: str) -> None:
    path = tmp_path / METRICS_FILE
    path.write_bytes(b"".join(line(n, 9.0) for n in range(50)))
    follower = Follower(tmp_path)
    follower.read()
    if how == "replaced":
        (tmp_path / "aside").write_bytes(b"".join(line(n, 5.0) for n in range(60)))
        (tmp_path / "aside").replace(path)
    else:
        path.write_bytes(line(0, 5.0))
    follower.read()
    assert {v for _, v in follower.figures.points("loss")} == {5.0}


def test_a_line_that_never_ends_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"
    tail = Tail(path)
    for _ in range(40):
        append(path, b"x" * 10_000)
        assert tail.read() == []
        assert len(tail._rest) <= 1 << 16
    append(path, b"\nnext\n")
    assert tail.read() == [b"next"]


# -- what the lines say


def test_a_step_that_was_trained_again_counts_once_with_its_last_value(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_bytes(line(1, 3.0) + line(2, 2.5) + line(2, 2.4) + line(1, 2.9))
    assert read_figures(tmp_path).points("loss") == [(1, 2.9), (2, 2.4)]


@pytest.mark.parametrize(
    "junk",
    [
        b'{"step": 1, "name": "loss", "value": NaN}\n',
        b'{"step": 1, "name": "loss", "value": 1e999}\n',
        b'{"step": 1, "name": "loss", "val\n',
        b'{"step": -1, "name": "loss", "value": 1}\n',
        b'{"step": 1' + b"0" * 400 + b', "name": "loss", "value": 1}\n',
        b'{"step": 1, "name": "loss"}\n',
        b"[" * 5000 + b"\n",
        b"\xff\xfe\x00\n",
        b"null\n",
    ],
)
def test_what_is_no_figure_is_counted_and_left_out(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / METRICS_FILE).write_bytes(junk + line(7, 1.5))
    (tmp_path / EVENTS_FILE).write_bytes(junk)
    figures = read_figures(tmp_path)
    assert figures.points("loss") == [(7, 1.5)]
    assert figures.unreadable == 2


def test_a_worker_cannot_fill_the_memory_with_names() -> None:
    figures = Figures()
    for n in range(5000):
        figures.take_metric(line(1, 1.0, f"name {n}"))
    assert len(figures.series) < 100


def test_pauses_resumes_and_marks_are_found(tmp_path: Path) -> None:
    said = [
        {"event": "progress", "done": 0, "total": None, "unit": "steps", "note": "loading nano"},
        {"event": "progress", "done": 10, "total": 40, "unit": "steps"},
        {"event": "checkpoint", "path": "x", "step": 10},
        {"event": "paused", "step": 14, "text": ""},
        {"event": "progress", "done": 0, "total": None, "unit": "steps", "note": "loading nano"},
        {"event": "progress", "done": 14, "total": 40, "unit": "steps", "note": ""},
        {"event": "progress", "done": 19, "total": 40, "unit": "steps"},
        # Killed, and started again.
        {"event": "progress", "done": 0, "total": None, "unit": "steps", "note": "loading nano"},
        {"event": "progress", "done": 12, "total": 40, "unit": "steps", "note": "resumed"},
        {"event": "checkpoint", "path": "x", "step": 20},
        {"event": "warning", "code": "overfit", "text": "it does"},
        {"event": "progress", "done": 40, "total": 40, "unit": "steps"},
    ]
    (tmp_path / EVENTS_FILE).write_text("".join(json.dumps(s) + "\n" for s in said))
    (tmp_path / METRICS_FILE).write_bytes(
        line(1, 3.0) + line(40, 2.0) + line(10, 2.2, "validation_loss")
        + line(20, 2.1, "validation_loss") + line(40, 2.3, "validation_loss")
        + line(5, 100.0, "tokens_per_s") + line(6, 900.0, "tokens_per_s") + line(7, 110.0, "tokens_per_s")
        + line(5, 4e9, "memory_bytes") + line(6, 3e9, "memory_bytes") + line(40, 9e9, "peak_memory_bytes")
        + line(40, 5e9, "peak_anon_bytes")
    )  # fmt: skip
    t = summarize(read_figures(tmp_path))
    assert t is not None
    assert (t.pauses, t.resumes, t.checkpoints, t.warnings) == ((14,), (14, 12), (10, 20), 1)
    assert (t.step, t.total, t.loss_first, t.loss_last) == (40, 40, 3.0, 2.0)
    assert (t.validation_best, t.validation_best_step, t.validation_last) == (2.1, 20, 2.3)
    assert (t.tokens_per_s, t.memory, t.peak_memory) == (110.0, 3e9, 5e9)


def test_a_training_that_did_not_begin_has_no_figures(tmp_path: Path) -> None:
    assert summarize(read_figures(tmp_path / "not there")) is None


# -- what a worker writes


def test_a_figure_that_is_no_number_is_told_once_and_not_written(tmp_path: Path) -> None:
    with (tmp_path / "echo").open("w") as echo:
        report = Reporter(tmp_path, echo)
        for step in (1, 2):
            report.metric(step, "grad_norm", float("inf"))
        report.metric(3, "grad_norm", 0.5)
    figures = read_figures(tmp_path)
    assert figures.points("grad_norm") == [(3, 0.5)]
    assert figures.unreadable == 0
    [warned] = figures.warnings
    assert warned == Warned(
        code="figure-not-finite", text="grad_norm is inf at step 1; it is not written"
    )


WORKER = """
import time
from gtft.artifact import stage_artifact
from gtft.workers.frame import main

def work(job, report):
    report.metric(5 if job.recipe["how"] == "wait" else 6, "loss", 2.0)
    if job.recipe["how"] == "wait":
        time.sleep(60)
    with stage_artifact(job.artifacts, "adapter") as s:
        (s.path / "summary.json").write_text("{}")
    return s.result

main(work)
"""


def test_the_line_that_a_killed_worker_tore_costs_no_other(tmp_path: Path) -> None:
    def start(how: str) -> subprocess.Popen[bytes]:
        job = Job(
            run_id="run-1", stage="train", bead_id="b", actor="a", recipe={"how": how}, recipe_hash="",
            workspace=tmp_path, workdir=tmp_path / "work", artifacts=tmp_path / "artifacts", seed=1,
            root=tmp_path, store_url="sqlite://",
        )  # fmt: skip
        (tmp_path / "job.json").write_text(job.model_dump_json())
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)], stderr=subprocess.DEVNULL
        )

    worker = start("wait")
    follower = Follower(tmp_path)
    while not follower.figures.series:
        follower.read()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    append(tmp_path / METRICS_FILE, b'{"name":"loss","step":6,"va')
    assert start("go on").wait(30) == 0
    follower.read()
    assert follower.figures.points("loss") == read_figures(tmp_path).points("loss")
    assert follower.figures.points("loss") == [(5, 2.0), (6, 2.0)]
    assert follower.figures.unreadable == 1


# -- small drawings


def test_a_line_falls_as_its_values_do() -> None:
    assert draw_line([4.0, 3.0, 2.0, 1.0], 4, "abcd") == "dcba"
    assert draw_line([4.0] * 50 + [1.0] * 50, 2, "abcd") == "da"
    assert draw_line([1.0], 10, "abc") == "b"
    assert draw_line([1.7e308, -1.7e308], 2, "ab") == "ba"
    assert draw_line([], 10, "abc") == ""


def test_marks_stand_below_their_column() -> None:
    steps = list(range(1, 101))
    assert mark_columns(steps, [1, 55, 100], 10) == "^    ^   ^"
    # Only every second step was logged: the mark stands at the one before.
    assert mark_columns([2, 4, 6, 8], [5], 4) == " ^"


def test_text_of_others_steers_nothing() -> None:
    hostile = "red \x1b[31m\r\n\x07 back\u202e\u200b \udc80"
    assert clean_text(hostile) == "red \\x1b[31m \\x07 back\\u202e\\u200b \\udc80"
    assert len(clean_text("x" * 10_000)) == 300
