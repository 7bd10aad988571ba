"""Real gt reads what gtft writes into a town's settings: the agents it lists, and the command it starts a role with."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_case import make_model, write
from gtft.runner.deployment import carry_out, find_town, plan_deployment
from gtft.runner.deployment_files import Wanted
from gtft.runner.rollback import finish_removal
from gtft.runner.switch import Removal, read_journal, remove
from gtft.runner.workspace import Workspace, open_workspace
from gtft.town.agents import PRESETS
from town_case import TestTown, make_real_town

URL = "http://127.0.0.1:9"
# In place of tmux: it writes down what it is asked to run, runs nothing, and has no session.
TMUX = """\
#!/usr/bin/env python3
import json, os, sys
with open(os.environ["TMUX_LOG"], "a") as f:
    f.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(1 if {"has-session", "respawn-pane"} & set(sys.argv) else 0)
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestTown]:
    town = make_real_town(tmp_path_factory.mktemp("town"), {"finetune": "ft", "gizmo": "gz"})
    programs = tmp_path_factory.mktemp("bin")
    for name, text in {"claude": "#!/bin/sh\nexit 0\n", "tmux": TMUX}.items():
        write(programs / name, text).chmod(0o755)
    town.environ["PATH"] = f"{programs}{os.pathsep}{town.environ['PATH']}"
    try:
        yield town
    finally:
        town.end()


@pytest.fixture
def ws(town: TestTown) -> Workspace:
    """Its own store and ledger: this is about the files that gt reads."""
    return open_workspace(town.root / ".gtft", environ=town.environ)


def deploy(ws: Workspace, rig: str = "", named: str = "") -> None:
    models = [m for m in ws.store.list_models() if m.role == "witness"]
    model = models[0] if models else make_model(ws, "a")
    launcher = ("gtft", "deploy", "launch", "a path/J", "--")
    wanted = Wanted(model, "live", "witness", rig, URL, "me", named, launcher=launcher)
    name = f"dep-{os.urandom(4).hex()}"
    carry_out(ws, plan_deployment(ws, find_town(ws), wanted, name, ws.environ), lambda: None)


def back(ws: Workspace, rig: str = "") -> None:
    journal = read_journal(ws.path, "witness", rig)
    assert journal is not None
    removal = Removal(reason="rolled-back", text="by hand", actor="me", at_us=1)
    finish_removal(ws, remove(ws.path, journal, removal)[0])


def list_agents(town: TestTown) -> dict[str, dict[str, object]]:
    return {a["name"]: a for a in json.loads(town.gt("config", "agent", "list", "--json"))}


def read_start(town: TestTown, rig: str) -> list[str]:
    """The words of the command that gt starts the rig's witness with."""
    log = town.root.parent / "tmux.log"
    log.unlink(missing_ok=True)
    town.gt("witness", "start", rig, check=False, TMUX_LOG=str(log))
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    commands = [w for c in calls for w in c if "exec env " in w]
    assert commands, calls
    return shlex.split(commands[0])


def test_the_presets_are_those_of_gt(town: TestTown) -> None:
    found = {
        name: (a["command"], str(a.get("args") or ""))
        for name, a in list_agents(town).items()
        if a["type"] == "built-in"
    }
    assert found == {name: (p.command, " ".join(p.args)) for name, p in PRESETS.items()}


def test_gt_lists_the_agent_and_starts_the_role_with_it_and_not_after(
    town: TestTown, ws: Workspace
) -> None:
    before = list_agents(town)
    plain = read_start(town, "gizmo")
    path = town.root / "settings" / "config.json"
    was = path.read_bytes() if path.exists() else None
    deploy(ws)
    agents = list_agents(town)
    assert set(agents) - set(before) == {"gtft-witness"}
    assert Path(str(agents["gtft-witness"]["command"])).name == "claude"
    assert "gtft-witness" in town.gt("config", "agent", "get", "gtft-witness")
    words = read_start(town, "gizmo")
    assert f"ANTHROPIC_BASE_URL={URL}/roles/witness" in words
    # The session has the name that it had before: it still means an agent after a rollback.
    assert pick(words, "GT_AGENT=") == pick(plain, "GT_AGENT=")
    at = words.index("gtft")
    assert words[at : at + 5] == ["gtft", "deploy", "launch", "a path/J", "--"]
    # What follows is what it started before: program, arguments, settings, prompt.
    old = plain[next(i for i, w in enumerate(plain) if Path(w).name == "claude") :]
    new = words[at + 5 :]
    assert Path(new[0]).name == Path(old[0]).name and new[1:-1] == old[1:-1]
    # The same names tell gt that the agent lives.
    assert pick(words, "GT_PROCESS_NAMES=") == pick(plain, "GT_PROCESS_NAMES=")
    back(ws)
    assert (path.read_bytes() if path.exists() else None) == was
    assert list_agents(town) == before
    again = read_start(town, "gizmo")
    assert not [w for w in again if "gtft" in w or "ANTHROPIC_BASE_URL" in w]
    assert pick(again, "GT_AGENT=") == pick(plain, "GT_AGENT=")


