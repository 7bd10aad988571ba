"""A run that goes on from an earlier adapter, and one that lies on it: through the command line, to a registered model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gtft.runner.workspace import open_workspace
from tiny_town import gtft, make_town


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The town, its workspace and the id of the adapter of a first run."""
    root = make_town(tmp_path_factory.mktemp("town"))
    workspace = tmp_path_factory.mktemp("ws")
    run(root, workspace)
    return root, workspace, find_adapter(workspace)


def call(root: Path, workspace: Path, *argv: str) -> str:
    environ = {**os.environ, "GTFT_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}
    done = gtft(*argv, cwd=root, environ=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(root: Path, workspace: Path, *more: str) -> str:
    return call(
        root, workspace, "run", "mol-gtft-tiny", "--set", "train.max_steps=8", "--quiet", *more
    )


def find_adapter(workspace: Path) -> str:
    """Of the newest run, whose eval must wait for its witness by now."""
    store = open_workspace(workspace).store
    rows = {s.stage: s for s in store.list_stages(store.list_runs()[0].id)}
    assert rows["eval"].state == "review"
    assert rows["train"].artifact_id is not None
    return rows["train"].artifact_id


@pytest.mark.parametrize("key", ["continues", "stacks_on"])
def test_the_earlier_adapter_is_a_parent_of_what_is_made(
    town: tuple[Path, Path, str], key: str
) -> None:
    root, workspace, first = town
    short = first.removeprefix("sha256:")[:12]
    run(root, workspace, "--set", f"train.{key}={short}")
    made = find_adapter(workspace)
    assert made != first
    folder = workspace / "artifacts" / f"adapter-{made.removeprefix('sha256:')[:12]}"
    assert first in json.loads((folder / "artifact.json").read_text())["parents"]
    assert json.loads((folder / "summary.json").read_text())[key] == first
    store = open_workspace(workspace).store
    newest = store.list_runs()[0].id
    bead = store.find_stage(newest, "eval").bead_id or ""
    call(root, workspace, "review", "approve", bead, "--as", "gizmo/witness")
    call(root, workspace, "run", newest, "--quiet")
    (model,) = (m for m in store.list_models() if m.id == made)
    assert (model.status, model.run_id) == ("approved", newest)
    told = json.loads(call(root, workspace, "model", "why", model.name, "--json"))["data"]
    assert told[key] == first
