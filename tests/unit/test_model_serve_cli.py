"""``gtft model serve``: what it says, and what it refuses before anything is loaded. (A whole run: tests/e2e/test_serve_clients.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gtft.cli.main import main
from gtft.cli.model_serve import describe
from gtft.errors import GtftError
from gtft.runner.serving import Listening


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
