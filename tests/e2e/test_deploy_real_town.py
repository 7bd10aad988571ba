"""The quickstart's model from approved to shadow to live for the witness of a real throw-away town, and back.

Real ``dolt``, ``bd``, ``gt``, tmux and training; the real server, asked by the real ``openai`` and ``anthropic``
clients and by the witness that ``gt`` starts. A script stands in for the agent's program only. The recipe is the
quickstart's with smaller numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from deploy_case import snapshot
from gtft.records.deployments import Deployments
from gtft.runner.workspace import open_workspace
from gtft.service import read_address
from town_case import TestTown, is_alive, make_real_town, need_tools, run, wait_for

# On a busy box gt was seen to take a town's server for a stray one.
pytestmark = pytest.mark.alone

REPO = Path(__file__).resolve().parents[2]
HOME, RIG = "finetune", "gizmo"
SMALL = (
    "base.nano={vocab=1024,hidden=64,layers=2,heads=2,steps=60}", "train.epochs=1", "train.max_steps=30",
    "eval.max_items=8", "eval.candidates=['base','tuned']", "eval.max_new_tokens=48",
)  # fmt: skip


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestTown]:
    need_tools("tmux", "node")
    folder = tmp_path_factory.mktemp("deploy")
    town = make_real_town(folder, {HOME: "ft", RIG: "gz"})
    programs = folder / "bin"
    programs.mkdir()
    (programs / "gtft").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gtft.cli.main "$@"\n')
    shutil.copy(Path(__file__).with_name("agent_at_server.js"), programs / "claude")
    for program in programs.iterdir():
        program.chmod(0o755)
    town.environ |= {
        "PATH": f"{programs}{os.pathsep}{town.environ['PATH']}",
        "OMP_NUM_THREADS": "2",
    }
    shutil.copytree(REPO / "examples" / "town", town.root / "history")
    try:
        yield town
    finally:
        stop_server(town)
        town.end()


def stop_server(town: TestTown) -> None:
    address = read_address(town.root / ".gtft")
    if address is not None:
        os.kill(address.pid, signal.SIGTERM)
        wait_for(lambda: not is_alive(address.pid))


def gtft(town: TestTown, *argv: str, check: bool = True) -> Any:
    done = run(
        sys.executable, "-m", "gtft.cli.main", *argv, "--json",
        environ=town.environ, cwd=town.root, check=check, timeout=900,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    return found["data"] if check else found


def train(town: TestTown) -> str:
    """An approved model of the quickstart; returns its name."""
    worker = ("--as", f"{HOME}/polecats/ace")
    sets = [w for s in SMALL for w in ("--set", s)]
    argv = ("run", "mol-gtft-quickstart", f"--var=town={town.root / 'history'}", *sets, *worker)
    run(
        sys.executable,
        "-m",
        "gtft.cli.main",
        *argv,
        environ=town.environ,
        cwd=town.root,
        timeout=900,
    )
    [view] = gtft(town, "runs", "list")
    bead = next(s["bead"] for s in view["stages"] if s["stage"] == "eval")
    gtft(town, "review", "approve", bead, "--as", f"{RIG}/witness")
    run(
        sys.executable, "-m", "gtft.cli.main", "run", view["id"], *worker,
        environ=town.environ, cwd=town.root, timeout=900,
    )  # fmt: skip
    [model] = gtft(town, "model", "list")
    assert model["status"] == "approved"
    return str(model["name"])


def list_agents(town: TestTown) -> set[str]:
    return {a["name"] for a in json.loads(town.gt("config", "agent", "list", "--json"))}


def start_witness(town: TestTown) -> dict[str, Any]:
    """What the witness that gt starts was started with, and what it was answered."""
    log = Path(town.environ["HOME"]) / f"asked-{RIG}-witness.jsonl"
    log.unlink(missing_ok=True)
    town.gt("witness", "start", RIG, check=False)
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"), 120)
    session = show_session(town)
    town.gt("witness", "stop", RIG, check=False)
    found = read_asked(log)
    return {**found, "session": session}


def show_session(town: TestTown) -> list[str]:
    """What tmux would start the witness's session anew with, of what names its agent."""
    sockets = Path(town.environ["TMUX_TMPDIR"]).glob("tmux-*/*")
    argv = ("show-environment", "-t", "gz-witness", "GT_AGENT")
    said = [
        run("tmux", "-S", str(s), *argv, environ=town.environ, cwd=town.root, check=False).stdout
        for s in sockets
    ]
    return [s.strip() for s in said if s]


def hand_off(town: TestTown, agent: str) -> dict[str, Any]:
    """What the witness is started with by the command that gt hands off with, where GT_AGENT is ``agent``."""
    log = Path(town.environ["HOME"]) / f"asked-{RIG}-witness.jsonl"
    log.unlink(missing_ok=True)
    told = {"GT_AGENT": agent, "GT_ROLE": f"{RIG}/witness", "TMUX_PANE": "%0"}
    told["TMUX"] = f"{town.root}/none,1,0"
    argv = ("handoff", "--dry-run", "--yes", "--no-git-check")
    said = town.gt(*argv, cwd=town.root / RIG / "witness", **told)
    command = said[said.index(f"cd {town.root}") :]
    # As a pane has it: what the session says, and nothing of the process before.
    run("sh", "-c", command, environ=town.environ | {"GT_AGENT": agent}, cwd=town.root)
    return read_asked(log)


