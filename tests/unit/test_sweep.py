"""The sweep: each thing it does, when it does not, and that a dry run does none of them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gtft.contract import LOCK_FILE, STAGES
from gtft.records.rows import Run
from gtft.runner.box import Box
from gtft.runner.control import pause
from gtft.runner.lease import Claim
from gtft.runner.moves import hold
from gtft.runner.outbox import deliver
from gtft.runner.sweep import ACTOR, MOST_RESUMES, Action, lock_sweep, sweep
from gtft.runner.workspace import Home, Workspace, open_workspace
from gtft.town.locate import Rig, Town
from run_case import bring_to_review, carry_on, claim_of, find_run, make_run

GIB = 1024**3
DAY = 86_400.0
ROOMY = Box(2, 0.1, 8 * GIB, 6 * GIB, None, None, 50 * GIB, ())
FULL = dataclasses.replace(ROOMY, available=1 * GIB)
RETRAIN = "[gtft.retrain]\nenabled = true\nmin_new_sessions = 3\nmax_age_days = 30"


class Started:
    """Notes what would be started: a runner of its own would train."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def __call__(self, ws: Workspace, run_id: str, actor: str) -> int:
        assert actor == ACTOR
        self.runs.append(run_id)
        return 4711


@pytest.fixture
def started() -> Started:
    return Started()


@pytest.fixture
def ws(tmp_path: Path, clock: list[float]) -> Workspace:
    """A workspace on the test's clock."""
    return open_workspace(tmp_path / "ws", now=lambda: clock[0])


def tell(actions: list[Action]) -> list[tuple[str, str]]:
    return [(a.what, a.run) for a in actions]


def claim(ws: Workspace, run: Run) -> Claim:
    """As a runner claims; it has told the feed."""
    found = claim_of(ws, run.id)
    deliver(ws)
    return found


def list_mail(ws: Workspace) -> list[str]:
    if not ws.mail_log.exists():
        return []
    return [json.loads(line)["subject"] for line in ws.mail_log.read_text().splitlines()]


def snapshot(ws: Workspace) -> object:
    runs = ws.store.list_runs()
    events = {r.id: ws.store.list_events(r.id) for r in runs}
    return runs, events, ws.store.list_stages(), ws.store.list_messages(pending=True)


def close_beads(ws: Workspace, when: float, *beads: str) -> None:
    """What the hook leaves when a bead closes."""
    (ws.path / "queue").mkdir(exist_ok=True)
    for bead in beads:
        path = ws.path / "queue" / f"{bead}.json"
        path.write_text("{}\n")
        os.utime(path, (when, when))


# -- orphans


