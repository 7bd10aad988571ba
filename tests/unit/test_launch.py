"""The summary before a run: what is counted, what is measured, and what is not made up."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from gtft.beads.ledger import Bead, Ledger
from gtft.contract import STAGES
from gtft.corpus.survey import survey_sources
from gtft.errors import ConflictError, InputError, TownError, UsageError
from gtft.recipe.resolve import resolve
from gtft.runner.box import Box
from gtft.runner.dispatch import dispatch
from gtft.runner.execution import catch_up
from gtft.runner.launch import Launch, plan_launch
from gtft.runner.sling import check_sling, make_sling, read_error
from gtft.runner.workspace import Home, Workspace, open_workspace
from gtft.tool import Ran
from gtft.town.locate import Rig, Town
from run_case import carry_on, make_run, resolve_tiny, write_formula, write_peak
from tiny_town import gtft, make_town

MIB = 1024**2


def plan(ws: Workspace | None, folder: Path, *tables: str) -> Launch:
    resolved = resolve_tiny(folder, *tables)
    return plan_launch(ws, resolved, root=folder, disk_at=folder, source_bytes=1234)


def test_sources_are_counted_before_anything_is_made(tmp_path: Path) -> None:
    make_town(tmp_path)
    (tmp_path / "transcripts" / "agent-1.jsonl").write_text("{}\n")
    os.utime(tmp_path / "beads" / "issues.jsonl", (1000, 1_700_000_000))
    sessions, beads = survey_sources(resolve_tiny(tmp_path).recipe.harvest.sources, tmp_path)
    assert (sessions.count, sessions.unit, sessions.files) == (32, "sessions", 33)
    assert (beads.count, beads.unit, beads.files) == (12, "beads", 1)
    assert beads.bytes == (tmp_path / "beads" / "issues.jsonl").stat().st_size
    assert beads.newest == 1_700_000_000


def test_a_source_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="transcripts does not exist"):
        survey_sources(resolve_tiny(tmp_path).recipe.harvest.sources, tmp_path)


def test_without_a_run_what_can_be_computed_is_and_the_rest_is_not_known(
    ws: Workspace, tmp_path: Path
) -> None:
    for launch in (plan(None, tmp_path), plan(ws, tmp_path)):
        assert {s for s, f in launch.stages.items() if f.low is None} == {"harvest", "eval", "card"}
        assert "no run was measured" in launch.stages["harvest"].source
        assert launch.plan.updates == 40
        assert "rough" in launch.stages["train"].source
        assert "about 18 items" in launch.stages["eval"].source
        assert "at most 3 answers each" in launch.stages["eval"].source
        assert "computed from the base's shape" in launch.memory.source
        assert launch.plan.disk is not None
        assert launch.disk.low == 1234 + launch.plan.disk
        assert "measured" not in launch.memory.source + launch.disk.source


def test_figures_come_from_this_boxs_own_runs(tmp_path: Path, clock: list[float]) -> None:
    ws = open_workspace(tmp_path / "ws", now=lambda: clock[0])
    for seconds, peak in ((120, 900), (180, 1100)):
        run = make_run(ws, tmp_path)

        def work(stage: str, seconds: int = seconds) -> None:
            clock[0] += seconds if stage == "train" else 3

        carry_on(ws, run, *STAGES, then=work)
        write_peak(ws, run, peak * MIB)
    launch = plan(ws, tmp_path)
    train = launch.stages["train"]
    assert (train.low, train.high) == (120, 180)
    assert train.source == "measured: 2 runs of this recipe on this box"
    assert (launch.memory.low, launch.memory.high) == (900 * MIB, 1100 * MIB)
    assert launch.disk.low is not None and launch.disk.low > 0

    other = plan(ws, tmp_path, "[gtft.retrain]\nenabled = true")
    assert other.hash != launch.hash
    assert (
        other.stages["train"].source == "measured: 2 runs of other recipes on this base on this box"
    )
    assert "computed" in other.memory.source
    assert plan(ws, tmp_path, '[gtft.card]\ncontact = "me"').stages["train"].low == 120


def test_an_interrupted_stage_and_another_base_say_nothing(
    tmp_path: Path, clock: list[float]
) -> None:
    ws = open_workspace(tmp_path / "ws", now=lambda: clock[0])
    run = make_run(ws, tmp_path)
    carry_on(ws, run, "harvest")
    ws.store.add_event(run.id, "train", "claimed", "somebody", "attempt 1")
    carry_on(ws, run, "train")
    launch = plan(ws, tmp_path)
    assert launch.stages["harvest"].low is not None
    assert "measured" not in launch.stages["train"].source
    path = write_formula(tmp_path)
    path.write_text(path.read_text().replace("hidden = 32", "hidden = 64"))
    bigger = resolve(path, root=tmp_path)
    launch = plan_launch(ws, bigger, root=tmp_path, disk_at=tmp_path, source_bytes=1)
    assert launch.stages["harvest"].low is None


def test_a_base_in_a_folder_is_weighed_and_a_missing_one_is_told(tmp_path: Path) -> None:
    path = write_formula(tmp_path)
    path.write_text(path.read_text().replace('model = "nano"', 'model = "./base"'))
    resolved = resolve(path, root=tmp_path)

    def look() -> Launch:
        return plan_launch(None, resolved, root=tmp_path, disk_at=tmp_path, source_bytes=1)

    launch = look()
    assert any("base" in w and "not there" in w for w in launch.warnings)
    assert (launch.verdict.word, launch.memory.low) == ("not known", None)
    (tmp_path / "base").mkdir()
    config = {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "vocab_size": 32000,
        "dtype": "bfloat16",
    }
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    launch = look()
    assert launch.memory.low is not None and launch.memory.low > 500 * MIB
    assert not any("base" in w for w in launch.warnings)


def test_too_little_memory_is_a_warning(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = open_workspace(tmp_path / "ws", now=lambda: clock[0])
    run = make_run(ws, tmp_path)
    carry_on(ws, run, "harvest", "train")
    write_peak(ws, run, 900 * MIB)
    small = Box(1, 0.0, 2000 * MIB, 1000 * MIB, None, None, 900 * MIB, ())
    monkeypatch.setattr("gtft.runner.launch.survey_box", lambda folder: small)
    # 512 MiB are kept free for the others.
    # The head is read from its file besides: 64 KiB.
    assert plan(ws, tmp_path).warnings == ("memory: 900.1 MiB needed, 488.0 MiB free for it",)


# -- the command line


def run_dispatch(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("GT_", "BD_", "BEADS_"))}
    return gtft("dispatch", "mol-gtft-tiny", *argv, cwd=folder, environ=environ)


def test_a_dry_run_shows_everything_and_creates_nothing(tmp_path: Path) -> None:
    make_town(tmp_path)
    done = run_dispatch(tmp_path, "--rig", "gadget", "--role", "refinery", "--dry-run", "--json")
    data = json.loads(done.stdout)["data"]
    assert (data["scope"], data["role"]) == (["rig:gadget"], "refinery")
    assert data["data"][0]["count"] == 32
    assert data["box"]["memory"] > 0
    assert len(data["beads"]) == 4
    assert not (tmp_path / ".gtft").exists()
    shown = run_dispatch(tmp_path, "--dry-run").stdout
    for word in ("recipe", "data", "tokens", "time", "memory", "box", "32 sessions", "verdict"):
        assert word in shown


def test_rig_and_role_fill_the_variables_of_that_name(tmp_path: Path) -> None:
    make_town(tmp_path)
    path = write_formula(tmp_path)
    text = path.read_text().replace('role = "witness"', 'role = "{{role}}"')
    text = text.replace('scope = ["rig:gizmo"]', 'scope = ["rig:{{rig}}", "rig:gizmo"]')
    variables = '[vars.role]\ndefault = "witness"\n\n[vars.rig]\ndefault = "gizmo"\n\n[gtft]\n'
    path.write_text(text.replace("[gtft]\n", variables, 1))
    argv = ("--rig", "gadget", "--role", "mayor", "--yes", "--json")
    refused = json.loads(run_dispatch(tmp_path, *argv).stdout)["error"]
    assert refused["kind"] == "input"
    assert "gtft corpus consent grant gizmo" in refused["fix"]
    assert open_workspace(tmp_path / ".gtft").store.list_runs() == []
    grant = ("corpus", "consent", "grant", "gizmo", "--purpose", "mayor", "--as", "mayor")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("GT_", "BD_", "BEADS_"))}
    assert gtft(*grant, cwd=tmp_path, environ=environ).returncode == 0
    done = run_dispatch(tmp_path, *argv)
    run_id = json.loads(done.stdout)["data"]["id"]
    run = open_workspace(tmp_path / ".gtft").store.find_run(run_id)
    assert run is not None
    assert run.recipe["variables"]["role"] == "mayor"
    assert run.recipe["recipe"]["scope"] == ["rig:gadget", "rig:gizmo"]
    assert run.recipe["sets"] == []


@pytest.mark.parametrize(
    ("key", "kind", "words"),
    [
        ('harvest.select=["rig:gizmo", "rolle:witness"]', "usage", "rolle:witness"),
        (
            'harvest.sources=[{type="beads", path="beads", licence="CC-BY-ND-4.0"}]',
            "recipe",
            "train",
        ),
    ],
)
def test_what_a_harvest_would_stop_at_stops_the_dispatch(
    tmp_path: Path, key: str, kind: str, words: str
) -> None:
    make_town(tmp_path)
    error = json.loads(run_dispatch(tmp_path, "--set", key, "--dry-run", "--json").stdout)["error"]
    assert error["kind"] == kind
    assert words in error["what"]


def test_a_key_is_set_where_there_is_no_variable_and_the_run_records_it(tmp_path: Path) -> None:
    make_town(tmp_path)
    done = run_dispatch(tmp_path, "--rig", "gadget", "--yes", "--json")
    data = json.loads(done.stdout)["data"]
    run = open_workspace(tmp_path / ".gtft").store.find_run(data["id"])
    assert run is not None
    assert run.recipe["sets"] == ['scope=["rig:gadget"]']
    assert [s["state"] for s in data["stages"]] == ["ready"] * 4
    assert run_dispatch(tmp_path, "--rig", 'x"]', "--yes").returncode == UsageError.exit_code


def test_nobody_to_ask_is_an_error_that_names_yes(tmp_path: Path) -> None:
    make_town(tmp_path)
    for argv in ((), ("--json",)):
        done = run_dispatch(tmp_path, *argv)
        assert done.returncode == UsageError.exit_code
        assert "--yes" in done.stdout + done.stderr
    assert open_workspace(tmp_path / ".gtft").store.list_runs() == []


@pytest.mark.parametrize(("answer", "runs"), [("n", 0), ("y", 1)])
def test_on_a_terminal_it_asks(tmp_path: Path, answer: str, runs: int) -> None:
    make_town(tmp_path)
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "gtft.cli.main", "dispatch", "mol-gtft-tiny"],
        cwd=tmp_path, stdin=theirs, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert "create the beads?" in done.stdout
    assert len(open_workspace(tmp_path / ".gtft").store.list_runs()) == runs


def test_a_missing_source_stops_it_before_a_bead_is_made(tmp_path: Path) -> None:
    make_town(tmp_path)
    (tmp_path / "beads" / "issues.jsonl").rename(tmp_path / "gone")
    done = run_dispatch(tmp_path, "--yes")
    assert done.returncode == InputError.exit_code
    assert open_workspace(tmp_path / ".gtft").store.list_runs() == []


def test_an_actor_that_no_bead_can_be_given_to_makes_nothing(tmp_path: Path) -> None:
    make_town(tmp_path)
    done = run_dispatch(tmp_path, "--yes", "--as", "gizmo/polecats/nux\nmayor")
    assert done.returncode == ConflictError.exit_code
    assert open_workspace(tmp_path / ".gtft").store.list_runs() == []


class AwayLedger:
    """A ledger of a town that is away when beads are to be made."""

    def find(self, **how: object) -> list[Bead]:
        return []

    def create_graph(self, beads: object, *, actor: str) -> dict[str, str]:
        raise TownError("the town's Dolt server does not answer", fix="gt dolt status")


def test_a_dispatch_without_its_beads_is_named_and_finished_later(
    ws: Workspace, tmp_path: Path
) -> None:
    away = dataclasses.replace(ws, ledger=cast(Ledger, AwayLedger()))
    with pytest.raises(TownError, match="beads are not made yet") as e:
        dispatch(away, resolve_tiny(tmp_path), "mayor", tmp_path)
    [run] = ws.store.list_runs()
    assert f"gtft run {run.id}" in e.value.fix
    catch_up(ws)
    [run] = ws.store.list_runs()
    assert ws.ledger.show(run.epic_bead or "").type == "epic"


# -- slinging


def test_slinging_needs_a_town_and_makes_nothing_without_one(tmp_path: Path) -> None:
    make_town(tmp_path)
    done = run_dispatch(tmp_path, "--yes", "--sling")
    assert done.returncode == UsageError.exit_code
    assert "needs a town" in done.stderr
    assert open_workspace(tmp_path / ".gtft").store.list_runs() == []


@pytest.mark.parametrize(
    ("environ", "may"),
    [
        ({"GT_ROLE": "mayor"}, True),
        ({"GT_ROLE": "gizmo/crew/max", "GT_POLECAT": "nux"}, True),
        ({}, True),
        ({"GT_ROLE": "gizmo/polecats/nux"}, False),
        ({"GT_ROLE": "polecat"}, False),
        ({"GT_POLECAT": "nux"}, False),
    ],
)
def test_a_polecat_is_told_that_it_may_not_sling(
    ws: Workspace, tmp_path: Path, environ: dict[str, str], may: bool
) -> None:
    rig = Rig("finetune", "ft", tmp_path, tmp_path, "finetune", "")
    home = Home(Town(tmp_path, "tt", (rig,)), rig)
    in_town = dataclasses.replace(ws, home=home)
    if may:
        assert check_sling(in_town, environ) is home
        return
    with pytest.raises(UsageError, match="no polecat sling") as e:
        check_sling(in_town, environ)
    assert "mayor" in e.value.fix


def test_gts_own_words_are_found_above_its_usage() -> None:
    usage = "Error: cross-rig mismatch: x\nUse --force\nUsage:\n  gt sling\n"
    assert read_error(Ran(("gt",), 1, "", usage)) == "cross-rig mismatch: x"
    assert read_error(Ran(("gt",), 3, "", "")) == "gt exited with 3"


def test_the_bead_is_slung_raw() -> None:
    argv = make_sling("ft-1.1", "finetune")
    assert argv[:3] == ("sling", "ft-1.1", "finetune")
    assert {"--hook-raw-bead", "--no-merge", "--no-convoy"} < set(argv)
    assert argv[-2:] == ("--args", "Run: gtft run ft-1.1")
