"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gtft.runner.admission import FOLDER_VARIABLE
from gtft.runner.workspace import Workspace, open_workspace
from town_case import DoltServer, make_server, need_tools

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def own_queue(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Trainings of these tests queue among themselves, not with what else trains on this box."""
    os.environ[FOLDER_VARIABLE] = str(tmp_path_factory.mktemp("queue"))


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """An empty workspace with the embedded ledger and store."""
    return open_workspace(tmp_path / "ws")


@pytest.fixture
def clock() -> Iterator[list[float]]:
    """A clock that a test moves by hand: ``clock[0]`` is now, seconds."""
    yield [1_800_000_000.0]


@pytest.fixture(scope="session")
def dolt_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoltServer]:
    """A real Dolt server for the whole session; tests make databases of their own in it."""
    need_tools("dolt")
    server = make_server(tmp_path_factory.mktemp("dolt"))
    yield server
    server.stop()
