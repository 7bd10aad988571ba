"""Who lives on the box: real processes, and cgroup files as the kernel writes them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gtft.memory import read_limit
from gtft.runner.box import AGENT, DOLT, RUNNER, WORKER, classify, survey_box
from town_case import DoltServer, wait_for

GIB = 1024**3


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts programs and ends them with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def go(*argv: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL))
        return started[-1]

    yield go
    for child in started:
        child.kill()
        child.wait()


def find_pids(folder: Path, what: str) -> set[int]:
    return {pid for g in survey_box(folder).groups if g.what == what for pid in g.pids}


@pytest.mark.parametrize(
    ("name", "argv", "kind"),
    [
        ("dolt", ["dolt", "sql-server", "--config", "x"], DOLT),
        ("dolt", ["/usr/bin/dolt", "log"], None),
        ("claude", ["claude", "--resume"], AGENT),
        ("node", ["node", "--no-warnings", "/opt/gemini.js", "-p", "x"], AGENT),
        ("node", ["/usr/bin/node", "server.js"], None),
        ("python", ["python", "-P", "-m", "gtft.workers.train", "/job"], WORKER),
        ("python", ["python", "-m", "gtft.cli.main", "--workspace", "w", "run", "run-1"], RUNNER),
        ("gtft", ["/venv/bin/python", "/venv/bin/gtft", "work", "--watch"], RUNNER),
        ("gtft", ["/venv/bin/python", "/venv/bin/gtft", "status"], None),
        ("vim", ["vim", "claude"], None),
        ("python", ["python", "-m"], None),
    ],
)
def test_processes_are_known_by_what_they_run(name: str, argv: list[str], kind: str | None) -> None:
    assert classify(name, argv) == kind


def test_an_agent_and_a_runner_that_live_are_found(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    # Both are scripts that wait: what counts is the name that they run under.
    said = "import time\nopen(__file__ + '.up', 'w').close()\ntime.sleep(60)\n"
    for name in ("claude", "gtft"):
        (tmp_path / name).write_text(said)
    agent = start(sys.executable, str(tmp_path / "claude"))
    runner = start(sys.executable, str(tmp_path / "gtft"), "work")
    # One that is still starting grows between two looks at it.
    wait_for(lambda: all((tmp_path / f"{name}.up").exists() for name in ("claude", "gtft")))
    assert agent.pid in find_pids(tmp_path, AGENT)
    assert runner.pid in find_pids(tmp_path, RUNNER)
    box = survey_box(tmp_path)
    group = next(g for g in box.groups if g.what == AGENT)
    assert group.resident >= psutil.Process(agent.pid).memory_info().rss > 0
    assert any(line.startswith(f"{len(group.pids)} agent") for line in box.describe())
    agent.kill()
    agent.wait()
    assert agent.pid not in find_pids(tmp_path, AGENT)


def test_a_dolt_server_is_found(tmp_path: Path, dolt_server: DoltServer) -> None:
    assert dolt_server.process is not None
    assert dolt_server.process.pid in find_pids(tmp_path, DOLT)


def test_the_box_is_the_one_we_are_on(tmp_path: Path) -> None:
    box = survey_box(tmp_path)
    assert box.memory == psutil.virtual_memory().total
    assert 0 < box.free <= box.available <= box.memory
    assert box.cores >= 1
    assert box.disk_free > 0


def write_group(folder: Path, limit: str, used: int, idle: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {idle}\n")


def test_the_tightest_cgroup_counts_and_idle_pages_do_not(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/town/agents\n")
    cgroups = tmp_path / "cgroup"
    write_group(cgroups / "town" / "agents", "max", 1 * GIB, 0)
    assert read_limit(cgroups, own) == (None, None)
    write_group(cgroups / "town", str(4 * GIB), 3 * GIB, 1 * GIB)
    write_group(cgroups, str(16 * GIB), 5 * GIB, 0)
    assert read_limit(cgroups, own) == (4 * GIB, 2 * GIB)


def test_version_1_of_cgroups_says_no_limit_with_a_huge_number(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu:/x\n4:memory:/x\n")
    group = tmp_path / "cgroup" / "memory" / "x"
    group.mkdir(parents=True)
    (group / "memory.usage_in_bytes").write_text(f"{GIB}\n")
    (group / "memory.stat").write_text("total_inactive_file 0\n")
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert read_limit(tmp_path / "cgroup", own) == (None, None)
    (group / "memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    assert read_limit(tmp_path / "cgroup", own) == (2 * GIB, GIB)


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert read_limit(tmp_path, tmp_path / "absent") == (None, None)