def hand_off(town: TestTown, agent: str) -> list[str]:
    """The words of the command that gt starts the rig's witness anew with, when the one that runs asks for it."""
    where = town.root / "gizmo" / "witness"
    told = {"GT_AGENT": agent, "GT_ROLE": "gizmo/witness", "TMUX": "x,1,0", "TMUX_PANE": "%0"}
    log = {"TMUX_LOG": str(town.root.parent / "tmux.log")}
    said = town.gt("handoff", "--dry-run", "--yes", "--no-git-check", cwd=where, **told, **log)
    return shlex.split(said[said.index("exec ") :])[1:]


def test_a_handoff_asks_the_role_for_its_agent_live_and_after(
    town: TestTown, ws: Workspace
) -> None:
    """The launcher leaves GT_AGENT empty, and the agent's own name to the session."""
    plain = hand_off(town, "")
    assert Path(plain[0]).name == "claude" and "agents" not in Path(plain[0]).parts
    deploy(ws)
    program = json.loads((town.root / "settings" / "config.json").read_bytes())
    ours = program["agents"]["gtft-witness"]["command"]
    live = hand_off(town, "")
    assert live[0] == ours and os.access(ours, os.X_OK)
    assert live[1:-1] == plain[1:-1]
    back(ws)
    assert hand_off(town, "")[:-1] == plain[:-1]
    assert Path(hand_off(town, "claude")[0]).name == "claude"


def pick(words: list[str], start: str) -> list[str]:
    return [w for w in words if w.startswith(start)]


def test_one_rig_only(town: TestTown, ws: Workspace) -> None:
    path = town.root / "gizmo" / "settings" / "config.json"
    was = path.read_bytes() if path.exists() else None
    deploy(ws, "gizmo")
    try:
        assert f"ANTHROPIC_BASE_URL={URL}/rigs/gizmo/roles/witness" in read_start(town, "gizmo")
        assert not pick(read_start(town, "finetune"), "ANTHROPIC_BASE_URL=")
    finally:
        back(ws, "gizmo")
    assert (path.read_bytes() if path.exists() else None) == was
    assert not pick(read_start(town, "gizmo"), "ANTHROPIC_BASE_URL=")


def test_what_gt_writes_itself_keeps_our_agent_and_rollback_keeps_what_gt_wrote(
    town: TestTown, ws: Workspace
) -> None:
    deploy(ws)
    town.gt("config", "default-agent", "codex")
    doc = json.loads((town.root / "settings" / "config.json").read_bytes())
    assert doc["role_agents"] == {"witness": "gtft-witness"}
    assert doc["agents"]["gtft-witness"]["exec_wrapper"][:3] == ["gtft", "deploy", "launch"]
    back(ws)
    doc = json.loads((town.root / "settings" / "config.json").read_bytes())
    assert doc["default_agent"] == "codex"
    assert "gtft-witness" not in json.dumps(doc)
    town.gt("config", "default-agent", "claude")


def test_gt_prime_shows_the_advice(town: TestTown, ws: Workspace) -> None:
    models = ws.store.list_models()
    wanted = Wanted(models[0], "advise", "witness", "", URL, "me")
    carry_out(
        ws, plan_deployment(ws, find_town(ws), wanted, "dep-advise", ws.environ), lambda: None
    )
    where = town.root / "gizmo" / "witness"
    shown = town.gt("prime", "--dry-run", cwd=where, GT_ROLE="gizmo/witness")
    assert "gtft advise --role witness" in shown
    back(ws)
    assert not (town.root / "directives" / "witness.md").exists()
    shown = town.gt("prime", "--dry-run", cwd=where, GT_ROLE="gizmo/witness")
    assert "gtft advise" not in shown
