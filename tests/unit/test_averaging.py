"""The seam between a training and its averager: when it meets, what it takes over, when it gives up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gtft.errors import TrainingError
from gtft.training.averaging import (
    COMPANION,
    FAILURES_IN_A_ROW,
    Adopted,
    Averaged,
    Averager,
    Averaging,
    Failed,
    Forked,
    LocalAverager,
)
from gtft.training.watch import StopRequested
from training_case import Recorder


class Script(LocalAverager):
    """An averager whose answers are written down; it remembers what it was asked."""

    def __init__(self, *answers: object, rounds: int = 3, every: int = 4) -> None:
        self.rounds = rounds
        self.every = every
        self.answers = list(answers)
        self.asked: list[tuple[int, int]] = []
        self.pulled: list[int] = []
        self.first: Adopted | None = None
        self.called = False
        self.left = False
        self.given: object = None

    def begin(self, names: Sequence[str], tensors: Any, companion: Any) -> Adopted | None:
        self.given = companion
        return self.first

    def due(self) -> bool:
        return self.called

    def average(self, tensors: Any, weight: int, round: int) -> Averaged | Failed | Forked:
        self.asked.append((round, weight))
        answer = self.answers.pop(0)
        if answer == "ok":
            made = tuple(torch.full_like(t, float(round)) for t in tensors)
            return Averaged(made, ("ada", "bob"), 16, "l", 0.1)
        assert isinstance(answer, Failed | Forked)
        return answer

    def pull_state(self, min_round: int) -> Adopted | None:
        self.pulled.append(min_round)
        return adopt(min_round)

    def finish(self) -> Adopted:
        return adopt(99)

    def leaving(self) -> bool:
        return self.left

    def companion(self) -> dict[str, Any]:
        return {"round": 0}


def adopt(number: int) -> Adopted:
    tensors = (torch.full((1, 2), float(number)), torch.full((1,), float(number)))
    return Adopted(tensors, number, 8, "l", "some donor")


class Run:
    """A training of so many steps, as the callback sees it."""

    def __init__(self, averager: Averager, tmp_path: Path, max_steps: int = 100) -> None:
        self.model = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda s: 1 / (1 + s))
        self.watch = Recorder()
        self.callback = Averaging(averager, self.watch, 8)
        self.state = SimpleNamespace(global_step=0, max_steps=max_steps)
        self.control = SimpleNamespace(should_training_stop=False)
        self.args = SimpleNamespace(output_dir=str(tmp_path))

    def tell(self, event: str) -> None:
        getattr(self.callback, event)(
            self.args, self.state, self.control, model=self.model, lr_scheduler=self.scheduler
        )

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.state.global_step += 1
            self.tell("on_step_end")

    @property
    def weights(self) -> float:
        return float(self.model.weight.detach().flatten()[0])


def test_alone_nothing_changes_and_nothing_is_kept(tmp_path: Path) -> None:
    run = Run(LocalAverager(), tmp_path, max_steps=3)
    before = run.weights
    for event in ("on_train_begin", "on_save"):
        run.tell(event)
    run.step(3)
    run.tell("on_train_end")
    assert run.weights == before
    assert not run.control.should_training_stop
    assert list(tmp_path.iterdir()) == []


def test_meets_every_so_many_updates_with_the_rows_since_the_last_time(tmp_path: Path) -> None:
    averager = Script("ok", "ok", "ok")
    run = Run(averager, tmp_path)
    run.tell("on_train_begin")
    run.step(3)
    assert averager.asked == []
    run.step()
    assert averager.asked == [(1, 32)]
    assert run.weights == 1.0
    run.step(8)
    assert averager.asked == [(1, 32), (2, 32), (3, 32)]
    assert run.control.should_training_stop
    run.tell("on_train_end")
    assert run.weights == 99.0


def test_is_called_early_by_a_peer_that_waits(tmp_path: Path) -> None:
    averager = Script("ok")
    averager.called = True
    run = Run(averager, tmp_path)
    run.tell("on_train_begin")
    run.step()
    assert averager.asked == [(1, 8)]


def test_a_failed_round_trains_on_and_its_rows_count_next_time(tmp_path: Path) -> None:
    averager = Script(Failed("no group"), "ok")
    run = Run(averager, tmp_path)
    run.tell("on_train_begin")
    before = run.weights
    run.step(4)
    assert run.weights == before
    assert ("swarm-round", "round 1 at step 4: no group") in run.watch.warnings
    run.step(4)
    assert averager.asked == [(1, 32), (1, 64)]
    assert run.weights == 1.0


@pytest.mark.parametrize(
    ("outcome", "floor"),
    [
        (Failed("the swarm is at round 5 already", behind=True), 2),
        (Forked(("ada",), "a fork", pull=True), 1),
    ],
)
def test_who_is_behind_or_gives_way_takes_over_anothers_state(
    outcome: object, floor: int, tmp_path: Path
) -> None:
    averager = Script("ok", outcome, rounds=9)
    run = Run(averager, tmp_path)
    run.tell("on_train_begin")
    run.step(8)
    assert averager.pulled == [floor]
    assert run.weights == float(floor)


def test_the_other_side_of_a_fork_keeps_its_weights(tmp_path: Path) -> None:
    averager = Script(Forked(("bob",), "a fork", pull=False), "ok")
    run = Run(averager, tmp_path)
    run.tell("on_train_begin")
    run.step(8)
    assert averager.pulled == []
    assert averager.asked == [(1, 32), (1, 64)]


def test_too_many_failures_end_the_run_with_the_last_reason(tmp_path: Path) -> None:
    averager = Script("ok", *[Failed("nobody there")] * FAILURES_IN_A_ROW, rounds=9)
    run = Run(averager, tmp_path)
    run.tell("on_train_begin")
    with pytest.raises(TrainingError, match="lost its swarm") as failed:
        run.step(100)
    assert "nobody there" in failed.value.why
    assert run.state.global_step == 4 * (1 + FAILURES_IN_A_ROW)


def test_a_success_forgives_failures(tmp_path: Path) -> None:
    few = [Failed("late")] * (FAILURES_IN_A_ROW - 1)
    averager = Script("ok", *few, "ok", *few, "ok")
    run = Run(averager, tmp_path)
    run.tell("on_train_begin")
    run.step(4 * len(averager.answers))
    assert run.control.should_training_stop


def test_out_of_steps_it_meets_until_the_last_round(tmp_path: Path) -> None:
    averager = Script("ok", Failed("late"), "ok", "ok")
    run = Run(averager, tmp_path, max_steps=4)
    run.tell("on_train_begin")
    run.step(4)
    assert [number for number, _ in averager.asked] == [1, 2, 2, 3]
    assert run.control.should_training_stop


def test_a_joiner_starts_from_the_swarms_weights_and_learning_rate(tmp_path: Path) -> None:
    averager = Script("ok", rounds=9)
    averager.first = adopt(2)
    run = Run(averager, tmp_path)
    run.tell("on_train_begin")
    assert run.weights == 2.0
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(1 / (1 + 2 * 4))
    run.step(4)
    assert averager.asked == [(3, 32)]


def test_leaving_takes_effect_after_a_round(tmp_path: Path) -> None:
    averager = Script("ok")
    averager.left = True
    run = Run(averager, tmp_path)
    run.tell("on_train_begin")
    run.step(4)
    # Saved before it goes: what it trained since the last checkpoint is kept.
    assert run.control.should_save
    assert run.control.should_training_stop
    with pytest.raises(StopRequested, match="left the swarm after round 1"):
        run.tell("on_train_end")


def test_a_stop_at_the_last_update_is_no_end_of_the_swarm(tmp_path: Path) -> None:
    """The fast peer waits there for the slow one: it pauses, and goes on waiting when it is resumed."""
    averager = Script("ok", "ok", "ok", rounds=3, every=4)
    run = Run(averager, tmp_path, max_steps=4)
    run.tell("on_train_begin")
    run.step(3)
    run.watch.stop_at = 0
    run.step()
    with pytest.raises(StopRequested, match="stopped in round 1 of 3"):
        run.tell("on_train_end")
    resumed = Run(averager, tmp_path, max_steps=4)
    resumed.state.global_step = 4
    resumed.tell("on_train_begin")
    resumed.tell("on_train_end")
    assert [number for number, _ in averager.asked] == [1, 2, 3]
    assert resumed.weights == 99.0


def test_magnitudes_are_hashed_under_the_name_that_peft_saves() -> None:
    from gtft.swarm.tensors import hash_tensors
    from gtft.training.swarm.layout import Layout

    vector = torch.tensor([1.0, 2.0, 3.0])
    names = ("m.lora_A.default.weight", "m.lora_magnitude_vector.default.weight")
    layout = Layout(names, (vector[:2], vector[2:]))
    saved = [
        ("m.lora_A.weight", "F32", (2,), vector[:2].numpy().data),
        ("m.lora_magnitude_vector", "F32", (1,), vector[2:].numpy().data),
    ]
    assert layout.hash(vector) == hash_tensors(saved)


def test_a_checkpoint_keeps_where_the_peer_stood(tmp_path: Path) -> None:
    run = Run(Script("ok"), tmp_path)
    run.tell("on_train_begin")
    run.step()
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    run.tell("on_save")
    assert json.loads((folder / COMPANION).read_text()) == {"round": 0}
    averager = Script("ok")
    again = Run(averager, tmp_path)
    again.callback.restore(folder)
    again.tell("on_train_begin")
    assert averager.given == {"round": 0}
