"""An export is killed at every step: nothing half stands on the shelf or in --out, and the next one works."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from export_case import make_adapter, make_base, make_card, register
from gtft.artifact import Artifact, stage_artifact, verify_artifact
from gtft.errors import UsageError
from gtft.records.deployments import Deployments
from gtft.records.rows import ModelRow
from gtft.runner.exporting import place_copy
from gtft.runner.workspace import Workspace, open_workspace

LIMIT_S = 180.0
GO = "from gtft.cli.main import run\nrun()\n"
# As in a terminal: a shell starts what it puts in the background with SIGINT ignored, and a child inherits that.
ATTENDED = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + GO
# Dies where the store would be told.
UNTOLD = """
import os, signal
from gtft.records.deployments import Deployments
Deployments.add_artifact = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
"""
# Step, and whether the export is verified: only where it is about that, for asking takes most of the time.
STEPS = {"writing the weights": False, "asking the export": True, "hashing": False}


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return open_workspace(tmp_path_factory.mktemp("town") / ".gtft")


@pytest.fixture(scope="module")
def model(ws: Workspace) -> ModelRow:
    adapter = make_adapter(ws.path, make_base(ws.path))
    return register(ws, adapter, make_card(ws.path))


def start(ws: Workspace, out: Path, code: str = GO, *more: str) -> subprocess.Popen[str]:
    argv = ["--workspace", str(ws.path), "model", "export", "witness", "--format", "merged"]
    more = more or ("--no-verify",)
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv, "--dtype", "f32", "--out", str(out), *more],
        cwd=ws.path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(process: subprocess.Popen[str], step: str) -> None:
    """Until it says that this step begins."""
    assert process.stderr is not None
    overdue = threading.Timer(LIMIT_S, process.kill)
    overdue.start()
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(step):
            overdue.cancel()
            return
    raise AssertionError(f"it never came to {step}: {''.join(lines)[-2000:]}")


def kill(process: subprocess.Popen[str]) -> None:
    """The command, not its worker: that has to notice by itself."""
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def check(ws: Workspace, model: ModelRow, out: Path) -> list[Artifact]:
    """Whatever is there is whole: on the shelf, in the store and in ``out``."""
    shelf = [verify_artifact(p, kind="export") for p in sorted(ws.artifacts.glob("export-*"))]
    rows = Deployments(ws.store).list_children(model.adapter_id, "export")
    assert {r.id for r in rows} <= {a.id for a in shelf}
    if out.exists():
        verify_artifact(out, kind="export")
    return shelf


def list_scraps(ws: Workspace, out: Path) -> list[str]:
    return [p.name for p in (*ws.artifacts.glob(".tmp-*"), *out.parent.glob(f".{out.name}*"))]


def test_killed_at_any_step_it_leaves_nothing_half(ws: Workspace, model: ModelRow) -> None:
    out = ws.path.parent / "exported"
    # Each start loads torch; over the runs of the tests every step has its turn.
    step = random.choice(sorted(STEPS))
    print(f"killed at: {step}")
    process = start(ws, out, GO, "--verify" if STEPS[step] else "--no-verify")
    wait_for(process, step)
    kill(process)
    check(ws, model, out)
    assert not out.exists()

    # Made, but the store was never told.
    process = start(ws, out, UNTOLD + GO)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGKILL
    (made,) = check(ws, model, out)
    assert Deployments(ws.store).list_children(model.adapter_id, "export") == []

    process = start(ws, out, GO, "--no-verify", "--json")
    told, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    data = json.loads(told)["data"]
    assert (data["id"], data["out"], data["verified"]) == (made.id, str(out), False)
    assert check(ws, model, out) == [made]
    (row,) = Deployments(ws.store).list_children(model.adapter_id, "export")
    assert (row.id, row.summary["verified"]) == (made.id, False)
    assert verify_artifact(out).id == made.id
    assert list_scraps(ws, out) == []
    assert json.loads((ws.path / row.path / "summary.json").read_text()) == row.summary


def test_a_worker_that_is_killed_is_told(ws: Workspace, model: ModelRow) -> None:
    process = start(ws, ws.path.parent / "never")
    wait_for(process, "merging")
    (worker,) = psutil.Process(process.pid).children()
    worker.kill()
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 13
    assert "ended by SIGKILL" in said
    assert not (ws.path.parent / "never").exists()


def test_ctrl_c_takes_away_what_is_half_made(ws: Workspace, model: ModelRow) -> None:
    process = start(ws, ws.path.parent / "never", ATTENDED, "--verify")
    wait_for(process, "asking the adapter")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert list_scraps(ws, ws.path.parent / "never") == []


def make_artifact(root: Path) -> Artifact:
    with stage_artifact(root, "export") as staging:
        for name in ("a", "b", "c"):
            (staging.path / name).write_bytes(os.urandom(1000))
        (staging.path / "plots").mkdir()
        (staging.path / "plots" / "d").write_bytes(b"d")
    return staging.result


# Dies after so many files.
DYING = """
import os, shutil, signal, sys
from pathlib import Path
from gtft.artifact import read_artifact
from gtft.runner.exporting import place_copy
left = int(sys.argv[3])
whole = shutil.copy2
def copy(*a, **k):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return whole(*a, **k)
shutil.copytree.__kwdefaults__ = None
shutil.copytree.__defaults__ = (False, None, copy, False, False)
place_copy(read_artifact(Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("files", range(5))
def test_a_copy_that_is_killed_leaves_the_old_state(tmp_path: Path, files: int) -> None:
    made, out = make_artifact(tmp_path / "shelf"), tmp_path / "to" / "out"
    done = subprocess.run([sys.executable, "-c", DYING, str(made.path), str(out), str(files)])
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(list(out.parent.iterdir())) == 1
    place_copy(made, out)
    assert verify_artifact(out).id == made.id
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_out_is_never_written_over(tmp_path: Path) -> None:
    made, out = make_artifact(tmp_path / "shelf"), tmp_path / "out"
    out.mkdir()
    place_copy(made, out)
    before = json.loads((out / "artifact.json").read_text())
    for taken in (out, tmp_path / "link", out / "a"):
        if taken.name == "link":
            taken.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="there already"):
            place_copy(made, taken)
    assert json.loads((out / "artifact.json").read_text()) == before
    assert not (tmp_path / "elsewhere").exists()
