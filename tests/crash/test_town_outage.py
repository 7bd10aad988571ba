"""The town's Dolt server is stopped for 30 s, or killed, in each stage: the run goes on, nothing is lost,
everything is said once and in order."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gtft.contract import STAGES
from gtft.runner.workspace import Workspace, open_workspace
from tiny_town import FORMULA, gtft, make_town, start_gtft
from town_case import TestTown, make_real_town, wait_for

OUTAGE_SECONDS = 30.0


@pytest.fixture
def town(tmp_path: Path) -> Iterator[TestTown]:
    made = make_real_town(tmp_path, {"finetune": "ft"})
    # The tiny run's sources are found from the town's root.
    make_town(made.root / "history")
    text = FORMULA.replace('path = "transcripts"', 'path = "history/transcripts"').replace(
        'path = "beads"', 'path = "history/beads"'
    )
    formulas = made.root / ".beads" / "formulas"
    (formulas / "mol-gtft-tiny.formula.toml").write_text(text)
    done = gtft(
        "town", "install", "--rig", "finetune", "--yes", cwd=made.root, environ=made.environ
    )
    assert done.returncode == 0, done.stderr
    yield made
    made.end()


def open_town(town: TestTown) -> Workspace:
    return open_workspace(town.root / ".gtft", environ=town.environ)


def start(town: TestTown, what: str) -> subprocess.Popen[str]:
    environ = {**town.environ, "OMP_NUM_THREADS": "1"}
    return start_gtft(
        "run", what, "--as", "gizmo/polecats/a", cwd=town.root / "mayor", environ=environ
    )


@pytest.mark.timeout(900)
def test_the_server_is_away_in_each_stage(town: TestTown) -> None:
    ws = open_town(town)
    runner = start(town, "mol-gtft-tiny")
    run_id = ""
    for n, stage in enumerate(STAGES):
        if stage == "card":
            assert runner.wait(240) == 0, runner.communicate()
            approve(town, ws, run_id)
            runner = start(town, run_id)
        wait_for(lambda s=stage: is_active(ws, s), 120)  # type: ignore[misc]
        run_id = ws.store.list_runs()[0].id
        town.stop_dolt(kill=n % 2 == 1)
        time.sleep(OUTAGE_SECONDS)
        assert runner.poll() is None, runner.communicate()
        town.start_dolt()
    assert runner.wait(240) == 0, runner.communicate()

    rows = ws.store.list_stages(run_id)
    assert {(s.state, s.reason, s.attempt) for s in rows} == {("done", None, 1)}
    wait_for(lambda: delivered(town, ws, run_id), 150, 1.0)
    sent = ws.store.list_messages(pending=False)
    assert [m.seq for m in sent] == list(range(1, len(sent) + 1))
    times = [m.done_us or 0 for m in sorted(sent, key=lambda m: m.seq)]
    assert times == sorted(times), "a later message went out before an earlier one"
    beads = ws.ledger.look([s.bead_id or "" for s in rows])
    assert {b.status for b in beads.values()} == {"closed"}
    subjects = [m["subject"] for m in json.loads(town.gt("mail", "inbox", "mayor/", "--json"))]
    for kind in ("GTFT_REVIEW", "GTFT_DONE"):
        assert len([s for s in subjects if s.startswith(kind)]) == 1, subjects
    kinds = [e.kind for e in ws.store.list_events(run_id) if e.stage]
    # The training is planned on its corpus, and says when it has begun.
    planned = {"train": ["planned", "training-begun"]}
    assert kinds == [
        kind for s in STAGES for kind in ("claimed", *planned.get(s, []), "review", "done")
    ]
    assert [e.kind for e in ws.store.list_events(run_id) if not e.stage] == ["dispatched"]


def is_active(ws: Workspace, stage: str) -> bool:
    return any(s.stage == stage for s in ws.store.list_stages(state="active"))


def approve(town: TestTown, ws: Workspace, run_id: str) -> None:
    bead = ws.store.find_stage(run_id, "eval").bead_id or ""
    done = gtft(
        "review", "approve", bead, "--as", "gizmo/witness", cwd=town.root, environ=town.environ
    )
    assert done.returncode == 0, done.stderr


def delivered(town: TestTown, ws: Workspace, run_id: str) -> bool:
    """A message whose delivery broke is tried again when its lease ends, by whoever comes by."""
    gtft("run", run_id, cwd=town.root, environ=town.environ)
    return not ws.store.list_messages(pending=True)
