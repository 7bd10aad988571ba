"""The commands of docs/in-a-town.md, in order, in a real throw-away town; the eval is smaller than the page's."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gtft.runner.workspace import Workspace, open_workspace
from town_case import SMALLER_EVAL, TestTown, make_origin, make_real_town, wait_for

# On a busy box gt was seen to take a town's server for a stray one.
pytestmark = pytest.mark.alone

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "in-a-town.md"
# Who types the commands of a section, and where.
ACTORS = {
    "A polecat works": ("finetune/polecats/nux", "finetune/polecats/nux/finetune"),
    "The witness decides": ("gizmo/witness", "gizmo/witness"),
}
MAYOR = ("mayor/", "mayor")


def read_sections() -> list[tuple[str, list[str]]]:
    """(heading, its commands) of the page, in order."""
    sections = []
    for part in PAGE.read_text("utf-8").split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        blocks = re.findall(r"```console\n(.*?)```", body, re.S)
        lines = [line[2:] for b in blocks for line in b.splitlines() if line.startswith("$ ")]
        sections.append((heading, lines))
    return sections


@pytest.fixture
def town(tmp_path: Path) -> Iterator[TestTown]:
    made = make_real_town(tmp_path, {"gizmo": "gz"})
    shutil.copytree(REPO / "examples" / "town", made.root / "history")
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    starter = bin_dir / "gtft"
    starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gtft.cli.main "$@"\n')
    starter.chmod(0o755)
    made.environ["PATH"] = f"{bin_dir}:{made.environ['PATH']}"
    yield made
    made.end()


@pytest.mark.timeout(1200)
def test_every_command_of_the_page_works(town: TestTown, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origins" / "finetune", town.environ)
    names = {"<git url>": origin.as_uri()}
    for heading, commands in read_sections():
        actor, folder = ACTORS.get(heading, MAYOR)
        for command in commands:
            for name, value in names.items():
                command = command.replace(name, value)
            if command.startswith("gtft dispatch"):
                command = shlex.join([*shlex.split(command), *SMALLER_EVAL])
            done = type_command(town, command, actor, folder)
            said = f"{heading}: {command}\n{done.stdout}\n{done.stderr}"
            # Before the install doctor finds that it is missing; that is what it is for.
            expected = (0, 1) if command == "gtft doctor" else (0,)
            assert done.returncode in expected, said
            assert "Traceback" not in said
            if command.startswith("gtft dispatch") and "--yes" in command:
                names |= find_names(town)
            if command.startswith("gtft run"):
                wait_for(lambda: stands_still(open_town(town)), 700, 1.0)
    ws = open_workspace(town.root / ".gtft")
    assert ws.home is None, "uninstalled"


def type_command(
    town: TestTown, command: str, actor: str, folder: str
) -> subprocess.CompletedProcess[str]:
    environ = {**town.environ, "GT_ROLE": actor.strip("/"), "BD_ACTOR": actor}
    if command.startswith(("gt rig", "bd ")):
        # The rig's own beads are where its folder is.
        folder = "finetune" if command.startswith("bd ") else "."
    (town.root / folder).mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        shlex.split(command), cwd=town.root / folder, env=environ, capture_output=True, text=True,
        timeout=300, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def open_town(town: TestTown) -> Workspace:
    return open_workspace(town.root / ".gtft", environ=town.environ)


def find_names(town: TestTown) -> dict[str, str]:
    ws = open_town(town)
    [run] = ws.store.list_runs()
    return {
        "<bead>": run.epic_bead or "",
        "<run>": run.id,
        "<eval bead>": ws.store.find_stage(run.id, "eval").bead_id or "",
    }


def stands_still(ws: Workspace) -> bool:
    """The run waits for its witness or is done, and everything is delivered."""
    states = [s.state for s in ws.store.list_stages()]
    return (set(states) == {"done"} or states[2] == "review") and not ws.store.list_messages(
        pending=True
    )


def test_the_page_has_a_section_for_every_actor() -> None:
    assert set(ACTORS) <= {heading for heading, _ in read_sections()}
