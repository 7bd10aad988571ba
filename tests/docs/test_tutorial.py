"""The tutorial's commands, run in order in a copy of what a newcomer has; then what the quickstart promises."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import verify_artifact
from gtft.runner.workspace import Workspace, open_workspace

REPO = Path(__file__).resolve().parents[2]


def read_commands(page: str) -> list[str]:
    """The lines after ``$`` in the page's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", (REPO / "docs" / page).read_text("utf-8"), re.S)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The checkout's examples and formulas in a folder of its own, and every command's result."""
    home = tmp_path_factory.mktemp("newcomer")
    for folder in ("examples", "formulas"):
        shutil.copytree(REPO / folder, home / folder)
    bin_dir = home / "bin"
    bin_dir.mkdir()
    starter = bin_dir / "gtft"
    starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gtft.cli.main "$@"\n')
    starter.chmod(0o755)
    environ = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    environ.pop("GTFT_WORKSPACE", None)
    done = []
    for command in read_commands("tutorial.md"):
        done.append(
            subprocess.run(
                shlex.split(command), cwd=home, env=environ, capture_output=True, text=True,
                timeout=900, check=False,
            )
        )  # fmt: skip
    return home, done


@pytest.fixture(scope="module")
def quickstart(tutorial: tuple[Path, list[Any]]) -> Workspace:
    return open_workspace(tutorial[0] / ".gtft")


def test_every_command_works(tutorial: tuple[Path, list[Any]]) -> None:
    assert len(tutorial[1]) >= 15
    for done in tutorial[1]:
        assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        assert done.stdout.strip()


def test_the_run_is_done_with_one_approved_model(quickstart: Workspace) -> None:
    stages = quickstart.store.list_stages()
    assert [(s.stage, s.state, s.reason) for s in stages] == [
        (s, "done", None) for s in ("harvest", "train", "eval", "card")
    ]
    assert stages[2].reviewer == "gizmo/witness"
    assert stages[2].worker == "gizmo/polecats/otter"
    model = quickstart.store.list_models()[0]
    assert (model.role, model.status, model.version) == ("witness", "approved", 1)
    for row in quickstart.store.list_artifacts():
        verify_artifact(quickstart.artifact_path(row.path), kind=row.kind, expect=row.id)


def test_tuned_beats_base_on_sessions_it_never_saw(quickstart: Workspace) -> None:
    """The quickstart's claim, recomputed here from the stored generations."""
    model = quickstart.store.list_models()[0]
    row = quickstart.store.find_artifact(model.eval_id)
    assert row is not None
    path = quickstart.artifact_path(row.path)
    items = {i["id"]: i for i in map(json.loads, (path / "items.jsonl").open())}
    asked = {i for i, item in items.items() if item["suite"] == "heldout"}
    passed: dict[str, dict[str, bool]] = {}
    for g in map(json.loads, (path / "generations.jsonl").open()):
        if g["item"] in asked:
            passed.setdefault(g["candidate"], {})[g["item"]] = g["passed"]
    assert passed.keys() == {"base", "base+prime", "base+docs", "tuned"}
    assert all(answers.keys() == asked for answers in passed.values())
    n = len(passed["base"])
    base, tuned = sum(passed["base"].values()), sum(passed["tuned"].values())
    assert n >= 20
    assert tuned - base >= n * 0.2, f"base {base}/{n}, tuned {tuned}/{n}"
    assert {i["suite"] for i in items.values()} == {"heldout", "authored", "generated"}


def test_no_item_stands_in_the_training_set(quickstart: Workspace) -> None:
    model = quickstart.store.list_models()[0]
    corpus = quickstart.store.find_artifact(model.corpus_id)
    evaluated = quickstart.store.find_artifact(model.eval_id)
    assert corpus is not None and evaluated is not None
    rows = [
        json.loads(line) for line in (quickstart.artifact_path(corpus.path) / "train.jsonl").open()
    ]
    items = [
        json.loads(line)
        for line in (quickstart.artifact_path(evaluated.path) / "items.jsonl").open()
    ]
    trained_clusters = {r["cluster"] for r in rows}
    trained_prompts = {mask(r["messages"][:-1]) for r in rows}
    assert not {i["cluster"] for i in items} & trained_clusters
    assert not {mask(i["messages"]) for i in items} & trained_prompts


def mask(messages: list[dict[str, Any]]) -> str:
    """The user's and tools' words with digits, hex and case removed: near-copies look the same."""
    text = "\n".join(m["content"] for m in messages if m["role"] in ("user", "tool"))
    return re.sub(r"[0-9a-f]{6,}|\d+", "#", text.lower())


def test_planted_secrets_are_nowhere(quickstart: Workspace) -> None:
    """What looks like a credential or a person in the sample town is in no artifact."""
    text = "\n".join(
        p.read_text("utf-8", "replace")
        for p in quickstart.artifacts.rglob("*")
        if p.suffix in (".jsonl", ".json", ".md", ".txt")
    )
    history = "\n".join(
        p.read_text("utf-8", "replace")
        for p in (REPO / "examples" / "town" / "transcripts").rglob("*.jsonl")
    )
    planted = {
        kind: set(re.findall(pattern, history))
        for kind, pattern in {
            "token": r"DEPLOY_TOKEN=(\w{16,})",
            "password": r"password=(\w{12,})",
            "url password": r"https://quill:(\w{12,})@",
            "e-mail": r"[a-z]+\.[a-z]+@example\.org",
        }.items()
    }
    for kind, values in planted.items():
        assert values, f"the sample town no longer holds a {kind}"
        for value in values:
            assert value not in text, kind
