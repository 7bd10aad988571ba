"""gtft's parts in a real town: bd and gt accept them, use them, and are rid of them again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from town_case import TestTown, make_real_town, wait_for

# On a busy box gt was seen to take a town's server for a stray one.
pytestmark = pytest.mark.alone

REPO = Path(__file__).parents[2]
FORMULAS = [p.name.removesuffix(".formula.toml") for p in (REPO / "formulas").glob("*.toml")]
# What gt and bd write anew at every call, with or without gtft.
CHURN = (
    ".dolt-data",
    ".git",
    ".runtime",
    "daemon",
    "rigs.json",
    "last-touched",
    "interactions.jsonl",
)
NUX = {
    "GT_ROLE": "finetune/polecats/nux",
    "GT_RIG": "finetune",
    "GT_POLECAT": "nux",
    "BD_ACTOR": "finetune/polecats/nux",
}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestTown]:
    town = make_real_town(tmp_path_factory.mktemp("town"), {"finetune": "ft", "gizmo": "gz"})
    # The hooks look for gtft on PATH.
    town.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{town.environ['PATH']}"
    try:
        yield town
    finally:
        town.end()


def gtft(town: TestTown, *argv: str, stdin: str = "", **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gtft.cli.main", *argv],
        cwd=town.root, env=town.environ | env, input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def read_status(town: TestTown) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(gtft(town, "town", "--json"))["data"]
    return data


def snapshot(town: TestTown) -> dict[str, tuple[int, bytes]]:
    """Every path of the town, and gt's hooks in its home: mode and bytes."""
    base = Path(town.environ["HOME"]) / ".gt" / "hooks-base.json"
    paths = [*town.root.rglob("*"), *([base] if base.exists() else [])]
    found = {}
    for path in sorted(paths):
        inside = path.relative_to(town.root).parts if path.is_relative_to(town.root) else ()
        if not any(part in CHURN for part in inside):
            data = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (path.lstat().st_mode, data)
    return found


@pytest.fixture
def installed(town: TestTown) -> Iterator[TestTown]:
    gtft(town, "town", "install", "--yes")
    yield town
    gtft(town, "town", "uninstall", "--yes")


def test_gt_keeps_our_hooks_and_the_town_comes_back_to_the_byte(town: TestTown) -> None:
    # Once before: gt may have something of its own to bring up to date.
    town.gt("hooks", "sync")
    before = snapshot(town)
    assert "--dry-run" not in gtft(town, "town", "install", "--dry-run")
    assert snapshot(town) == before
    gtft(town, "town", "install", "--yes")
    assert {p["state"] for p in read_status(town)["parts"]} == {"installed"}
    after = snapshot(town)
    said = town.gt("hooks", "sync")
    assert "updated)" not in said.replace("0 updated", "")
    town.gt("doctor", check=False)
    assert snapshot(town) == after
    settings = json.loads((town.root / "finetune/polecats/.claude/settings.json").read_text())
    commands = [h["command"] for e in settings["hooks"]["SessionStart"] for h in e["hooks"]]
    assert sum(c.endswith("prime --hook") for c in commands) == 1
    assert sum("gtft hook session-start" in c for c in commands) == 1
    gtft(town, "town", "uninstall", "--yes")
    assert snapshot(town) == before


def test_status_names_rig_database_server_and_versions(installed: TestTown) -> None:
    status = read_status(installed)
    assert (status["rig"], status["linked"], status["database"]) == ("finetune", True, "finetune")
    assert status["server"] == {"host": "127.0.0.1", "port": installed.port, "reachable": True}
    assert "1." in status["versions"]["bd"] and "1." in status["versions"]["gt"]


