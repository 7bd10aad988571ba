"""Who may train on a device, and when: tickets, memory, giving way. The workers only count (admission_case)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from admission_case import (
    GIB,
    PLENTY,
    STEPS,
    TOTAL,
    make_terms,
    make_training,
    read_steps,
    set_free,
    train,
    wait_until,
    write_worker,
)
from gtft.cli.follow import describe
from gtft.contract import Event, Warned
from gtft.errors import InputError, TrainingError
from gtft.records.rows import Run, StageRow
from gtft.runner.admission import Holder, Turn, find_devices, find_folder, list_holders
from gtft.runner.box import LEAST_MEMORY
from gtft.runner.control import cancel, get_run, pause, resume
from gtft.runner.execution import Outcome
from gtft.runner.pressure import Reading, count_room, count_room_again, is_low, read_stall
from gtft.runner.status import view_run
from gtft.runner.supervision import MB, Terms, say_place
from gtft.runner.waiting import Waiting, read_waiting
from gtft.runner.workspace import Workspace

HOLD = """
import os, sys, subprocess
from pathlib import Path
from gtft.runner.admission import Holder, Turn
turn = Turn(Path(sys.argv[1]), Holder("run-held", "elsewhere", os.getpid(), ("cpu",)))
turn.take()
if sys.argv[2] == "worker":
    child = subprocess.Popen(["sleep", "60"], pass_fds=(turn.fd,), start_new_session=True)
    print(child.pid, flush=True)
else:
    print("0", flush=True)
