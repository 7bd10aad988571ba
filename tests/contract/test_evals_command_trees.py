"""The command trees that evaluation ships are what the real bd and gt say of themselves."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gtft.evals.checks.command import TREES, parse_command
from gtft.evals.shipped import read_shipped
from town_case import REPO, make_environ, need_tools, run


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    need_tools("bd", "gt")
    return make_environ(tmp_path_factory.mktemp("trees"))


def test_made_again_they_are_the_same(environ: dict[str, str], tmp_path: Path) -> None:
    script = REPO / "scripts" / "command-trees"
    subprocess.run([sys.executable, script, tmp_path], env=environ, check=True, timeout=300)
    for name in ("bd.json", "gt.json"):
        assert (tmp_path / name).read_bytes() == (TREES / name).read_bytes(), (
            "scripts/command-trees"
        )


@pytest.mark.parametrize(
    "line",
    [
        "bd update x-1 --acceptance-criteria a",
        "bd close x-1 --resolution done",
        "bd create T --label a",
        "gt mail send --to mayor/ -s S",
    ],
)
def test_what_help_hides_is_known_to_the_program(
    line: str, environ: dict[str, str], tmp_path: Path
) -> None:
    parse_command(line.split())
    done = run(*line.split(), "--help", environ=environ, cwd=tmp_path)
    assert "unknown flag" not in done.stdout + done.stderr


def test_the_programs_know_every_command_that_an_item_accepts(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """With --help nothing is run, yet flags are parsed first."""
    items = [
        i for i in read_shipped("authored") + read_shipped("generated") if i.check.name == "command"
    ]
    lines = sorted({line for i in items for line in i.check.args["accept"]})
    assert len(lines) > 60
    for line in lines:
        done = run(*shlex.split(line), "--help", environ=environ, cwd=tmp_path)
        said = done.stdout + done.stderr
        assert "Usage:" in said and "unknown" not in said.partition("Usage:")[0].lower(), line
