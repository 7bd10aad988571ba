"""``gtft model serve``: what it says, and what it refuses before anything is loaded. (A whole run: tests/e2e/test_serve_clients.py.)"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gtft.cli.main import main
from gtft.cli.model_serve import describe
from gtft.errors import GtftError
from gtft.records.deployments import Deployments
from gtft.runner.serving import Listening
from gtft.runner.workspace import open_workspace
from models_case import add_model


def test_four_kinds_of_clients_are_told_how() -> None:
    text = describe(Listening("http://127.0.0.1:8750/v1", ("witness-1", "base"), False))
    assert "OPENAI_BASE_URL=http://127.0.0.1:8750/v1 " in text
    assert "ANTHROPIC_BASE_URL=http://127.0.0.1:8750 ANTHROPIC_AUTH_TOKEN" in text
    assert "claude --model witness-1" in text
    config = json.loads(next(line for line in text.splitlines() if line.strip().startswith("{")))
    assert config["provider"]["gtft"]["options"]["baseURL"] == "http://127.0.0.1:8750/v1"
    assert set(config["provider"]["gtft"]["models"]) == {"witness-1", "base"}


def test_a_token_is_named_and_not_shown() -> None:
    text = describe(Listening("https://town.example/v1", ("witness-1",), True))
    assert "OPENAI_API_KEY=$GTFT_SERVE_TOKEN" in text
    assert "{env:GTFT_SERVE_TOKEN}" in text


def test_a_model_is_served_with_its_aliases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = open_workspace(tmp_path / "ws")
    first, second = add_model(ws, 1), add_model(ws, 2)
    for name, model in (("w@stable", first), ("audit", first), ("w@next", second)):
        Deployments(ws.store).set_alias(name, model, actor="ann")
    asked: list[Any] = []
    monkeypatch.setattr("gtft.cli.model_serve.serve_here", lambda *a: asked.append(a[3]) or 0)
    args = ["--workspace", str(ws.path), "model", "serve", "w@stable", "w@next"]
    assert CliRunner().invoke(main, args).exit_code == 0
    told = [(m["name"], m["role"], m["aliases"]) for m in asked[0]["models"]]
    assert told == [
        (first.name, "witness", ["audit", "w@stable"]),
        (second.name, "witness", ["w@next"]),
    ]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((), "there is no model to serve"),
        (("no-such-model",), "there is no model no-such-model"),
        (("--role", "witness"), "no model that is deployed or approved"),
    ],
)
def test_without_a_model_nothing_is_started(
    tmp_path: Path, args: tuple[str, ...], told: str
) -> None:
    done = CliRunner().invoke(main, ["--workspace", str(tmp_path / "ws"), "model", "serve", *args])
    assert isinstance(done.exception, GtftError)
    assert told in str(done.exception)
    assert "next:" in str(done.exception)