def read_asked(log: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(log.read_text().splitlines()[0])
    # gt writes the minute into the prompt.
    found["argv"] = [re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d", "NOW", a) for a in found["argv"]]
    return found


def hash_settings(town: TestTown) -> str:
    path = town.root / "settings" / "config.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"


def read_own(town: TestTown) -> dict[str, tuple[int, str]]:
    """The files of the town that a deployment may touch."""
    found = snapshot(town.root)
    parts = ("settings", "directives")
    return {
        k: v for k, v in found.items() if any(p in Path(k).parts for p in parts) and ".git" not in k
    }


@pytest.mark.timeout(1500)
def test_from_approved_to_shadow_to_live_and_back(
    town: TestTown, record_property: Callable[[str, object], None]
) -> None:
    gtft(town, "town", "install", "--rig", HOME, "--yes")
    model = train(town)
    town.gt("config", "default-agent", "claude")
    own, agents, before = read_own(town), list_agents(town), hash_settings(town)
    plain = start_witness(town)
    assert plain["base"] == "" and plain["agent"] == "claude"
    assert plain["session"] == ["GT_AGENT=claude"]

    # Shadow: nothing of the town changes.
    shadow = gtft(town, "deploy", model, "--role", "witness", "--yes")
    assert shadow["mode"] == "shadow" and read_own(town) == own and list_agents(town) == agents

    # Live is refused by the figures, and says what is missing; a person's word is recorded.
    refused = gtft(town, "deploy", "promote", "--to", "live", "--yes", check=False)
    assert refused["error"]["kind"] == "gate" and "mode before" in refused["error"]["what"]
    assert read_own(town) == own
    live = gtft(town, "deploy", "promote", "--to", "live", "--yes", "--force", "a trial, by hand")
    url = live["endpoint"] + live["path"]
    after = hash_settings(town)
    assert after != before and list_agents(town) - agents == {"gtft-witness"}

    # The server answers the real clients, by the role and by the model's name.
    said = [{"role": "user", "content": "Polecat nux: no output for an hour. nudge or escalate?"}]
    chat = openai.OpenAI(base_url=f"{live['endpoint']}/v1", api_key="none", max_retries=0)
    by_name = chat.chat.completions.create(model=model, messages=said, max_tokens=24)  # type: ignore[arg-type]
    assert by_name.choices[0].message.content is not None and by_name.usage is not None
    client = anthropic.Anthropic(base_url=live["endpoint"], api_key="none", max_retries=0)
    message = client.messages.create(model=model, messages=said, max_tokens=24)  # type: ignore[arg-type]
    assert message.role == "assistant" and message.usage.output_tokens > 0

    # The witness that gt starts asks it, with the command that it had before.
    asked = start_witness(town)
    # Nobody's name, so that gt asks the role for its agent at the next handoff; the session keeps the one before.
    assert asked["base"] == url and asked["agent"] == ""
    assert asked["session"] == plain["session"] and asked["argv"] == plain["argv"]
    assert asked["status"] == 200, asked
    assert json.loads(asked["body"])["content"][0]["type"] == "text"

    # A handoff of its own goes on with the model.
    handed = hand_off(town, asked["agent"])
    assert (handed["base"], handed["agent"], handed["status"]) == (url, "", 200)
    assert handed["argv"][:-1] == plain["argv"][:-1]

    # Without its server the role starts as it did before.
    stop_server(town)
    alone = start_witness(town)
    assert alone["base"] == "" and alone["argv"] == plain["argv"]

    # Back in one command while Dolt is away; the store hears of it later.
    town.stop_dolt()
    began = time.monotonic()
    back = gtft(town, "rollback", "--role", "witness")
    assert back["notes"] == [] and back["store"] != "told"
    record_property("rollback_seconds", time.monotonic() - began)
    assert read_own(town) == own and hash_settings(town) == before
    town.start_dolt()
    gtft(town, "doctor", "--fix", check=False)
    assert list_agents(town) == agents
    ws = open_workspace(town.root / ".gtft", environ=town.environ)
    found = [(d.mode, d.state, d.reason) for d in Deployments(ws.store).list_deployments()]
    assert found == [("shadow", "ended", "promoted"), ("live", "ended", "rolled-back")]
    assert [m["status"] for m in gtft(town, "model", "list")] == ["approved"]
    # The witness that ran meanwhile hands off to the one before it, and so does that.
    for agent in (asked["agent"], asked["session"][0].removeprefix("GT_AGENT=")):
        after_it = hand_off(town, agent)
        assert after_it["base"] == "" and "gtft" not in after_it["agent"]
    again = start_witness(town)
    assert again["base"] == "" and again["agent"] == "claude"

    # The mayor was told.
    gtft(town, "sweep")
    subjects = [m["subject"] for m in json.loads(town.gt("mail", "inbox", "mayor/", "--json"))]
    assert any(s.startswith(f"GTFT_DEPLOYED: {model} is live") for s in subjects)
    assert any(s.startswith("GTFT_ROLLBACK: ") for s in subjects)
    feed = (town.root / ".events.jsonl").read_text()
    assert "gtft_deployed" in feed and "gtft_undeployed" in feed
    print(
        f"settings/config.json: before {before[:12]}, live {after[:12]}, back {hash_settings(town)[:12]}"
    )
