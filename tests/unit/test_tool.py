"""Calling programs: what cannot be called is an error of the town, never a traceback."""

import os
from pathlib import Path

import pytest

from gtft.errors import TownError
from gtft.tool import run_tool


@pytest.mark.parametrize("argument", ["a\0b", "\ud800", "x" * 200_000])
def test_an_argument_that_no_program_can_be_given(argument: str, tmp_path: Path) -> None:
    with pytest.raises(TownError, match="could not be called"):
        run_tool("sh", "-c", argument, environ=os.environ, cwd=tmp_path)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TownError, match="could not be called"):
        run_tool("sh", "-c", "true", environ=os.environ, cwd=tmp_path / "gone")


def test_a_program_that_is_absent_or_hangs(tmp_path: Path) -> None:
    with pytest.raises(TownError, match="not on PATH"):
        run_tool("sh", environ={"PATH": str(tmp_path)}, cwd=tmp_path)
    with pytest.raises(TownError, match="did not answer"):
        run_tool("sh", "-c", "sleep 30", environ=os.environ, cwd=tmp_path, timeout=0.2)


def test_what_a_program_says_is_read_whatever_its_bytes(tmp_path: Path) -> None:
    ran = run_tool(
        "sh", "-c", r"printf '\377'; cat >&2; exit 3", environ=os.environ, cwd=tmp_path, stdin="in"
    )
    assert (ran.code, ran.stdout, ran.stderr) == (3, "\ufffd", "in")
