"""``gtft model`` on a workspace that holds one accepted card."""

import json
from pathlib import Path

import pytest
from card_case import RUN, Case
from click.testing import CliRunner, Result

from gtft.cli.main import main
from gtft.errors import EvidenceError, UsageError
from gtft.records.rows import ModelRow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ws")


@pytest.fixture(scope="module")
def model(home: Path) -> ModelRow:
    case = Case(home)
    case.fill()
    return case.register(case.make_card("---\nlicense: mit\n---\n\n# The card\n"))


def call(home: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["--workspace", str(home), "model", *args])


def data(result: Result) -> object:
    assert result.exit_code == 0, result.output
    body = json.loads(result.output)
    assert body["ok"] is True
    return body["data"]


@pytest.mark.parametrize(
    "args", [("--json",), ("list", "--json"), ("list", "--role", "witness", "--json")]
)
def test_a_list_of_models(home: Path, model: ModelRow, args: tuple[str, ...]) -> None:
    (row,) = data(call(home, *args))  # type: ignore[misc]
    assert row["name"] == model.name and row["run"] == RUN and row["version"] == 1
    assert row["since"] == "2026-03-01 09:12 UTC"


def test_a_list_for_people(home: Path, model: ModelRow) -> None:
    shown = call(home).output
    assert "model\trole\tversion" in shown and model.name in shown
    assert "No model yet" in call(home, "list", "--role", "mayor").output


def test_no_model_yet(tmp_path: Path) -> None:
    shown = call(tmp_path / "empty").output
    assert "No model yet" in shown and "gtft status" in shown
    assert data(call(tmp_path / "empty", "--json")) == []


@pytest.mark.parametrize("name", ["witness", "full"])
def test_one_model(home: Path, model: ModelRow, name: str) -> None:
    shown = data(call(home, "show", model.name if name == "full" else name, "--json"))
    assert isinstance(shown, dict)
    assert shown["adapter"] == model.adapter_id
    assert [a["kind"] for a in shown["artifacts"]] == ["corpus", "adapter", "eval", "card"]
    assert all(Path(a["path"]).is_dir() for a in shown["artifacts"])
    assert shown["recipe"]["name"] == "mol-gtft-quickstart"
    assert "card_text" not in shown


def test_one_model_for_people(home: Path, model: ModelRow) -> None:
    shown = call(home, "show", "witness").output
    assert model.name in shown and "not recorded" in shown
    assert f"Next: gtft model show {model.name} --card" in shown


def test_its_card(home: Path, model: ModelRow) -> None:
    assert call(home, "show", "witness", "--card").output.endswith("# The card\n")
    shown = data(call(home, "show", "witness", "--card", "--json"))
    assert isinstance(shown, dict) and shown["card_text"].startswith("---\nlicense: mit")


def test_an_unknown_model(home: Path, model: ModelRow) -> None:
    error = call(home, "show", "polecat").exception
    assert isinstance(error, UsageError) and "gtft model list" in error.fix


def test_a_changed_card_is_not_shown(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.fill()
    card = case.make_card("honest")
    case.register(card)
    (card.path / "README.md").write_text("better")
    assert isinstance(call(tmp_path, "show", "witness", "--card").exception, EvidenceError)
