"""``gtft corpus preview --tokens``: every token with what it is; ``preview`` prints nothing that moves a cursor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gtft.artifact import canonical_json, stage_artifact
from gtft.cli.corpus_preview import escape, render_tokens
from gtft.cli.main import main
from gtft.errors import BaseMissing, UsageError
from gtft.workers.preview import preview
from health_case import answer, call, example, user
from training_case import make_tokenizer

HOSTILE = "pump\x1b[2J 7\u202e?\x07"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of two training examples and a held-out one, and the tokenizer of a base in ``bases``."""
    folder = tmp_path_factory.mktemp("preview")
    make_tokenizer().save_pretrained(folder / "bases" / "nano-0123456789ab")
    made = {
        "train": [
            example(1, user(HOSTILE), answer("mend"), user("and 8?"), answer("wait")),
            example(2, user("look"), call("bd ready")),
        ],
        "heldout": [example(3, user("pump 9?"), answer("mend"))],
    }
    with stage_artifact(folder / "artifacts", "corpus") as staging:
        for side, examples in made.items():
            lines = (canonical_json(e.to_json()) + "\n" for e in examples)
            (staging.path / f"{side}.jsonl").write_text("".join(lines))
    return folder


def run(folder: Path, *argv: str) -> str:
    done = CliRunner().invoke(
        main, ["--workspace", str(folder), "corpus", "preview", *argv], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def ask(folder: Path, docs: list[dict[str, Any]], max_length: int = 256) -> list[dict[str, Any]]:
    base = folder / "bases" / "nano-0123456789ab"
    return list(preview({"base": str(base), "max_length": max_length, "examples": docs}))


def text_of(row: dict[str, Any], kind: str) -> str:
    return "".join(t for p in row["pieces"] if p["kind"] == kind for t, _ in p["tokens"])


def test_the_command_asks_a_worker_and_marks_each_line_without_colour(workspace: Path) -> None:
    page = run(workspace, "-n", "2", "--tokens", "--max-length", "128")
    body = json.loads(run(workspace, "-n", "1", "--json"))["data"]
    assert [e["id"] for e in body["examples"]] == [example(1).id]
    assert "row 1 of 1: " in page and "trained in 2 turns" in page
    lines = [line for line in page.splitlines() if " │ " in line]
    assert {line.split(" │ ")[0].strip() for line in lines} == {"trained", "context"}
    trained = [line for line in lines if line.startswith("trained │ ")]
    assert "mend" in trained[0].replace("·", "") and trained[0].endswith("<|im_end|>")
    assert "\x1b" not in page and "\u202e" not in page and "\\u{1b}" in page


def test_every_token_of_a_row_is_of_one_kind(workspace: Path) -> None:
    talk = [user("pump 7?"), answer("mend"), user("and 8?"), answer("wait")]
    doc = {"id": "ex-1", "messages": talk, "tools": [], "weight": 1.0, "side": "train"}
    ((row,),) = (found["rows"] for found in ask(workspace, [doc]))
    counted = dict.fromkeys(("trained", "context", "masked"), 0)
    for piece in row["pieces"]:
        counted[piece["kind"]] += sum(n for _, n in piece["tokens"])
    assert counted == {"trained": row["supervised"], "context": row["context"], "masked": 0}
    assert sum(counted.values()) == row["tokens"]


def test_what_the_worker_finds_wrong_is_the_commands_error(workspace: Path) -> None:
    plain = make_tokenizer()
    plain.chat_template = None
    plain.save_pretrained(workspace / "mute")
    with pytest.raises(BaseMissing, match="no chat template"):
        run(workspace, "--tokens", "--base", str(workspace / "mute"))


def test_base_that_is_not_on_this_machine(workspace: Path, tmp_path: Path) -> None:
    for given in (str(tmp_path / "none"), str(tmp_path), "nobody/nothing-like-it"):
        with pytest.raises(BaseMissing) as e:
            run(workspace, "--tokens", "--base", given)
        assert e.value.fix


def test_options_of_tokens_need_it(workspace: Path) -> None:
    with pytest.raises(UsageError, match="--tokens"):
        run(workspace, "--full")


def test_answers_of_other_rows_are_masked_and_held_out_ones_too(workspace: Path) -> None:
    talk = [m for n in range(6) for m in (user(f"ask {n} " + "pump " * 8), answer(f"mend {n}"))]
    doc = {"id": "ex-1", "messages": talk, "tools": [], "weight": 1.0, "side": "train"}
    (found,) = ask(workspace, [doc], 160)
    first, *later = found["rows"]
    assert later and text_of(first, "masked") == ""
    assert [r["cut_messages"] > 0 for r in later] == [True] * len(later)
    said = "".join(text_of(r, "trained") for r in found["rows"])
    assert [said.count(f"mend {n}") for n in range(6)] == [1] * 6
    assert any("mend" in text_of(r, "masked") for r in later)
    (held,) = ask(workspace, [{**doc, "messages": talk[:2], "side": "heldout"}])
    assert "mend 0" in text_of(held["rows"][0], "masked")
    assert held["rows"][0]["supervised"] == 0


def test_example_that_trains_nothing_says_why(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doc = {"id": "ex-1", "messages": [user("a")], "tools": [], "weight": 1.0, "side": "train"}
    render_tokens(ask(workspace, [doc]), "nano", False)
    assert "trains nothing: no-assistant-turn" in capsys.readouterr().out


def test_long_context_is_shortened_unless_full(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = [user("pump " * 150), answer("mend")]
    doc = {"id": "ex-1", "messages": talk, "tools": [], "weight": 0.5, "side": "train"}
    found = ask(workspace, [doc], 1024)
    render_tokens(found, "nano", False)
    short = capsys.readouterr().out
    render_tokens(found, "nano", True)
    full = capsys.readouterr().out
    assert "tokens …" in short and "weight 0.5" in short
    assert "tokens …" not in full and full.count("pump") == 150


def test_characters_of_several_tokens_are_shown_whole(workspace: Path) -> None:
    doc = {"id": "e", "messages": [user("é漢🚰"), answer("漢")], "tools": [], "weight": 1.0}
    (found,) = ask(workspace, [{**doc, "side": "train"}])
    shown = "".join(t for p in found["rows"][0]["pieces"] for t, _ in p["tokens"])
    assert "é漢🚰" in shown and "\ufffd" not in shown


def test_plain_preview_escapes_what_moves_a_cursor(workspace: Path) -> None:
    page = run(workspace, "-n", "1")
    assert "\x1b" not in page and "pump\\u{1b}[2J 7\\u{202e}?\\u{7}" in page
    assert escape("tab\tend") == "tab\\tend"
