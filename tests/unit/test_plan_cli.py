"""``gtft plan``, what is kept of a plan, and how it is compared with what the training took."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gtft.contract import PLAN_FILE
from gtft.recipe.schema import Recipe
from gtft.runner.planned import Planned, compare_plan, find_plan, parse_plan, record_plan
from gtft.runner.probe import FOLDER, run_probe
from gtft.runner.workspace import Workspace, open_workspace
from run_case import carry_on, find_run, make_run
from tiny_town import gtft, make_town

GIB = 1024**3


def run_plan(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("GT_", "BD_", "BEADS_"))}
    return gtft("plan", "mol-gtft-tiny", *argv, cwd=folder, environ=environ)


def test_a_plan_has_every_figure_and_makes_nothing(tmp_path: Path) -> None:
    make_town(tmp_path)
    done = run_plan(tmp_path, "--json")
    data = json.loads(done.stdout)["data"]
    assert data["plan"]["updates"] == 40
    assert data["plan"]["tokens"] > 0
    assert data["plan"]["seconds"] > 0
    assert data["plan"]["memory"] > 0
    assert data["plan"]["disk"] > 0
    assert data["box"]["memory"] > 0
    assert (data["verdict"]["word"] == "fits") == (done.returncode == 0)
    assert not (tmp_path / ".gtft").exists()
    shown = run_plan(tmp_path).stdout
    for word in ("tokens", "time", "memory", "disk", "box", "verdict"):
        assert f"\n{word}" in shown


def test_what_cannot_fit_exits_with_1_and_names_what_would_help(tmp_path: Path) -> None:
    make_town(tmp_path)
    base = tmp_path / "huge"
    base.mkdir()
    config = {
        "hidden_size": 16384,
        "intermediate_size": 65536,
        "num_hidden_layers": 160,
        "num_attention_heads": 128,
        "vocab_size": 128256,
        "dtype": "bfloat16",
    }
    (base / "config.json").write_text(json.dumps(config))
    done = run_plan(tmp_path, "--set", 'base.model="./huge"', "--json")
    assert done.returncode == 1
    verdict = json.loads(done.stdout)["data"]["verdict"]
    assert verdict["word"] == "does not fit"
    # A disk with little room has a remedy of its own.
    memory = [r["text"] for r in verdict["remedies"] if "keep_checkpoints" not in r["how"]]
    assert "still too much" in memory[-1]


def test_a_corpus_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    make_town(tmp_path)
    done = run_plan(tmp_path, "--corpus", "abc", "--json")
    assert json.loads(done.stdout)["error"]["kind"] == "usage"


# -- kept with the run


def test_a_plan_is_kept_and_read_back(ws: Workspace, tmp_path: Path) -> None:
    run = make_run(ws, tmp_path)
    assert find_plan(ws, run.id) is None
    first = Planned(tokens=1000, rows=10, updates=5, seconds=60, memory=GIB, disk=7, pace=12)
    record_plan(ws, run.id, None, first, "mayor")
    assert find_plan(ws, run.id) == first
    assert find_plan(ws, run.id, "train") is None
    second = Planned(tokens=2000)
    record_plan(ws, run.id, "train", second, "mayor")
    assert find_plan(ws, run.id) == find_plan(ws, run.id, "train") == second
    document = json.loads((ws.job_dir(run.id, "train") / PLAN_FILE).read_text())
    assert document["tokens"] == 2000
    assert parse_plan("tokens=x seconds=5 other=7 memory=-3") == Planned(seconds=5)


def test_what_was_planned_is_compared_with_what_it_took(tmp_path: Path, clock: list[float]) -> None:
    ws = open_workspace(tmp_path / "ws", now=lambda: clock[0])
    run = make_run(ws, tmp_path)
    assert compare_plan(ws, run) == ()
    record_plan(ws, run.id, None, Planned(seconds=60, memory=GIB, tokens=1000), "mayor")

    def work(stage: str) -> None:
        clock[0] += 90 if stage == "train" else 1

    carry_on(ws, run, "harvest", "train", then=work)
    lines = [
        {"step": 40, "name": "peak_memory_bytes", "value": 3.0 * GIB},
        {"step": 40, "name": "peak_anon_bytes", "value": 0.5 * GIB},
    ]
    path = ws.job_dir(run.id, "train") / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert compare_plan(ws, find_run(ws, run.id)) == (
        "time: planned 1.0 min, took 1.5 min (1.50×)",
        "memory: planned 1.0 GiB, took 512.0 MiB (0.50×)",
    )


def test_dispatch_keeps_the_plan_that_it_showed(tmp_path: Path) -> None:
    make_town(tmp_path)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("GT_", "BD_", "BEADS_"))}
    done = gtft("dispatch", "mol-gtft-tiny", "--yes", "--json", cwd=tmp_path, environ=environ)
    data = json.loads(done.stdout)["data"]
    kept = find_plan(open_workspace(tmp_path / ".gtft"), data["id"])
    assert kept is not None
    assert kept.as_dict() == data["launch"]["planned"]
    assert kept.updates == 40


# -- the probe


@pytest.fixture
def recipe() -> Recipe:
    nano = {"vocab": 600, "hidden": 32, "layers": 2, "heads": 2, "context": 256, "steps": 3}
    doc: dict[str, Any] = {
        "role": "witness",
        "base": {"model": "nano", "nano": nano},
        "train": {"max_length": 128, "lora": {"r": 4, "alpha": 8}},
    }
    return Recipe.model_validate_json(json.dumps(doc))


def test_a_probe_measures_real_steps_and_is_kept(
    ws: Workspace, tmp_path: Path, recipe: Recipe
) -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = run_probe(ws, recipe, tmp_path, None, environ, checkpointing=False)
    assert found.peak > 100 * 1024**2
    assert found.per_token > 0
    assert found.checkpoint > 10_000
    assert found.longest == 128
    [kept] = (ws.path / FOLDER).iterdir()
    before = kept.stat().st_mtime_ns
    # Nothing of it but the measurement is left, and the next plan does not measure again.
    assert run_probe(ws, recipe, tmp_path, None, environ, checkpointing=False) == found
    assert kept.stat().st_mtime_ns == before


def test_a_probe_of_a_base_that_is_not_there_says_so(
    ws: Workspace, tmp_path: Path, recipe: Recipe
) -> None:
    from gtft.errors import BaseMissing

    gone = recipe.model_copy(update={"base": recipe.base.model_copy(update={"model": "./none"})})
    with pytest.raises(BaseMissing, match="no base model"):
        run_probe(ws, gone, tmp_path, None, os.environ, checkpointing=False)
    assert not (ws.path / FOLDER).exists()