sys.stdin.read()
"""


def make_turn(folder: Path, name: str, *devices: str) -> Turn:
    turn = Turn(folder, Holder(name, f"ws-{name}", os.getpid(), devices or ("cpu",)))
    turn.take()
    return turn


def names(found: tuple[str, tuple[Holder, ...]] | None) -> list[str]:
    return [h.run for h in found[1]] if found else []


# -- tickets


def test_turns_come_in_the_order_of_arrival(tmp_path: Path) -> None:
    first, second, third = (make_turn(tmp_path / "q", n) for n in ("a", "b", "c"))
    assert first.find_obstacle(1) is None
    assert names(second.find_obstacle(1)) == ["a"]
    assert names(third.find_obstacle(1)) == ["a", "b"]
    assert [h.run for h in list_holders(tmp_path / "q")] == ["a", "b", "c"]
    second.release()
    assert names(third.find_obstacle(1)) == ["a"]
    first.release()
    assert third.find_obstacle(1) is None
    late = make_turn(tmp_path / "q", "d")
    assert names(late.find_obstacle(1)) == ["c"]
    assert len(list((tmp_path / "q").glob("*.ticket"))) == 2, "void tickets are cleared away"


def test_a_device_for_two_and_trainings_on_other_devices(tmp_path: Path) -> None:
    first = make_turn(tmp_path / "q", "a", "cuda:0")
    second = make_turn(tmp_path / "q", "b", "cuda:0", "cuda:1")
    third = make_turn(tmp_path / "q", "c", "cuda:1")
    assert first.find_obstacle(1) is None
    assert second.find_obstacle(1) == ("cuda:0", (Holder("a", "ws-a", os.getpid(), ("cuda:0",)),))
    assert names(third.find_obstacle(1)) == ["b"]
    assert third.find_obstacle(2) is None
    assert make_turn(tmp_path / "q", "d", "cpu").find_obstacle(1) is None


@pytest.mark.parametrize("keeps", ["nobody", "worker"])
def test_a_killed_runner_gives_its_place_up_unless_its_worker_lives(
    tmp_path: Path, keeps: str
) -> None:
    runner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "q"), keeps],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert runner.stdout is not None
    child = int(runner.stdout.readline())
    mine = make_turn(tmp_path / "q", "mine")
    assert names(mine.find_obstacle(1)) == ["run-held"]
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    if child:
        assert names(mine.find_obstacle(1)) == ["run-held"], "its worker trains on"
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: mine.find_obstacle(1) is None, "the kernel to drop the lock")
    assert mine.find_obstacle(1) is None


def test_only_a_folder_of_our_own_is_trusted(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    with pytest.raises(InputError, match="cannot hold the queue") as e:
        make_turn(open_to_all, "a")
    assert e.value.fix == f"chmod 700 {open_to_all}"
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="cannot hold the queue"):
        make_turn(tmp_path / "link", "a")
    assert find_folder({"GTFT_RUNTIME_DIR": "/x/y"}) == Path("/x/y")
    assert find_folder({"XDG_RUNTIME_DIR": "/x", "TMPDIR": "/y"}) == find_folder({})


@pytest.mark.parametrize(
    ("shown", "count", "expected"),
    [
        (None, 1, ("cuda:0",)),
        (None, 2, ("cuda:0", "cuda:1")),
        ("", 1, ("cpu",)),
        ("-1", 1, ("cpu",)),
        ("1", 1, ("cuda:1",)),
        ("1,0", 2, ("cuda:1", "cuda:0")),
        ("GPU-bb", 1, ("cuda:1",)),
        ("0,7,1", 3, ("cuda:0",)),
    ],
)
def test_the_device_is_what_cuda_would_use(
    tmp_path: Path, shown: str | None, count: int, expected: tuple[str, ...]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aaaa'\necho '1, GPU-bbbb'\n")
    tool.chmod(0o755)
    environ = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    if shown is not None:
        environ["CUDA_VISIBLE_DEVICES"] = shown
    assert find_devices(environ, count) == expected
    tool.unlink()
    environ["PATH"] = str(tmp_path)
    assert find_devices(environ, count) == ("cpu",)


def test_places_in_words() -> None:
    assert [say_place(n) for n in (1, 2, 3, 4, 11, 12, 21)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "21st",
    ]  # fmt: skip


# -- memory


def test_room_before_a_start_and_after_giving_way() -> None:
    assert count_room(0, 512 * MB) == LEAST_MEMORY
    assert count_room(3 * GIB, 512 * MB) == 3 * GIB + 512 * MB
    assert count_room(0, 4 * GIB) == 4 * GIB
    # What it freed itself does not bring it back.
    used, free = 6 * GIB, 300 * MB
    assert count_room_again(LEAST_MEMORY, 512 * MB, used) > used + free
    assert count_room_again(9 * GIB, 512 * MB, GIB) == 9 * GIB


def test_pressure_is_little_memory_or_a_box_that_stands_still(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    assert read_stall(path) == 0.0
    path.write_text(
        "some avg10=60.00 avg60=0.00 avg300=0.00 total=1\n"
        "full avg10=41.50 avg60=0.00 avg300=0.00 total=1\n"
    )
    assert read_stall(path) == pytest.approx(0.415)
    assert is_low(Reading(511 * MB, TOTAL), 512 * MB)
    assert not is_low(Reading(512 * MB, TOTAL), 512 * MB)
    assert is_low(Reading(PLENTY, TOTAL, stalled=read_stall(path)), 512 * MB)
    assert not is_low(Reading(0, TOTAL, stalled=0.9), 0), "nothing is reserved"


# -- a training under way


class Desk:
    """A training of a workspace of its own, carried out in a thread; everything it says is kept."""

    def __init__(self, folder: Path, name: str, free: Path) -> None:
        self.ws: Workspace
        self.run: Run
        self.ws, self.run = make_training(folder, name)
        self.terms: Terms = make_terms(self.ws, self.run, os.environ, free)
        self.heard: list[Event] = []
        self.outcome: Outcome | None = None
        self._thread: threading.Thread | None = None

    def listen(self, _row: StageRow, event: Event) -> None:
        self.heard.append(event)

    def start(self) -> None:
        def go() -> None:
            self.outcome = train(self.ws, self.run, self.terms, self.listen)

        self._thread = threading.Thread(target=go, daemon=True)
        self._thread.start()

    def finish(self) -> Outcome:
        assert self._thread is not None
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.outcome is not None
        return self.outcome

    def warned(self, code: str) -> list[str]:
        return [e.text for e in self.heard if isinstance(e, Warned) and e.code == code]

    def waiting(self) -> Waiting | None:
        return read_waiting(self.ws.job_dir(self.run.id, "train"))

    def kinds(self) -> list[str]:
        return [e.kind for e in self.ws.store.list_events(self.run.id)]

    def has_stepped(self) -> bool:
        return bool(read_steps(self.ws, self.run))


@pytest.fixture
def free(tmp_path: Path) -> Path:
    """The file that says how many bytes are free."""
    path = tmp_path / "free"
    set_free(path, PLENTY)
    return path


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_worker(tmp_path / "worker")
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def test_a_second_training_waits_behind_the_first_and_says_so(
    tmp_path: Path, worker: Path, free: Path
) -> None:
    first, second = Desk(tmp_path, "one", free), Desk(tmp_path, "two", free)
    first.start()
    wait_until(first.has_stepped, "the first to train")
    second.start()
    wait_until(second.waiting, "the second to say that it waits")
    waiting = second.waiting()
    assert waiting is not None
    text = f"2nd for cpu, behind {first.run.id} (workspace {first.ws.path})"
    assert (waiting.why, waiting.text, waiting.position, waiting.device) == (
        "queue",
        text,
        2,
        "cpu",
    )
    assert waiting.behind == (first.run.id,)
    view = view_run(second.ws, second.run)
    assert (view.state, view.waits_for) == ("active (train waits)", f"queue: {text}")
    assert json.loads(json.dumps(view.as_dict()))["stages"][1]["waiting"]["position"] == 2
    assert not second.has_stepped()
    assert first.finish().state == second.finish().state == "done"
    assert second.warned("queue") == [text, "its turn has come"]
    assert f"queue: {text}" in [describe(e) for e in second.heard]
    assert second.waiting() is None
    assert second.kinds().count("waits") == 1
    assert not (worker.parent / "twice").exists()


@pytest.mark.parametrize("asked", ["pause", "cancel"])
def test_pause_and_cancel_reach_a_training_that_waits(
    tmp_path: Path, worker: Path, free: Path, asked: str
) -> None:
    first, second = Desk(tmp_path, "one", free), Desk(tmp_path, "two", free)
    with make_turn(first.terms.queue, "long"):
        second.start()
        wait_until(second.waiting, "the second to wait")
        if asked == "pause":
            pause(second.ws, second.run, "me")
        else:
            cancel(second.ws, second.run, "me", "no longer wanted")
        assert second.finish().state == ("paused" if asked == "pause" else "cancelled")
        assert second.waiting() is None
        row = second.ws.store.find_stage(second.run.id, "train")
        assert row.reason_text == ("it waited: queue" if asked == "pause" else "no longer wanted")
        assert [h.run for h in list_holders(first.terms.queue)] == ["long"], "its place is free"
    if asked == "pause":
        resume(second.ws, get_run(second.ws, second.run.id), "me")
        second.start()
        assert second.finish().state == "done"


def test_it_waits_for_memory_names_who_holds_it_and_says_what_to_do(
    tmp_path: Path, worker: Path, free: Path
) -> None:
    desk = Desk(tmp_path, "one", free)
    desk.terms = replace(desk.terms, planned=3 * GIB, advise_seconds=0.2)
    set_free(free, 3 * GIB)
    desk.start()
    wait_until(lambda: desk.warned("waits-long"), "advice")
    assert not desk.has_stepped()
    said = desk.warned("memory")[0]
    assert said.startswith("3.0 GiB free, 3.5 GiB needed; waits (")
    assert "(pid " in said
    assert "max_length" in desk.warned("waits-long")[0]
    assert view_run(desk.ws, desk.run).waits_for == "memory: 3.0 GiB free, 3.5 GiB needed; waits"
    set_free(free, 4 * GIB)
    assert desk.finish().state == "done"
    assert len(desk.warned("memory")) == 2
    assert len(desk.warned("waits-long")) == 1
    mails = [json.loads(line)["subject"] for line in desk.ws.mail_log.read_text().splitlines()]
    assert [m for m in mails if "waits for memory" in m], "nobody else may notice"


def test_what_never_fits_fails_at_once(tmp_path: Path, worker: Path, free: Path) -> None:
    desk = Desk(tmp_path, "one", free)
    desk.terms = replace(desk.terms, planned=TOTAL)
    desk.start()
    outcome = desk.finish()
    assert (outcome.state, outcome.stage.reason) == ("failed", "failed")
    assert isinstance(outcome.error, TrainingError)
    assert "all that there is here is 64.0 GiB" in outcome.error.why


def test_it_gives_way_waits_and_goes_on_by_itself(tmp_path: Path, worker: Path, free: Path) -> None:
    desk = Desk(tmp_path, "one", free)
    desk.start()
    wait_until(desk.has_stepped, "a step")
    set_free(free, 310 * MB)
    wait_until(lambda: "paused" in {e.event for e in desk.heard}, "its worker to save and stop")
    stage = desk.ws.store.find_stage(desk.run.id, "train")
    assert (stage.state, stage.reason) == ("active", None)
    wait_until(lambda: "needed; waits" in str(desk.waiting()), "the wait")
    # What it left behind is not room: it would only come back to where it gave way.
    set_free(free, 1 * GIB)
    waits_for = view_run(desk.ws, desk.run).waits_for
    assert waits_for.startswith("yielded: "), waits_for
    told = list(desk.heard)
    assert "resumed" not in {e.code for e in told if isinstance(e, Warned)}
    set_free(free, PLENTY)
    assert desk.finish().state == "done"
    assert len(desk.warned("yielded")) == len(desk.warned("resumed")) == 1
    assert desk.warned("yielded")[0].startswith("310.0 MiB free, 512.0 MiB reserved")
    assert (desk.kinds().count("yielded"), desk.kinds().count("went-on")) == (1, 1)
    steps = read_steps(desk.ws, desk.run)
    assert steps == list(range(1, STEPS + 1)), "no step was done twice, none was left out"


def test_giving_way_without_getting_on_ends(
    tmp_path: Path, free: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it starts memory runs out before a step is saved."""
    path = write_worker(tmp_path / "worker", steps=10_000, forgets=True)
    monkeypatch.setattr(sys, "executable", str(path))
    desk = Desk(tmp_path, "one", free)

    def listen(_row: StageRow, event: Event) -> None:
        desk.heard.append(event)
        # Low while a worker works, plenty while none does.
        set_free(free, 0 if event.event == "progress" else PLENTY)

    outcome = train(desk.ws, desk.run, desk.terms, listen)
    assert outcome is not None
    assert (outcome.state, outcome.stage.reason) == ("failed", "failed")
    assert outcome.error is not None
    assert "gave way to others 3 times in a row without a new step" in outcome.error.what
    assert len(desk.warned("yielded")) == 3
    assert desk.waiting() is None
