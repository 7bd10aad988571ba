"""Pairs that people judged blind: in the corpus where their example is on the training side, nowhere else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import Artifact
from gtft.corpus.intake import Source
from gtft.corpus.library import read_examples
from gtft.corpus.linking.preference import Judged
from gtft.corpus.settings import Settings
from gtft.corpus.snapshot import make_corpus
from gtft.shelf import read_document

TOWN = Path(__file__).resolve().parents[2] / "examples" / "town"
SETTINGS = Settings(
    sources=(Source("claude-code", "transcripts"),),
    min_examples=5,
    heldout=0.25,
    window_tokens=1000,
    tool_result_chars=400,
    near_duplicate=0.8,
    seed=7,
    role="witness",
    key=b"k" * 32,
)
# Made up at run time: it must look like a key to us and like nothing to those who scan this file.
KEY = "ghp" + "_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hL3nR6"


def harvest(out: Path, *judged: Judged) -> Artifact:
    settings = replace(SETTINGS, judged=judged)
    return make_corpus(settings, TOWN, out / "artifacts", out / "work", (), lambda *_: None)


def judge(corpus: Artifact, side: str, better: str) -> Judged:
    example = next(iter(read_examples(corpus, side)))
    doc = example.to_json()
    good = {"role": "assistant", "content": better}
    bad = {"role": "assistant", "content": "not that"}
    return Judged(example.id, tuple(doc["messages"][:-1]), (), good, bad)


def read_pairs(corpus: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in corpus.file("preferences.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return harvest(tmp_path_factory.mktemp("plain"))


def test_a_judged_pair_is_trained_on_redacted_and_in_its_examples_cluster(
    plain: Artifact, tmp_path: Path
) -> None:
    given = judge(plain, "train.jsonl", f"wait for it, token {KEY}")
    (pair,) = [p for p in read_pairs(harvest(tmp_path, given)) if p["why"] == "judged"]
    example = next(iter(read_examples(plain, "train.jsonl")))
    assert pair["cluster"] == example.cluster
    assert pair["prompt"] == list(given.prompt)
    assert KEY not in json.dumps(pair)
    assert "wait for it" in pair["chosen"][0]["content"]
    assert pair["rejected"] == [given.rejected]


def test_a_pair_of_a_held_out_or_withdrawn_example_stays_out_and_is_counted(
    plain: Artifact, tmp_path: Path
) -> None:
    held = judge(plain, "heldout.jsonl", "wait")
    gone = Judged("ex-0000000000000000", held.prompt, (), held.chosen, held.rejected)
    corpus = harvest(tmp_path, held, gone)
    assert not [p for p in read_pairs(corpus) if p["why"] == "judged"]
    left_out = read_document(corpus, "manifest.json")["left out"]
    assert left_out["pair held out"] >= 1
    assert left_out["pair: judged, of an example that is not here"] == 1
