"""What a training says on its bead: a few comments, each once."""

import json
from dataclasses import replace
from typing import Any

import pytest

from gtft.contract import Checkpoint, Event, Metric, Progress
from gtft.errors import TownError
from gtft.runner.lease import Claim
from gtft.runner.milestones import Milestones, say_trained, tell_milestones
from gtft.runner.outbox import deliver
from gtft.runner.planned import Planned, record_plan
from gtft.runner.workspace import Workspace
from run_case import add_run, claim_of, finish_stage, write_peak

STEPS = 40


@pytest.fixture
def claim(ws: Workspace) -> Claim:
    add_run(ws)
    finish_stage(ws, claim_of(ws, "run-1"))
    return claim_of(ws, "run-1")


def make_events(minutes: float) -> list[Event]:
    """A whole training that takes so long."""
    events: list[Event] = [Progress(done=0, total=None, unit="steps", note="loading nano")]
    for n in range(1, STEPS + 1):
        left = minutes * 60 * (STEPS - n) / STEPS
        events.append(Metric(step=n, name="loss", value=2.0))
        events.append(Progress(done=n, total=STEPS, unit="steps", eta_s=left, note="loss 2.000"))
        if n % 10 == 0:
            # A word without figures must not hide what is left.
            events.append(Progress(done=n, total=STEPS, unit="steps", note="loss 2.000"))
            events.append(Checkpoint(path="x", step=n))
    return events


def read_notes(ws: Workspace, claim: Claim) -> list[str]:
    deliver(ws)
    return list(ws.ledger.show(claim.stage.bead_id or "").notes)


def test_a_long_training_says_three_things(ws: Workspace, claim: Claim) -> None:
    heard: list[Event] = []
    listen = tell_milestones(ws, claim, lambda _row, event: heard.append(event))
    record_plan(ws, "run-1", None, Planned(seconds=6300, memory=2 * 1024**3), "me")
    for event in make_events(minutes=100):
        listen(claim.stage, event)
    assert heard == make_events(minutes=100)
    assert read_notes(ws, claim) == [
        "training has begun: 40 steps; planned: 1.8 h, 2.0 GiB of memory",
        "first checkpoint, at step 10; from here on a stop loses little. "
        "step 10 of 40, loss 2.000, about 75 min left",
        "half-way: step 20 of 40, loss 2.000, about 50 min left",
    ]


def test_a_short_training_only_says_that_it_has_begun(ws: Workspace, claim: Claim) -> None:
    milestones = Milestones(ws, claim)
    for event in make_events(minutes=2):
        milestones.hear(event)
    assert read_notes(ws, claim) == ["training has begun: 40 steps"]


@pytest.mark.parametrize("killed_after", [1, 15, 30, 61])
def test_each_is_said_once_whoever_is_killed(
    ws: Workspace, claim: Claim, killed_after: int
) -> None:
    """The next runner reads the attempt's events from their beginning."""
    first = Milestones(ws, claim)
    for event in make_events(minutes=100)[:killed_after]:
        first.hear(event)
    if killed_after % 2:
        deliver(ws)
    second = Milestones(ws, claim)
    # Of another pace: the words would differ.
    for event in make_events(minutes=300):
        second.hear(event)
    notes = read_notes(ws, claim)
    assert [n.split()[0] for n in notes] == ["training", "first", "half-way:"]
    kinds = [e.kind for e in ws.store.list_events("run-1") if e.stage == "train"]
    assert kinds == ["claimed", "training-begun", "first-checkpoint", "half-way"]


def test_a_town_that_is_away_is_told_later(ws: Workspace, claim: Claim) -> None:
    class Away:
        tries = 0

        def add_event(self, *args: Any, **more: Any) -> None:
            Away.tries += 1
            if Away.tries <= 3:
                raise TownError("the Dolt server does not answer")
            ws.store.add_event(*args, **more)

        def __getattr__(self, name: str) -> Any:
            return getattr(ws.store, name)

    milestones = Milestones(ws, claim)
    milestones._ws = replace(ws, store=Away())  # type: ignore[arg-type]
    for event in make_events(minutes=2):
        milestones.hear(event)
    assert read_notes(ws, claim) == ["training has begun: 40 steps"]


def test_the_evidence_names_the_figures(ws: Workspace, claim: Claim) -> None:
    job_dir = ws.job_dir("run-1", "train")
    assert say_trained(job_dir) == ""
    job_dir.mkdir(parents=True)
    run = ws.store.find_run("run-1")
    assert run is not None
    write_peak(ws, run, 2 * 1024**3)
    with (job_dir / "metrics.jsonl").open("a") as f:
        for step, loss in ((1, 3.0), (40, 2.0)):
            f.write(json.dumps({"step": step, "name": "loss", "value": loss}) + "\n")
        f.write(json.dumps({"step": 40, "name": "train_seconds", "value": 720.0}) + "\n")
    assert say_trained(job_dir) == (
        "40 steps, loss 3.000 to 2.000, 2.0 GiB of memory at most, 12 min"
    )
