"""Mayor, two polecats and a witness in a real throw-away town, from dispatch to done.

Real ``dolt``, ``bd``, ``gt`` and tmux; the quickstart recipe with its real training and a smaller eval. ``gt sling`` starts a real
polecat session in which a script stands in for the language model: it runs ``gt prime`` and types the one
command that it sees. What mayor, second polecat and witness type is typed here, with their environment.
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
from town_case import SMALLER_EVAL, TestTown, make_real_town, need_tools, run, wait_for

# On a busy box gt was seen to take a town's server for a stray one.
pytestmark = pytest.mark.alone

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
    need_tools("tmux", "node")
    folder = tmp_path_factory.mktemp("real")
    town = make_real_town(folder, {HOME: "ft", RIG: "gz"})
    town.environ["PATH"] = f"{install_programs(folder / 'bin')}{os.pathsep}{town.environ['PATH']}"
    ace = f"{HOME}/polecats/ace"
    agents = (
        Agent(town, "mayor/", town.root / "mayor", "mayor"),
        Agent(town, ace, town.root / ace / HOME, ace),
        Agent(town, f"{RIG}/witness", town.root / RIG / "witness", f"{RIG}/witness"),
    )
    shutil.copytree(REPO / "examples" / "town", town.root / "history")
    try:
        yield Scene(town, *agents)
    finally:
        for path in (town.root / ".gtft" / "runs").glob("*/*/worker.lock"):
            stop_worker(path.parent)
        town.end()


def install_programs(folder: Path) -> Path:
    """``gtft`` as an operator has it on PATH, and the stand-in for an agent's program."""
    folder.mkdir()
    (folder / "gtft").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gtft.cli.main "$@"\n')
    shutil.copy(Path(__file__).with_name("stub_agent.js"), folder / "claude")
    for program in folder.iterdir():
        program.chmod(0o755)
    return folder


@pytest.mark.timeout(1200)
def test_from_dispatch_to_done(scene: Scene) -> None:
    town, mayor, ace, witness = scene.town, scene.mayor, scene.ace, scene.witness
    mayor.gtft("town", "install", "--rig", HOME, "--yes")

    # The mayor sees what the run needs, makes its beads and slings them.
    summary = mayor.gtft(
        "dispatch", "mol-gtft-quickstart", f"--var=town={town.root / 'history'}", "--rig", RIG,
        "--role", "witness", "--yes", "--sling", *SMALLER_EVAL,
    ).stdout  # fmt: skip
    assert "transcripts" in summary and "disk" in summary and "is slung to" in summary
    [view] = mayor.json("runs", "list")
    run_id, epic = view["id"], view["epic"]
    beads = {s["stage"]: s["bead"] for s in view["stages"]}
    assert epic.startswith("ft-")
    assert scene.bead(epic)["description"].splitlines()[0] == f"Run: gtft run {epic}"

    # gt started a polecat; it primed itself, saw the one command and typed it, and was free again at once.
    polecat = scene.bead(beads["harvest"])["assignee"]
    assert polecat.startswith(f"{HOME}/polecats/")
    log = Path(town.environ["HOME"]) / f"agent-{polecat.replace('/', '-')}.log"
    wait_for(lambda: log.exists() and "exit 0" in log.read_text(), 120, 0.5)
    assert f"$ gtft run {beads['harvest']}\n{run_id} goes on in the background" in log.read_text()

    # It trains; the second polecat given the same bead does not train a second time.
    town.gt("polecat", "add", HOME, "ace")
    before = snapshot(ace.folder)
    ws = scene.open()
    train = ws.job_dir(run_id, "train")
    wait_for(lambda: is_stepping(train), 300)
    assert f"is being worked on by {polecat}" in ace.gtft("run", beads["train"]).stdout
    first_worker = worker_pid(train)
    assert scene.bead(beads["train"])["assignee"] == polecat
    assert scene.bead(beads["train"])["status"] == "in_progress"

    # The first polecat is nuked: its session and worktree go, the run goes on. Then its runner is killed too:
    # the worker goes on, and the second polecat takes it over.
    worktree = town.root / polecat / HOME
    assert snapshot(worktree) == snapshot(ace.folder)
    town.gt("polecat", "nuke", polecat.replace("/polecats/", "/"), "--force")
    assert not worktree.exists()
    assert worker_pid(train) == first_worker and is_locked(train)
    kill_runner(ws, run_id)
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
    assert feed.count('"gtft_started"') == len(STAGES) + 1
    commits = town.query("SELECT message FROM dolt_log", HOME)
    moves = [str(m[0]) for m in commits if run_id in str(m[0])]
    assert any("eval" in m and "done" in m for m in moves), moves
    [model] = mayor.json("model", "list")
    assert model["run"] == run_id
    history = mayor.gtft("history", run_id).stdout
    assert "claimed" in history and "taken-over" in history
    print(history)

    # Nothing was written where agents work.
    assert snapshot(ace.folder) == before


# What gt itself writes into a worktree.
GT_OWN = {".git", ".beads", ".claude", ".runtime", "CLAUDE.md"}


def snapshot(folder: Path) -> list[str]:
    """Names below a worktree, without those that gt writes there."""
    found = (p.relative_to(folder) for p in folder.rglob("*"))
    return sorted(str(p) for p in found if not GT_OWN & set(p.parts))


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
