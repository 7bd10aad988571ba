"""Mayor, two polecats and a witness in a real throw-away town, from dispatch to done.

Real ``dolt``, ``bd`` and ``gt``; the quickstart recipe with its real training. What the agents would type is
typed here, in their folders and with their environment; no language model acts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gtft.contract import EVENTS_FILE, STAGES
from gtft.runner.identity import owner_is_gone
from gtft.runner.process import ATTEMPT_FILE, is_locked
from gtft.runner.workspace import Workspace, open_workspace
from town_case import TestTown, make_real_town, run, wait_for

REPO = Path(__file__).resolve().parents[2]
RIG, HOME = "gizmo", "finetune"


@dataclass
class Agent:
    """Somebody of the town: a folder, a name, and the environment that gt gives to the role."""

    town: TestTown
    name: str
    folder: Path
    role: str

    @property
    def environ(self) -> dict[str, str]:
        parts = self.name.split("/")
        extra = {"GT_POLECAT": parts[-1]} if "polecats" in parts else {}
        return {
            **self.town.environ,
            "GT_ROLE": self.role,
            "GT_RIG": parts[0],
            "GT_ROOT": str(self.town.root),
            "BD_ACTOR": self.name,
            # What gt sets for polecats; gtft's own writes must be kept all the same.
            "BD_DOLT_AUTO_COMMIT": "off",
            "OMP_NUM_THREADS": "2",
            **extra,
        }

    def gtft(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(
            sys.executable, "-m", "gtft.cli.main", *argv,
            environ=self.environ, cwd=self.folder, check=check, timeout=540,
        )  # fmt: skip

    def json(self, *argv: str) -> Any:
        return json.loads(self.gtft(*argv, "--json").stdout)["data"]


@dataclass
class Scene:
    town: TestTown
    mayor: Agent
    nux: Agent
    ace: Agent
    witness: Agent

    def open(self) -> Workspace:
        return open_workspace(self.town.root / ".gtft", environ=self.town.environ)

    def bead(self, bead_id: str) -> dict[str, Any]:
        shown = json.loads(self.town.bd("show", bead_id, "--json", cwd=self.town.root / HOME))
        found: dict[str, Any] = (shown["data"] if isinstance(shown, dict) else shown)[0]
        return found

    def inbox(self, address: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.town.gt("mail", "inbox", address, "--json"))
        return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("real")
    town = make_real_town(folder, {HOME: "ft", RIG: "gz"})
    polecats = town.root / HOME / "polecats"
    agents = []
    for name in ("nux", "ace"):
        worktree = polecats / name / HOME
        worktree.mkdir(parents=True)
        run("git", "init", "-q", environ=town.environ, cwd=worktree)
        agents.append(Agent(town, f"{HOME}/polecats/{name}", worktree, f"{HOME}/polecats/{name}"))
    witness = Agent(town, f"{RIG}/witness", town.root / RIG / "witness", f"{RIG}/witness")
    mayor = Agent(town, "mayor/", town.root / "mayor", "mayor")
    shutil.copytree(REPO / "examples" / "town", town.root / "history")
    try:
        yield Scene(town, mayor, *agents, witness)
    finally:
        for path in (town.root / ".gtft" / "runs").glob("*/*/worker.lock"):
            stop_worker(path.parent)
        town.end()


@pytest.mark.timeout(1200)
def test_from_dispatch_to_done(scene: Scene) -> None:
    town, mayor, nux, ace, witness = (
        scene.town, scene.mayor, scene.nux, scene.ace, scene.witness,
    )  # fmt: skip
    mayor.gtft("town", "install", "--rig", HOME, "--yes")

    # The mayor sees what the run needs, and makes its beads.
    summary = mayor.gtft(
        "dispatch", "mol-gtft-quickstart", f"--var=town={town.root / 'history'}", "--rig", RIG,
        "--role", "witness", "--yes",
    ).stdout  # fmt: skip
    assert "transcripts" in summary and "disk" in summary
    [view] = mayor.json("runs", "list")
    run_id, epic = view["id"], view["epic"]
    beads = {s["stage"]: s["bead"] for s in view["stages"]}
    assert epic.startswith("ft-")
    assert scene.bead(epic)["description"].splitlines()[0] == f"Run: gtft run {epic}"
    ready = json.loads(town.bd("ready", "-l", "gtft", "--json", cwd=town.root / HOME))
    ids = {r["id"] for r in (ready["data"] if isinstance(ready, dict) else ready)}
    assert beads["harvest"] in ids and beads["train"] not in ids

    # As gt sling leaves it: hooked, with the polecat's name. The polecat types the first line of the bead.
    hook = ("update", beads["harvest"], "--status=hooked", f"--assignee={nux.name}")
    town.bd(*hook, cwd=town.root / HOME)
    before = snapshot(nux.folder)
    said = nux.gtft("run", beads["harvest"]).stdout
    assert "goes on in the background" in said

    # It trains; the second polecat given the same bead does not train a second time.
    ws = scene.open()
    train = ws.job_dir(run_id, "train")
    wait_for(lambda: is_stepping(train), 300)
    assert f"is being worked on by {nux.name}" in ace.gtft("run", beads["train"]).stdout
    first_worker = worker_pid(train)
    assert scene.bead(beads["train"])["assignee"] == nux.name
    assert scene.bead(beads["train"])["status"] == "in_progress"

    # The first polecat is nuked, its runner with it: the worker goes on, the second takes it over.
    kill_runner(ws, run_id)
    shutil.rmtree(nux.folder)
    assert "goes on in the background" in ace.gtft("run", beads["train"]).stdout
    wait_for(lambda: scene.bead(beads["train"])["assignee"] == ace.name, 60)
    assert worker_pid(train) == first_worker, "it was trained twice"

    # The eval waits for the witness of the rig that the model is for.
    wait_for(lambda: ws.store.find_stage(run_id, "eval").state == "review", 500, 1.0)
    wait_for(lambda: not ws.store.list_messages(pending=True), 60, 0.5)
    assert [s.attempt for s in ws.store.list_stages(run_id)][:2] == [1, 2]
    shown = scene.bead(beads["eval"])
    assert shown["status"] == "in_progress" and "gtft:review" in shown["labels"]
    subjects = [m["subject"] for m in scene.inbox(f"{RIG}/witness")]
    assert len([s for s in subjects if s.startswith(f"GTFT_REVIEW: eval of {run_id}")]) == 1
    asked = next(d for d in shown["dependencies"] if d["title"].startswith("Review the eval"))
    assert asked["assignee"] == f"{RIG}/witness"
    # bd itself refuses to close the eval while the review is open.
    refused = town.bd("close", beads["eval"], "--reason", "looks fine to me, closing it",
                      cwd=town.root / HOME, check=False)  # fmt: skip
    assert scene.bead(beads["eval"])["status"] == "in_progress", refused

    # Who did the work may not approve it; the witness looks at the evidence and may.
    refusal = ace.gtft("review", "approve", beads["eval"], "--as", ace.name, check=False)
    assert refusal.returncode == 12, refusal.stdout
    evidence = witness.json("review", "show", beads["eval"])
    assert [a["stage"] for a in evidence["artifacts"]] == list(STAGES[:3])
    witness.gtft("review", "approve", beads["eval"], "--note", "read the verdict and three answers")
    ace.gtft("run", epic)
    wait_for(lambda: all(s.state == "done" for s in ws.store.list_stages(run_id)), 120, 0.5)
    wait_for(lambda: not ws.store.list_messages(pending=True), 60, 0.5)

    # Everybody sees the same: bd, the mail, the feed, Dolt's log.
    for bead in (*beads.values(), epic, asked["id"]):
        closed = scene.bead(bead)
        assert closed["status"] == "closed", closed
        print(closed["id"], closed["title"], "|", closed.get("close_reason"))
    done = [m for m in scene.inbox("mayor/") if m["subject"].startswith("GTFT_DONE")]
    assert len(done) == 1
    feed = (town.root / ".events.jsonl").read_text()
    assert feed.count('"gtft_review"') == 1 and feed.count('"gtft_done"') == 1
    log = town.query("SELECT message FROM dolt_log", HOME)
    moves = [str(m[0]) for m in log if run_id in str(m[0])]
    assert any("eval" in m and "done" in m for m in moves), moves
    [model] = mayor.json("model", "list")
    assert model["run"] == run_id
    history = mayor.gtft("history", run_id).stdout
    assert "claimed" in history and "taken-over" in history
    print(history)

    # Nothing was written where agents work.
    assert snapshot(ace.folder) == before
    assert ws.home is not None
    for path in (town.root / ".gtft" / "artifacts").iterdir():
        assert path.is_dir()


def snapshot(folder: Path) -> list[str]:
    """Names below a worktree, without git's own."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if ".git" not in p.parts)


def is_stepping(job_dir: Path) -> bool:
    """The training is under way (it begins with its nano base)."""
    path = job_dir / EVENTS_FILE
    return path.exists() and '"unit":"base steps"' in path.read_text()


def worker_pid(job_dir: Path) -> int:
    return int(json.loads((job_dir / ATTEMPT_FILE).read_text())["pid"])


def kill_runner(ws: Workspace, run_id: str) -> None:
    """kill -9 of the process that holds the lease of the running stage."""
    [row] = ws.store.list_stages(run_id, state="active")
    token = row.token or ""
    os.kill(int(token.split("|")[1]), signal.SIGKILL)
    wait_for(lambda: owner_is_gone(token))


def stop_worker(job_dir: Path) -> None:
    if is_locked(job_dir):
        os.kill(worker_pid(job_dir), signal.SIGKILL)
        wait_for(lambda: not is_locked(job_dir))
