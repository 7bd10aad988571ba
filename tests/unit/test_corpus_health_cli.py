"""``gtft corpus health``: the report, the page, flagged examples, what is asked of programs and tokenizers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gtft.artifact import canonical_json, short_id, stage_artifact, write_json
from gtft.cli.main import main
from gtft.corpus.health.measure import Figures, Meter
from gtft.corpus.health.render import render_health
from gtft.errors import EvidenceError, GtftError, InputError, MissingExtra
from health_case import answer, call, example, user


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """A corpus of three examples in the workspace ``tmp_path``; its short id."""
    meter = Meter("witness", 1000)
    with stage_artifact(tmp_path / "artifacts", "corpus") as staging:
        flags = []
        for side, made in (
            ("train", [example(1, user("gz-4kx"), call("bd sync"), bead="gz-4kx"), example(2)]),
            ("heldout", [example(3)]),
        ):
            with (staging.path / f"{side}.jsonl").open("w") as f:
                for e in made:
                    f.write(canonical_json(e.to_json()) + "\n")
                    if found := meter.add(e, side, ["conflict"] if e.id.endswith("2") else []):
                        flags.append({"id": e.id, "flags": found})
        (staging.path / "flags.jsonl").write_text("".join(json.dumps(x) + "\n" for x in flags))
        health = meter.finish([], Figures())
        write_json(staging.path / "health.json", health)
        (staging.path / "health.md").write_text(render_health(health))
    return short_id(staging.result.id)


def run(folder: Path, *argv: str) -> str:
    done = CliRunner().invoke(
        main, ["--workspace", str(folder), "corpus", "health", *argv], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def data(folder: Path, *argv: str) -> Any:
    return json.loads(run(folder, *argv, "--json"))["data"]


def test_the_report_is_the_file_and_begins_with_the_verdict(tmp_path: Path, corpus: str) -> None:
    page = run(tmp_path)
    written = tmp_path / "artifacts" / f"corpus-{corpus}" / "health.md"
    assert page.strip() == written.read_text().strip()
    assert page.startswith("# Corpus health: not yet")
    assert data(tmp_path, corpus)["health"]["verdict"]["verdict"] == "not yet"


def test_flagged_examples_by_the_beginning_of_a_flag(tmp_path: Path, corpus: str) -> None:
    assert data(tmp_path, "--flagged", "stale")["flagged"] == [
        {"id": example(1).id, "flags": ["stale command: bd sync"]}
    ]
    assert [x["id"] for x in data(tmp_path, "--flagged", "")["flagged"]] == [
        example(1).id, example(2).id
    ]  # fmt: skip
    assert "next: gtft corpus preview --example ex-" in run(tmp_path, "--flagged", "conflict")
    assert "no example" in run(tmp_path, "--flagged", "nothing")


def test_the_page_is_written_where_it_is_wanted(
    tmp_path: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    assert str(path) in run(tmp_path, "--html", str(path))
    assert path.read_text().startswith("<!doctype html>") and corpus in path.read_text()
    monkeypatch.chdir(tmp_path)
    assert data(tmp_path, "--html")["html"] == f"corpus-{corpus}-health.html"
    assert (tmp_path / f"corpus-{corpus}-health.html").read_text() == path.read_text()
    with pytest.raises(GtftError):
        run(tmp_path, "--html", str(tmp_path / "no" / "such" / "folder.html"))


def test_installed_programs_are_asked_instead_of_the_list(
    tmp_path: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    # A bd of another day, which knows sync.
    pages = {
        "": "A.\n\nUsage:\n  bd [command]\n\nAvailable Commands:\n  sync   S\n",
        "sync ": "S.\n\nUsage:\n  bd sync [flags]\n\nFlags:\n      --all   x\n",
    }
    cases = "".join(f"\"{k}--help\") printf '%b' {json.dumps(v)};;\n" for k, v in pages.items())
    (folder / "bd").write_text(
        f'#!/bin/sh\ncase "$*" in\n--version) echo "bd version 0.1.2";;\n{cases}*) exit 1;;\nesac\n'
    )
    (folder / "bd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    assert data(tmp_path)["health"]["staleness"]["not known"] == 1
    stale = data(tmp_path, "--installed")["health"]["staleness"]
    assert stale["asked"].startswith("bd 0.1.2")
    assert stale["not known"] == 0


def test_tokens_per_bead_id_need_a_tokenizer(
    tmp_path: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={c: n for n, c in enumerate("gz-4kx")}, merges=[])
    )
    made.save(str(tmp_path / "tokenizer.json"))
    found = data(tmp_path, "--tokenizer", str(tmp_path))["health"]["tokens per bead id"]
    assert (found["ids"], found["mentions"], found["tokens per mention"]) == (1, 1, 6.0)
    assert "1 ids, 1 mentions" in run(tmp_path, "--tokenizer", str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        run(tmp_path, "--tokenizer", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra):
        run(tmp_path, "--tokenizer", str(tmp_path))


def test_a_report_of_an_older_gtft_says_what_to_do(tmp_path: Path) -> None:
    with stage_artifact(tmp_path / "artifacts", "corpus") as staging:
        write_json(staging.path / "health.json", {"examples": {"train": 1}})
    with pytest.raises(EvidenceError, match="older gtft") as caught:
        run(tmp_path)
    assert "harvest again" in caught.value.fix


def test_an_answer_is_never_the_same_as_its_flags() -> None:
    """A flag names commands only: no text of an example gets into the report."""
    meter = Meter("witness", 1000)
    hidden = "kept-to-itself"
    meter.add(example(1, user(hidden), answer(f"```bash\nbd sync {hidden}\n```")), "train")
    assert hidden not in json.dumps(meter.finish([], Figures()))
