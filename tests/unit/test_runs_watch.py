"""``gtft runs show --watch``: a run of a real workspace, whose worker is played by the test."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.live import Live

from gtft.cli.main import main
from gtft.cli.watch import (
    GRACE_SECONDS,
    JsonLines,
    PlainLines,
    Sight,
    describe_sight,
    watch,
)
from gtft.cli.watch_screen import Screen, draw
from gtft.contract import EVENTS_FILE, METRICS_FILE, Event, Warned
from gtft.errors import TownError
from gtft.runner.lease import Claim
from gtft.runner.moves import hold
from gtft.runner.waiting import Waiting, write_waiting
from gtft.runner.workspace import Workspace
from run_case import add_run, claim_of, find_run, finish_stage, submit_stage

HOSTILE = "<b>\x1b[2J\u202eloss"


class Worker:
    """Writes what a worker writes."""

    def __init__(self, ws: Workspace, run_id: str, stage: str = "train") -> None:
        self.dir = ws.job_dir(run_id, stage)
        self.dir.mkdir(parents=True, exist_ok=True)

    def say(self, **event: Any) -> None:
        self._append(EVENTS_FILE, event)

    def figure(self, step: int, name: str, value: float) -> None:
        self._append(METRICS_FILE, {"step": step, "name": name, "value": value})

    def step(self, step: int, loss: float, total: int = 40) -> None:
        self.figure(step, "loss", loss)
        self.say(event="progress", done=step, total=total, unit="steps", eta_s=600.0, note="")

    def _append(self, name: str, doc: dict[str, Any]) -> None:
        with (self.dir / name).open("a") as f:
            f.write(json.dumps(doc) + "\n")


@dataclass
class Remembering:
    """A face that keeps what it was shown."""

    sights: list[Sight]
    events: list[Event]
    last_words: str = ""

    def show(self, sight: Sight, events: list[tuple[str, Event]]) -> None:
        self.sights.append(sight)
        self.events += [e for _, e in events]

    def end(self, sight: Sight, last_words: str) -> None:
        self.last_words = last_words


class Time:
    """A clock that moves when somebody sleeps; what happens meanwhile is done then."""

    def __init__(self, *meanwhile: Callable[[], object]) -> None:
        self.now = 100.0
        self._meanwhile = iter(meanwhile)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 3.0
        next(self._meanwhile, lambda: None)()


@pytest.fixture
def training(ws: Workspace) -> Iterator[Claim]:
    """A run whose training is claimed by this process, and so alive."""
    add_run(ws)
    finish_stage(ws, claim_of(ws, "run-1"))
    yield claim_of(ws, "run-1")


def look(ws: Workspace, *meanwhile: Callable[[], object]) -> Remembering:
    face, t = Remembering([], []), Time(*meanwhile)
    watch(ws, find_run(ws, "run-1"), face, clock=t.clock, sleep=t.sleep)
    return face


def interrupt() -> None:
    raise KeyboardInterrupt


# -- when it ends


def test_it_follows_from_stage_to_stage_and_ends_when_a_person_must_decide(
    ws: Workspace, training: Claim
) -> None:
    worker = Worker(ws, "run-1")
    face = look(
        ws,
        lambda: worker.step(10, 2.5),
        lambda: worker.say(event="checkpoint", path="x", step=10),
        lambda: finish_stage(ws, training),
        lambda: submit_stage(ws, claim_of(ws, "run-1")),
    )
    states = list(dict.fromkeys(s.state for s in face.sights))
    assert states == ["active (train)", "ready (eval)", "review (eval)"]
    assert [e.event for e in face.events] == ["progress", "checkpoint"]
    assert "waits for witness" in face.last_words
    assert "gtft review show" in face.last_words


def test_it_ends_with_the_reason_of_a_stage_that_failed(ws: Workspace, training: Claim) -> None:
    face = look(ws, lambda: hold(ws, training, "failed", "the loss became nan at step 7"))
    assert (
        "ready (failed): the loss became nan at step 7; waits for the operator" in face.last_words
    )
    assert "gtft runs resume run-1" in face.last_words


def test_a_run_that_nobody_works_on_is_left_after_a_while(ws: Workspace) -> None:
    add_run(ws)
    face = look(ws)
    assert len(face.sights) > GRACE_SECONDS / 3
    assert face.last_words == "nobody works on run-1; go on with: gtft run run-1"


def test_ctrl_c_leaves_the_run_alone_and_says_so(ws: Workspace, training: Claim) -> None:
    face = look(ws, interrupt)
    assert face.last_words.startswith("stopped watching; run-1 goes on.")
    assert find_run(ws, "run-1").desired == "run"
    assert ws.store.find_stage("run-1", "train").state == "active"


def test_a_town_that_is_away_is_told_and_the_files_are_read_on(
    ws: Workspace, training: Claim, capsys: pytest.CaptureFixture[str]
) -> None:
    worker, whole = Worker(ws, "run-1"), ws.store
    there = replace(ws)

    class Away:
        def list_stages(self, *_: object, **__: object) -> object:
            raise TownError("the Dolt server does not answer")

        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

    def leave() -> None:
        object.__setattr__(there, "store", Away())
        worker.step(3, 2.0)

    def come_back() -> None:
        object.__setattr__(there, "store", whole)

    t = Time(leave, lambda: worker.step(4, 1.5), come_back, lambda: None, interrupt)
    face = PlainLines(t.clock)
    watch(there, find_run(ws, "run-1"), face, clock=t.clock, sleep=t.sleep)
    out = capsys.readouterr().out
    assert "town     the Dolt server does not answer; looking on" in out
    assert "town     back" in out
    assert "loss 1.500" in out


# -- what it shows


def test_plain_lines_tell_changes_at_once_and_progress_now_and_then(
    ws: Workspace, training: Claim, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Worker(ws, "run-1")
    worker.step(1, 3.0)
    steps = [lambda n=n: worker.step(n, 3.0 - n / 10) for n in range(2, 12)]
    t = Time(
        *steps,
        lambda: worker.say(event="warning", code="overfit", text=HOSTILE),
        lambda: worker.say(event="checkpoint", path="x", step=11),
        interrupt,
    )
    watch(ws, find_run(ws, "run-1"), PlainLines(t.clock), clock=t.clock, sleep=t.sleep)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run-1  active (train)"
    # Every 3 seconds a step was made, and every 10 a line said so.
    assert 3 <= sum(" step " in li and "loss" in li for li in lines) <= 5
    assert "train    warning (overfit): <b>\\x1b[2J\\u202eloss" in lines
    assert "train    checkpoint at step 11" in lines
    assert lines[-1].startswith("stopped watching")


def test_json_is_a_line_per_change_and_the_last_says_that_it_is_the_last(
    ws: Workspace, training: Claim, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Worker(ws, "run-1")
    worker.step(1, 3.0)
    t = Time(
        lambda: None,
        lambda: worker.step(2, 2.5),
        lambda: worker.say(event="warning", code="slow", text=HOSTILE),
        lambda: worker.say(event="progress", done=3, total=40, unit="steps", eta_s=float("inf")),
        lambda: hold(ws, training, "paused", "saved"),
    )
    watch(ws, find_run(ws, "run-1"), JsonLines(), clock=t.clock, sleep=t.sleep)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "Infinity" not in out
    data = [json.loads(li)["data"] for li in out.splitlines()]
    assert [d["training"]["step"] for d in data[:2]] == [1, 2], "nothing changed, nothing said"
    [[warned]] = [d["events"] for d in data if any(e["event"] == "warning" for e in d["events"])]
    assert warned == {"stage": "train", "event": "warning", "code": "slow", "text": HOSTILE}
    assert [d["end"] for d in data] == [False] * (len(data) - 1) + [True]
    assert data[-1]["state"] == "ready (paused)"


def sight_of(ws: Workspace) -> Sight:
    return look(ws, interrupt).sights[-1]


def render(sight: Sight, *, ascii_only: bool) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(draw(sight, ascii_only=ascii_only))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_picture_shows_the_training_and_nothing_of_others_steers_it(
    ws: Workspace, training: Claim, ascii_only: bool
) -> None:
    worker = Worker(ws, "run-1")
    for n in range(1, 21):
        worker.figure(n, "memory_bytes", 2.0 * 1024**3)
        worker.step(n, 3.0 - n / 10)
    worker.figure(20, "validation_loss", 1.25)
    worker.figure(20, "tokens_per_s", 512.0)
    worker.say(event="checkpoint", path="x", step=20)
    worker.say(event="warning", code="overfit", text=HOSTILE)
    picture = render(sight_of(ws), ascii_only=ascii_only)
    assert "20/40 steps" in picture and "10 min left" in picture
    assert "best 1.250 at step 20" in picture and "512 tokens/s" in picture
    assert "2.0 GiB now, 2.0 GiB peak" in picture
    assert ("@@" if ascii_only else "██") in picture and "^ checkpoint" in picture
    assert "! overfit: <b>\\x1b[2J\\u202eloss" in picture
    assert "\x1b" not in picture and "\u202e" not in picture
    assert picture.isascii() == ascii_only


def test_a_stage_that_waits_says_for_what(ws: Workspace, training: Claim) -> None:
    worker = Worker(ws, "run-1")
    write_waiting(worker.dir, Waiting("queue", "2nd for cpu, behind run-0"))
    sight = sight_of(ws)
    assert "waits: queue: 2nd for cpu, behind run-0" in render(sight, ascii_only=True)
    assert describe_sight(sight) == "train    waits: queue: 2nd for cpu, behind run-0"


def test_what_is_left_counts_down_and_silence_is_told(ws: Workspace, training: Claim) -> None:
    worker = Worker(ws, "run-1")
    worker.step(20, 2.0)
    assert 500.0 < (sight_of(ws).eta_s or 0.0) <= 600.0
    long_ago = time.time() - 900
    for name in (EVENTS_FILE, METRICS_FILE):
        os.utime(worker.dir / name, (long_ago, long_ago))
    sight = sight_of(ws)
    assert sight.eta_s == 0.0
    assert "nothing new for 15 min" in render(sight, ascii_only=True)


def test_warnings_scroll_above_the_picture_and_the_past_does_not(
    ws: Workspace, training: Claim
) -> None:
    sight = sight_of(ws)
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system=None)
    with Live(console=console, auto_refresh=False) as live:
        screen = Screen(live)
        screen.show(sight, [("train", Warned(code="old", text="before we looked"))])
        screen.show(sight, [("train", Warned(code="new", text=HOSTILE))])
        screen.end(sight, "over")
    shown = out.getvalue()
    assert "train    warning (new): <b>\\x1b[2J\\u202eloss" in shown
    assert "before we looked" not in shown
    assert shown.rstrip().endswith("over")


# -- from the command line


def test_show_ends_with_the_training_in_few_figures(ws: Workspace, training: Claim) -> None:
    worker = Worker(ws, "run-1")
    worker.step(1, 3.0)
    worker.step(40, 2.0)
    worker.say(event="checkpoint", path="x", step=40)
    done = CliRunner().invoke(main, ["--workspace", str(ws.path), "runs", "show", "run-1"])
    assert done.exit_code == 0, done.output
    assert "loss      3.000 → 2.000" in done.output
    assert "saved     1 checkpoint: 40" in done.output
    done = CliRunner().invoke(
        main, ["--workspace", str(ws.path), "runs", "show", "run-1", "--json"]
    )
    assert json.loads(done.output)["data"]["training"]["loss_last"] == 2.0


def test_a_watcher_in_another_process_sees_the_end(ws: Workspace, training: Claim) -> None:
    worker = Worker(ws, "run-1")
    worker.step(1, 3.0)
    watcher = subprocess.Popen(
        [sys.executable, "-m", "gtft.cli.main", "--workspace", str(ws.path), "runs", "show", "run-1", "--watch"],
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "run-1  active (train)\n"
    worker.say(event="warning", code="overfit", text="it does")
    hold(ws, training, "paused", "saved checkpoint-1")
    rest, _ = watcher.communicate(timeout=30)
    assert watcher.returncode == 0
    assert "train    warning (overfit): it does" in rest
    assert "run-1 is ready (paused): saved checkpoint-1; waits for the operator" in rest


def test_a_finished_run_shows_its_end_at_once(ws: Workspace) -> None:
    add_run(ws)
    for _ in range(4):
        row = finish_stage(ws, claim_of(ws, "run-1"))
        if row.stage == "train":
            Worker(ws, "run-1").step(40, 2.0)
        if row.stage == "eval":
            from gtft.runner.moves import accept

            accept(ws, row, "gizmo/witness", "fine")
    done = CliRunner().invoke(
        main, ["--workspace", str(ws.path), "runs", "show", "run-1", "--watch"]
    )
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "run-1  done",
        "train    step 40 of 40, loss 2.000",
        "run-1 is done; next: gtft model list",
    ]
