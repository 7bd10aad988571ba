"""``gtft recipe``: what each command prints and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gtft.cli.main import run
from gtft.recipe.find import shipped_folder
from gtft.recipe.formula import read_formula
from gtft.recipe.keys import all_keys
from gtft.recipe.lint import lint


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as e:
        run(["recipe", *args])
    out = capsys.readouterr()
    assert (e.value.code or 0) == code, out
    return out.out + out.err


def call_json(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> Any:
    body = json.loads(call(capsys, *args, "--json", code=code))
    assert body["ok"] is (code == 0)
    return body["data"] if code == 0 else body["error"]


PLAIN = 'formula = "plain"\n[[steps]]\nid = "a"\ntitle = "A \\u001b[31m"\n'


def test_a_bare_noun_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "formulas").mkdir()
    (tmp_path / "formulas" / "plain.formula.toml").write_text(PLAIN)
    (tmp_path / "formulas" / "broken.formula.toml").write_text("a = = 1")
    assert call(capsys) == call(capsys, "list")
    rows = {r["formula"]: r for r in call_json(capsys, "list")}
    assert rows["mol-gtft-quickstart"]["kind"] == "recipe"
    assert rows["plain"]["kind"] == "plain"
    assert "gtft has nothing to do" in rows["plain"]["summary"]
    assert rows["plain"]["file"] == "formulas/plain.formula.toml"
    assert rows["broken"]["kind"] == "unreadable"


def test_show_says_what_a_formula_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = call(capsys, "show", "mol-gtft-finetune")
    for word in ("transcripts", "required", "harvest", "Qwen/Qwen3-0.6B", "[gtft.base]"):
        assert word in text
    (tmp_path / "plain.formula.toml").write_text(PLAIN)
    text = call(capsys, "show", "plain.formula.toml")
    assert "a plain formula: gt and bd run it, gtft has nothing to do" in text
    assert "\x1b" not in text
    assert call_json(capsys, "show", "plain.formula.toml")["kind"] == "plain"


def test_lint_tells_every_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no problems" in call(capsys, "lint")
    (tmp_path / "bad.formula.toml").write_text('formula = "bad"\n[gtft]\nrol = "x"\n')
    error = call_json(capsys, "lint", "bad.formula.toml", code=3)
    places = {(p["file"], p["line"], p["key"]) for p in error["problems"]}
    assert ("bad.formula.toml", 3, "gtft.rol") in places
    assert "bad.formula.toml:3: gtft.rol:" in call(capsys, "lint", "bad.formula.toml", code=3)


def test_explain_a_formula(capsys: pytest.CaptureFixture[str]) -> None:
    body = call_json(capsys, "explain", "mol-gtft-quickstart", "--set", "train.seed=9")
    rows = {r["key"]: r for r in body["keys"]}
    assert rows["train.seed"]["value"] == 9
    assert rows["train.seed"]["from"] == "--set train.seed=9"
    assert "formula" in rows["train.lora.r"]["from"]
    assert rows["train.warmup"]["from"] == "default"
    given = ("--var", "transcripts=x", "--var", "effort=quick")
    dialled = call_json(capsys, "explain", "mol-gtft-finetune", *given)
    assert {r["key"]: r for r in dialled["keys"]}["train.lora.r"]["from"] == "effort quick"
    assert all(r["meaning"] for r in body["keys"])
    only = call_json(capsys, "explain", "mol-gtft-quickstart", "train.lora")
    assert {r["key"].rsplit(".", 1)[0] for r in only["keys"]} == {"train.lora"}
    error = call_json(capsys, "explain", "mol-gtft-quickstart", "train.epoch", code=2)
    assert "train.epochs" in error["what"]


def test_explain_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    text = call(capsys, "explain", "train.epochs")
    for word in ("a number, > 0", "default  2.0", "effort quick: 1.0", "effort thorough: 3.0"):
        assert word in text
    assert len(call_json(capsys, "explain")) == len(all_keys())
    assert "did you mean train.epochs" in call(capsys, "explain", "train.epoks", code=2)
    assert [k["key"] for k in call_json(capsys, "explain", "harvest.sources[0].path")] == [
        "harvest.sources[].path"
    ]


def test_every_key_is_described() -> None:
    assert [k.path for k in all_keys() if not k.description] == []


def test_new_writes_a_clean_formula_and_never_overwrites(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "formulas" / "mine.formula.toml"
    assert "formula = " in call(capsys, "new", "mine", "--dry-run")
    assert not path.exists()
    call(capsys, "new", "mine", "--role", "refinery")
    before = path.read_text()
    assert lint(read_formula(path)) == ()
    for key in all_keys():
        assert key.description in before or key.path.endswith((".NAME", "sources"))
    assert "exists already" in call(capsys, "new", "mine", code=2)
    assert path.read_text() == before
    body = call_json(capsys, "explain", "mine")
    assert body["recipe"]["role"] == "refinery"
    assert "cannot be the name" in call(capsys, "new", "../mine", code=2)


def test_every_commented_key_of_a_new_formula_may_be_uncommented(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call(capsys, "new", "mine")
    path = tmp_path / "formulas" / "mine.formula.toml"
    path.write_text(path.read_text().replace("\n#: ", "\n"))
    assert lint(read_formula(path)) == ()
    uncommented = call_json(capsys, "explain", "mine")["recipe"]
    call(capsys, "new", "other")
    default = call_json(capsys, "explain", "other")["recipe"]
    uncommented["base"]["revision"] = None
    for source in uncommented["harvest"]["sources"]:
        source["rig"] = None
    assert uncommented == default


def test_new_copies_a_formula_under_its_own_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call(capsys, "new", "mol-mine", "--from", "mol-gtft-quickstart")
    text = (tmp_path / "formulas" / "mol-mine.formula.toml").read_text()
    assert 'formula = "mol-mine"' in text
    assert "gtft run mol-mine" in text
    shipped = (shipped_folder() / "mol-gtft-quickstart.formula.toml").read_text()
    assert text.split("[vars.issue]")[1] == shipped.split("[vars.issue]")[1]
