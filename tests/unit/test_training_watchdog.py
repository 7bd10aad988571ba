"""A training that is far off its plan says so once, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import training_case
from gtft.training.watchdog import Circumstances, Pace, Watchdog, read_pace

QUIET = Circumstances(load=0.5, cores=2, stalled=0.0, swapped=0, worked=0.0)
PACE = Pace(step_seconds=10.0, step_tokens=1000.0, memory=1_000_000_000)


class Run:
    """A training whose clock, tokens and memory the test moves."""

    def __init__(self, pace: Pace | None = PACE, now: Circumstances = QUIET) -> None:
        self.clock = 0.0
        self.memory = 0
        self.now = now
        self.watch = training_case.Recorder()
        self.dog = Watchdog(
            pace, self.watch, lambda: self.clock, lambda: self.memory, lambda: self.now
        )
        self.dog.trainer = SimpleNamespace(tokens_seen=0)
        self.state: Any = SimpleNamespace(global_step=0, max_steps=100, is_world_process_zero=True)
        self.dog.on_train_begin(None, self.state, None)

    def step(self, seconds: float, tokens: int = 1000, times: int = 1) -> None:
        for _ in range(times):
            self.clock += seconds
            self.dog.trainer.tokens_seen += tokens
            # All of it in the processor.
            self.now = replace(self.now, worked=self.now.worked + seconds)
            self.state.global_step += 1
            self.dog.on_step_end(None, self.state, None)

    @property
    def codes(self) -> list[str]:
        return [code for code, _ in self.watch.warnings]


def test_on_time_it_says_nothing() -> None:
    run = Run()
    run.step(15.0, times=20)
    assert run.codes == []


def test_twice_and_ten_times_are_told_once_each() -> None:
    run = Run()
    run.step(25.0, times=10)
    assert run.codes == ["slower-than-planned"]
    assert "2.5 times" in run.watch.warnings[0][1]
    run.step(500.0, times=10)
    assert run.codes == ["slower-than-planned", "much-slower-than-planned"]
    at_once = Run()
    at_once.step(200.0, times=10)
    assert at_once.codes == ["much-slower-than-planned"]


def test_the_first_steps_do_not_count_by_themselves() -> None:
    run = Run()
    run.step(200.0, times=2)
    assert run.codes == []


@pytest.mark.parametrize(
    ("changes", "tokens", "words"),
    [
        ({"load": 9.0}, 1000, "others compute on this box (load 9.0 on 2 cores)"),
        ({"swapped": 300_000_000}, 1000, "short of memory (300 MB swapped"),
        ({"stalled": 0.4}, 1000, "waiting 40% of the time"),
        ({}, 4000, "rows are longer than planned (4000 tokens a step, 1000 planned)"),
        ({}, 1000, "this device is slower"),
    ],
)
def test_the_likely_cause_is_named(changes: dict[str, Any], tokens: int, words: str) -> None:
    run = Run(now=replace(QUIET, **changes))
    run.step(40.0, tokens=tokens, times=3)
    assert words in run.watch.warnings[0][1]


def test_a_process_that_stood_still_is_not_called_slow() -> None:
    run = Run()
    run.step(1.0, times=2)
    run.clock += 500
    run.step(1.0)
    assert "stood still" in run.watch.warnings[0][1]


def test_memory_above_the_plan_is_told_once() -> None:
    run = Run()
    run.memory = 1_500_000_000
    run.step(1.0, times=5)
    assert run.codes == ["memory-above-plan"]
    assert "1.50 GB are held, 1.00 GB were planned" in run.watch.warnings[0][1]


def test_without_a_plan_it_says_nothing() -> None:
    run = Run(pace=None)
    run.memory = 10**12
    run.step(1000.0, times=10)
    assert run.codes == []


def test_a_resumed_training_does_not_tell_it_again(tmp_path: Path) -> None:
    first = Run()
    first.step(25.0, times=5)
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    first.dog.on_save(SimpleNamespace(output_dir=str(tmp_path)), first.state, None)
    second = Run()
    second.dog.restore(folder)
    second.step(25.0, times=5)
    assert second.codes == []
    # A checkpoint of before there was a watchdog.
    second.dog.restore(tmp_path)
    second.step(25.0)
    assert second.codes == ["slower-than-planned"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"updates": 0, "pace": 0, "tokens": 1, "memory": 1}']
)
def test_a_plan_that_says_nothing_of_the_pace_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    assert read_pace(path) is None
    assert read_pace(tmp_path / "none") is None


def test_the_pace_is_read_from_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"updates": 10, "tokens": 5000, "pace": 1500, "memory": 7}))
    assert read_pace(path) == Pace(1.5, 500.0, 7)
