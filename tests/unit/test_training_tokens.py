"""``gtft corpus tokens``: what ids, paths, commands and keys cost, and what follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gtft.artifact import canonical_json, stage_artifact
from gtft.cli.main import main
from gtft.corpus.health.costs import NEVER_ADD, measure_costs, render_costs
from gtft.errors import BaseMissing, InputError
from health_case import answer, call, example, user

EXAMPLES = [
    example(
        1,
        user("See gz-4kx in gizmo/polecats/nux and https://example.org/a/b; either/or"),
        call("bd update gz-4kx --status=closed && gt mail send mayor/"),
        {"role": "tool", "content": '{"title": "x", "status" : "open"}'},
        answer("Run bd by hand."),
        bead="gz-4kx",
    )
]


def letters(report: dict[str, Any], kind: str) -> dict[str, int]:
    return {k: v["tokens"] for k, v in report[kind]["most tokens"].items()}


def test_each_kind_is_counted_by_what_it_spells() -> None:
    report = measure_costs(EXAMPLES, len)
    assert report["bead ids"]["by prefix"] == {"gz": {"ids": 1, "mean": 6.0, "max": 6}}
    assert (report["bead ids"]["mentions"], report["bead ids"]["tokens"]) == (2, 12)
    assert letters(report, "paths") == {"gizmo/polecats/nux": 18, "either/or": 9}
    assert letters(report, "commands") == {
        "bd update": len("bd update gz-4kx --status=closed"),
        "gt mail send": len("gt mail send mayor/"),
    }
    assert letters(report, "json keys") == {"command": 10, "status": 9, "title": 8}


def test_shares_are_of_all_tokens_and_the_advice_never_offers_added_tokens() -> None:
    report = measure_costs(EXAMPLES * 2, len)
    texts = [m["content"] for m in EXAMPLES[0].messages]
    arguments = json.dumps(EXAMPLES[0].messages[1]["tool_calls"][0]["function"]["arguments"])
    assert report["tokens"] == 2 * (sum(map(len, texts)) + len(arguments))
    ids = report["bead ids"]
    assert ids["share"] == round(24 / report["tokens"], 4)
    assert ids["tokens per example"] == 12.0
    assert report["advice"][-1] == NEVER_ADD and "does not load" in NEVER_ADD
    assert any("bead id is 6.0 tokens" in line for line in report["advice"])
    page = render_costs(report)
    assert "gz-…: 1 ids, 6.0 on average" in page and NEVER_ADD in page


def test_nothing_met_is_said_and_nothing_is_advised_but_that() -> None:
    report = measure_costs([example(1)], len)
    assert report["advice"] == [NEVER_ADD]
    assert render_costs(report).count("none met") == 4
    assert measure_costs([], len)["tokens"] == 0


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {c: n for n, c in enumerate(map(chr, range(32, 127)))}
    base = tmp_path / "bases" / "nano-0123456789ab"
    base.mkdir(parents=True)
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    made.save(str(base / "tokenizer.json"))
    with stage_artifact(tmp_path / "artifacts", "corpus") as staging:
        for side, rows in (("train", EXAMPLES), ("heldout", [])):
            lines = (canonical_json(e.to_json()) + "\n" for e in rows)
            (staging.path / f"{side}.jsonl").write_text("".join(lines))
    return tmp_path


def run(folder: Path, *argv: str) -> str:
    done = CliRunner().invoke(
        main, ["--workspace", str(folder), "corpus", "tokens", *argv], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_reads_only_the_tokenizer(workspace: Path) -> None:
    page = run(workspace)
    assert "in tokens of nano-0123456789ab" in page and "## What follows" in page
    file = workspace / "bases" / "nano-0123456789ab" / "tokenizer.json"
    for base in ("nano", str(file), str(file.parent)):
        body = json.loads(run(workspace, "--base", base, "--json"))["data"]
        assert body["tokens"]["bead ids"]["tokens per mention"] == 6.0


def test_base_without_a_tokenizer_is_named(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseMissing, match="no tokenizer"):
        run(workspace, "--base", str(tmp_path))
    bad = tmp_path / "tokenizer.json"
    bad.write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        run(workspace, "--base", str(bad))