def test_one_orphan_is_resumed_and_the_next_waits(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    runs = [make_run(ws, tmp_path) for _ in range(3)]
    for run in runs[:2]:
        claim(ws, run)
    # A living runner, and a run that nobody began, are left alone.
    assert sweep(ws, ROOMY, started) == []
    clock[0] += ws.config.lease_seconds + 1
    actions = sweep(ws, ROOMY, started)
    assert sorted(a.what for a in actions) == ["resumed", "waits"]
    assert len(started.runs) == 1
    assert {a.run for a in actions} == {r.id for r in runs[:2]}
    events = ws.store.list_events(started.runs[0])
    assert (events[-1].kind, events[-1].actor) == ("resumed", ACTOR)
    assert "4711" in events[-1].text


def test_a_runner_that_never_gets_on_is_not_started_for_ever(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    run = make_run(ws, tmp_path)
    claim(ws, run)
    clock[0] += ws.config.lease_seconds + 1
    assert [a.what for a in sweep(ws, ROOMY, started)] == ["resumed"]
    # It may not have claimed yet.
    (action,) = sweep(ws, ROOMY, started)
    assert "was started 0 s ago" in action.text
    for _ in range(9):
        clock[0] += ws.config.lease_seconds + 1
        (action,) = sweep(ws, ROOMY, started)
    assert started.runs == [run.id] * MOST_RESUMES
    assert f"gtft runs logs {run.id}" in action.text


def test_a_run_that_was_left_between_two_stages_is_resumed(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    run = make_run(ws, tmp_path)
    carry_on(ws, run, "harvest")
    # Its runner may be about to claim the next stage.
    assert sweep(ws, ROOMY, started) == []
    clock[0] += ws.config.lease_seconds + 1
    assert tell(sweep(ws, ROOMY, started)) == [("resumed", run.id)]


def test_a_paused_run_is_not_resumed(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    run = make_run(ws, tmp_path)
    carry_on(ws, run, "harvest")
    pause(ws, run, "mayor")
    clock[0] += ws.config.lease_seconds + 1
    assert sweep(ws, ROOMY, started) == []


def test_without_memory_nothing_is_started_but_a_living_worker_is_followed(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    run = make_run(ws, tmp_path)
    claim(ws, run)
    clock[0] += ws.config.lease_seconds + 1
    (action,) = sweep(ws, FULL, started)
    assert (action.what, started.runs) == ("waits", [])
    assert "1.0 GiB of memory free" in action.text
    lock = ws.job_dir(run.id, "harvest") / LOCK_FILE
    lock.parent.mkdir(parents=True)
    hold_lock = "import fcntl,sys,time;f=open(sys.argv[1],'a');fcntl.flock(f,fcntl.LOCK_EX);print(1,flush=True);time.sleep(60)"
    worker = subprocess.Popen(
        [sys.executable, "-c", hold_lock, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None and worker.stdout.readline() == "1\n"
    try:
        (action,) = sweep(ws, FULL, started)
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
    assert (action.what, started.runs) == ("resumed", [run.id])
    assert "its worker lives" in action.text


# -- stale


def test_a_review_that_waits_too_long_is_told_once_a_day(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    run = make_run(ws, tmp_path)
    carry_on(ws, run, "harvest", "train")
    bring_to_review(ws, run, "eval")
    clock[0] += (ws.config.stale_days - 0.1) * DAY
    assert sweep(ws, ROOMY, started) == []
    before = len(list_mail(ws))
    clock[0] += 0.2 * DAY
    assert tell(sweep(ws, ROOMY, started)) == [("reminded", run.id)]
    assert sweep(ws, ROOMY, started)[0].what == "delivered"
    assert sweep(ws, ROOMY, started) == []
    (mail,) = list_mail(ws)[before:]
    assert mail.startswith("GTFT_REVIEW: eval waits since 14 days")
    clock[0] += 1.1 * DAY
    assert "reminded" in {a.what for a in sweep(ws, ROOMY, started)}


def test_what_was_held_too_long_gives_way_to_a_newer_model(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    old = make_run(ws, tmp_path)
    hold(ws, claim(ws, old), "failed", "no room")
    clock[0] += 15 * DAY
    assert tell(sweep(ws, ROOMY, started)) == [("reminded", old.id)]
    new = make_run(ws, tmp_path)
    carry_on(ws, new, *STAGES)
    actions = [a for a in sweep(ws, ROOMY, started) if a.what != "delivered"]
    assert tell(actions) == [("superseded", old.id)]
    stages = ws.store.list_stages(old.id)
    assert {(s.state, s.reason) for s in stages} == {("done", "superseded")}
    bead = ws.ledger.show(stages[0].bead_id or "")
    assert bead.status == "closed"
    assert new.id in (bead.close_reason or "")


def test_a_quiet_recipe_is_not_reminded_of_what_it_left(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    make_run(ws, tmp_path, '[gtft.notify]\nverbosity = "quiet"')
    clock[0] += 15 * DAY
    assert sweep(ws, ROOMY, started) == []


# -- retraining


def finish_one(ws: Workspace, tmp_path: Path, *tables: str) -> Run:
    run = make_run(ws, tmp_path, *tables)
    carry_on(ws, run, *STAGES)
    return find_run(ws, run.id)


def test_enough_closed_beads_dispatch_the_same_recipe_within_the_budget(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    close_beads(ws, clock[0] - 10, "gz-a", "gz-b", "gz-c", "gz-d")
    run = finish_one(ws, tmp_path, RETRAIN, '[gtft.card]\ncontact = "me"')
    own = ws.store.list_stages(run.id)[0].bead_id or ""
    close_beads(ws, clock[0] + 5, "gz-e", "gz-f", own)
    clock[0] += DAY
    in_town = move_to_town(ws, tmp_path)
    assert retrain(in_town, started) == []
    close_beads(ws, clock[0], "gz-g")
    (action,) = retrain(in_town, started)
    assert action.text == f"retrain: 3 beads closed since the harvest of {run.id}"
    made = find_run(ws, action.run)
    assert (made.recipe_hash, made.recipe) == (run.recipe_hash, run.recipe)
    assert made.actor == ACTOR
    assert ws.store.list_events(made.id)[-1].text == f"{action.text} ({run.id})"
    # While it is unfinished, nothing; when it is done too, the budget of the week is spent.
    close_beads(ws, clock[0] + 1, "gz-h", "gz-i", "gz-j")
    assert retrain(in_town, started) == []
    clock[0] += 5
    carry_on(ws, made, *STAGES)
    close_beads(ws, clock[0] + 1, "gz-h", "gz-i", "gz-j")
    (action,) = retrain(in_town, started)
    assert action.what == "waits"
    assert "budget of 1 in 7 days" in action.text
    clock[0] += 8 * DAY
    assert [a.what for a in retrain(in_town, started)] == ["retrained"]
    assert started.runs == []


def test_beads_of_other_rigs_do_not_call_for_it(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    finish_one(ws, tmp_path, RETRAIN)
    close_beads(ws, clock[0] + 5, "ft-x", "gz-a", "gz-long-b", "hq-c", "hq-d")
    in_town = move_to_town(ws, tmp_path)
    assert retrain(in_town, started) == []


def test_an_old_model_calls_for_it(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    finish_one(ws, tmp_path, RETRAIN)
    clock[0] += 29 * DAY
    assert retrain(ws, started) == []
    clock[0] += 2 * DAY
    (action,) = retrain(ws, started)
    assert (action.what, action.text) == (
        "retrained",
        "retrain: the newest witness model is 31 days old",
    )


def test_it_must_be_enabled(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    finish_one(ws, tmp_path)
    close_beads(ws, clock[0] + 5, *(f"gz-{n}" for n in range(99)))
    clock[0] += 99 * DAY
    assert retrain(ws, started) == []


def move_to_town(ws: Workspace, folder: Path) -> Workspace:
    """In a made-up town of three rigs, without gt; one prefix is the beginning of another."""
    prefixes = {"finetune": "ft", "gizmo": "gz", "other": "gz-long"}
    rigs = tuple(Rig(n, p, folder / n, folder / n, n, "") for n, p in prefixes.items())
    home = Home(Town(folder, "tt", rigs), rigs[0])
    return dataclasses.replace(ws, home=home, environ={"PATH": ""})


def retrain(ws: Workspace, started: Callable[[Workspace, str, str], int]) -> list[Action]:
    """Only what the sweep says about retraining: mail stays undelivered without gt."""
    return [a for a in sweep(ws, ROOMY, started) if a.what in ("retrained", "waits")]


# -- the whole


def test_a_dry_run_says_it_and_does_nothing(
    ws: Workspace, tmp_path: Path, clock: list[float], started: Started
) -> None:
    finish_one(ws, tmp_path, RETRAIN)
    clock[0] += 40 * DAY
    before = snapshot(ws)
    assert [a.what for a in sweep(ws, ROOMY, started, dry_run=True)] == ["retrained"]
    assert snapshot(ws) == before
    left, begun = make_run(ws, tmp_path), make_run(ws, tmp_path)
    claim(ws, begun)
    clock[0] += 40 * DAY
    before = snapshot(ws)
    dry = sweep(ws, ROOMY, started, dry_run=True)
    assert tell(dry) == [("resumed", begun.id), ("reminded", left.id)]
    assert (started.runs, snapshot(ws)) == ([], before)


def test_a_second_sweep_has_nothing_to_do(tmp_path: Path) -> None:
    open_workspace(tmp_path / ".gtft")

    def run_sweep(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gtft.cli.main", "--workspace", str(tmp_path / ".gtft"), "sweep", *argv],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip

    with lock_sweep(tmp_path / ".gtft") as ours:
        assert ours
        assert "another sweep is at work" in run_sweep().stdout
        assert json.loads(run_sweep("--json").stdout)["data"]["ours"] is False
    assert "nothing to do" in run_sweep().stdout
    assert json.loads(run_sweep("--json").stdout)["data"]["actions"] == []