def test_a_rig_that_is_not_there_is_named_with_the_command_that_adds_it(town: TestTown) -> None:
    before = snapshot(town)
    done = subprocess.run(
        [sys.executable, "-m", "gtft.cli.main", "town", "install", "--rig", "nowhere", "--yes"],
        cwd=town.root, env=town.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 16
    assert "gt rig add nowhere" in done.stderr
    assert snapshot(town) == before


@pytest.mark.parametrize("name", FORMULAS)
def test_bd_and_gt_accept_every_shipped_formula(installed: TestTown, name: str) -> None:
    text = (REPO / "formulas" / f"{name}.formula.toml").read_text("utf-8")
    steps = [s["id"] for s in tomllib.loads(text)["steps"]]
    for shown in (
        installed.bd("formula", "show", name, "--json"),
        installed.gt("formula", "show", name, "--json"),
    ):
        formula = json.loads(shown)
        assert formula["description"].startswith("Run: gtft run {{issue}}")
        assert [s["id"] for s in formula["steps"]] == steps


def test_gt_lists_the_plugin_and_its_script_leaves_a_receipt(installed: TestTown) -> None:
    plugins = json.loads(installed.gt("plugin", "list", "--json"))
    ours = next(p for p in plugins if p["name"] == "gtft-sweep")
    assert (ours["gate_type"], ours["location"]) == ("cooldown", "town")
    script = Path(ours["path"]) / "run.sh"
    path = installed.environ["PATH"]
    without = [p for p in path.split(os.pathsep) if not (Path(p) / "gtft").exists()]
    for found, result in ((path, "success"), (os.pathsep.join(without), "skipped")):
        subprocess.run(["/bin/sh", script], env=installed.environ | {"PATH": found}, check=True)
        history = json.loads(installed.gt("plugin", "history", "gtft-sweep", "--json"))
        assert any(f"result:{result}" in h["labels"] for h in history)
    assert "Gate closed" in installed.gt("plugin", "run", "gtft-sweep", "--dry-run")


def test_gt_prime_shows_a_polecat_the_one_command_to_type(installed: TestTown) -> None:
    rig = installed.root / "finetune"
    installed.gt("polecat", "add", "finetune", "nux")
    bead = installed.bd("create", "Train", "-l", "gtft,gtft:train", "--silent", cwd=rig).strip()
    text = f"Run: gtft run {bead}\nTrains an adapter for the witness."
    hooked = ("--status", "hooked", "--assignee", NUX["BD_ACTOR"])
    installed.bd("update", bead, "-d", text, *hooked, cwd=rig)
    worktree = rig / "polecats" / "nux" / "finetune"
    shown = installed.gt("prime", "--dry-run", cwd=worktree, GT_ROOT=str(installed.root), **NUX)
    assert f"Bead ID: {bead}" in shown
    assert shown.count(f"Run: gtft run {bead}") >= 1
    assert "## gtft beads (label `gtft`)" in shown
    witness = installed.gt("prime", "--dry-run", cwd=rig / "witness", GT_ROLE="finetune/witness")
    mayor = installed.gt("prime", "--dry-run", cwd=installed.root / "mayor", GT_ROLE="mayor")
    assert "gtft review approve BEAD" in witness
    assert "gtft dispatch RECIPE" in mayor


def test_a_session_starts_and_its_bead_closes(installed: TestTown) -> None:
    rig, home = installed.root / "finetune", installed.root / ".gtft"
    settings = json.loads((rig / "polecats/.claude/settings.json").read_text())
    command = settings["hooks"]["SessionStart"][-1]["hooks"][0]["command"]
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=rig, env=installed.environ | NUX, input='{"session_id": "s-1", "source": "startup"}',
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    said = json.loads((home / "sessions.jsonl").read_text())
    assert (said["session"], said["actor"]) == ("s-1", "finetune/polecats/nux")

    def close_one() -> bool:
        # bd starts its hook and may be gone before it: a hint, so more than one may be needed.
        bead = installed.bd("create", "Probe", "--silent", cwd=rig).strip()
        installed.bd("close", bead, "--reason", "done: probe", cwd=rig, **NUX)
        queued = list((home / "queue").glob("*.json"))
        return bool(queued) and json.loads(queued[0].read_text())["session"] == "s-1"

    wait_for(close_one, 60)
    assert {p.name.split("-")[0] for p in (home / "queue").glob("*.json")} == {"ft"}
