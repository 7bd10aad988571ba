"""``gtft corpus``: lists, pages, previews; --json on each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gtft.artifact import short_id
from gtft.cli.corpus import show_places
from gtft.cli.main import main
from gtft.corpus.intake import Source
from gtft.corpus.settings import Settings
from gtft.corpus.snapshot import make_corpus
from gtft.errors import GtftError

TOWN = Path(__file__).parents[2] / "examples" / "town"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("cli")
    settings = Settings(
        (Source("beads", "beads"), Source("formulas", "formulas")),
        5, 0.2, 1000, 400, 0.8, 7, "witness", b"k" * 32
    )  # fmt: skip
    made = make_corpus(settings, TOWN, folder / "artifacts", folder / "work", [], lambda *_: None)
    return folder, short_id(made.id)


def run(workspace: Path, *argv: str, stdin: str | bytes | None = None) -> str:
    done = CliRunner().invoke(
        main, ["--workspace", str(workspace), "corpus", *argv], input=stdin, catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def data(workspace: Path, *argv: str) -> Any:
    body = json.loads(run(workspace, *argv, "--json"))
    assert body["ok"] is True
    return body["data"]


def test_the_bare_noun_lists(workspace: tuple[Path, str]) -> None:
    folder, corpus = workspace
    assert corpus in run(folder)
    assert run(folder) == run(folder, "list")
    (row,) = data(folder, "list")["corpora"]
    assert row["id"].startswith(f"sha256:{corpus}")
    assert row["train"] >= 5


def test_an_empty_workspace_says_what_to_do(tmp_path: Path) -> None:
    assert "gtft run" in run(tmp_path)
    with pytest.raises(GtftError) as caught:
        run(tmp_path, "health")
    assert caught.value.exit_code == 2
    assert "gtft run" in caught.value.fix


def test_show_names_files_and_sources(workspace: tuple[Path, str]) -> None:
    folder, corpus = workspace
    page = run(folder, "show", corpus[:6])
    assert "train.jsonl" in page and "beads beads" in page
    shown = data(folder, "show", corpus)
    assert {"train.jsonl", "base.txt"} <= {f["name"] for f in shown["files"]}
    assert shown["manifest"]["harvest"]["role"] == "witness"


def test_health_is_words_first_and_the_same_page_as_the_file(workspace: tuple[Path, str]) -> None:
    folder, corpus = workspace
    page = run(folder, "health")
    written = (folder / "artifacts" / f"corpus-{corpus}" / "health.md").read_text()
    assert page.strip() == written.strip()
    assert page.index("needed") < page.index("##")
    assert data(folder, "health")["health"]["leakage"]["shared clusters"] == 0


def test_preview_marks_what_is_trained(workspace: tuple[Path, str]) -> None:
    folder, _ = workspace
    page = run(folder, "preview", "-n", "1", "--source", "beads")
    assert "[trained] assistant:" in page and "[trained] user" not in page
    (shown,) = data(folder, "preview", "-n", "1")["examples"]
    assert shown["trained"] == [m["role"] == "assistant" for m in shown["messages"]]
    assert data(folder, "preview", "--example", shown["id"])["examples"] == [shown]
    assert "[trained]" not in run(folder, "preview", "-n", "1", "--side", "heldout")
    # An id is enough, on whatever side the example is.
    (held,) = data(folder, "preview", "-n", "1", "--side", "heldout")["examples"]
    page = run(folder, "preview", "--example", held["id"])
    assert "held out" in page and "[trained]" not in page
    with pytest.raises(GtftError, match="no such example on the train side"):
        run(folder, "preview", "--example", held["id"], "--side", "train")
    with pytest.raises(GtftError) as caught:
        run(folder, "preview", "--select", "label:audit:good")
    assert "keeps no labels" in caught.value.why
    with pytest.raises(GtftError, match="no such example"):
        run(folder, "preview", "--role", "nobody")


def test_redact_shows_what_would_go_as_text_and_as_spans(
    workspace: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = workspace
    token = "gh" + "p_" + "A1b2C3d4E5" * 4
    word = "correct" + "horse"
    text = f'é {token}\npassword = "{word}"\n/home/steve/x\n'
    path = tmp_path / "notes.txt"
    path.write_text(text)
    assert re.fullmatch(
        r'é <SECRET:github_pat:[0-9a-f]{8}>\npassword = "<SECRET:\w+:[0-9a-f]{8}>"\n/home/user[0-9a-f]{6}/x\n',
        run(folder, "redact", str(path)),
    )
    assert token not in run(folder, "redact", "-", stdin=text)
    spans = data(folder, "redact", str(path))["files"][0]["spans"]
    assert [text[s["start"] : s["end"]] for s in spans] == [token, word, "steve"]
    assert [s["kind"] for s in spans][::2] == ["github_pat", "home_user"]
    assert all(token not in json.dumps(s) for s in spans)


def test_a_file_that_is_not_there_is_an_input_error(workspace: tuple[Path, str]) -> None:
    with pytest.raises(GtftError) as caught:
        run(workspace[0], "redact", "no-such-file")
    assert caught.value.exit_code == 4


def test_show_names_the_first_places_that_were_bad(capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"reason": "file of no known format", "file": "t/notes", "line": 0, "detail": ""}
    torn = {"reason": "bad line", "file": "t/a.jsonl", "line": 7, "detail": "cut off"}
    show_places({"t": {"named": [whole] * 12 + [torn], "tables": {}}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "  t/a.jsonl:7: bad line (cut off)"
    assert lines[3] == "  t/notes: file of no known format"
    assert "  … and 3 more" in lines
    show_places({"t": {"named": []}})
    assert capsys.readouterr().out == ""
