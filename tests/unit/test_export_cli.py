"""``gtft model export`` where nothing heavy is needed: what it refuses, and what a worker that fails is told as."""

import shutil
from pathlib import Path

import pytest
from card_case import Case
from click.testing import CliRunner, Result

from gtft.artifact import short_id, stage_artifact
from gtft.cli.main import main
from gtft.errors import GtftError, UsageError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = Case(tmp_path_factory.mktemp("ws"))
    case.fill()
    case.register(case.make_card("# The card\n"))
    return case.home


def call(home: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["--workspace", str(home), "model", "export", *args])


def test_the_help_names_every_format_and_gives_examples() -> None:
    shown = CliRunner().invoke(main, ["model", "export", "--help"]).output
    for word in ("adapter", "merged", "lora-gguf", "ollama", "q4_k_m", "--no-verify", "--out DIR"):
        assert word in shown
    assert "gtft model export witness --format merged" in shown


@pytest.mark.parametrize("args", [(), ("--format", "onnx"), ("--format", "gguf", "--quant", "q2")])
def test_what_is_not_made_is_refused_at_the_command_line(home: Path, args: tuple[str, ...]) -> None:
    assert call(home, "witness", *args).exit_code == 2


def test_an_unknown_model_and_a_taken_folder_are_refused_before_any_work(
    home: Path, tmp_path: Path
) -> None:
    assert isinstance(call(home, "nobody", "--format", "merged").exception, UsageError)
    (tmp_path / "full").write_text("")
    error = call(home, "witness", "--format", "merged", "--out", str(tmp_path / "full")).exception
    assert isinstance(error, UsageError)
    assert "there already" in error.what


def test_the_folder_that_one_is_in_is_refused_before_any_work(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = call(home, "witness", "--format", "merged", "--out", ".").exception
    assert isinstance(error, UsageError) and "that you are in" in error.what
    assert tmp_path.is_dir() and list(tmp_path.iterdir()) == []


def test_what_the_worker_reports_comes_out_as_it_was_raised(home: Path) -> None:
    """The case's adapter holds a summary and nothing else."""
    error = call(home, "witness", "--format", "merged").exception
    assert isinstance(error, GtftError)
    assert error.kind == "evidence"
    assert "no file" in error.what
    assert list((home / "artifacts").glob("*export*")) == []


def test_another_adapter_in_the_place_of_the_models_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.fill()
    case.register(case.make_card("# The card\n"))
    with stage_artifact(tmp_path / "artifacts", "adapter") as staging:
        (staging.path / "summary.json").write_text("{}")
    mine, other = case.made["train"], staging.result
    shutil.rmtree(mine.path)
    other.path.rename(mine.path)
    error = call(case.home, "witness", "--format", "merged").exception
    assert isinstance(error, GtftError)
    assert error.kind == "evidence"
    assert f"is {short_id(other.id)}, not {short_id(mine.id)}" in error.what
