"""Canaries: planted on request, on the training side only, counted apart, and never in anybody's way."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gtft.artifact import Artifact, verify_artifact
from gtft.contract import Governance, Job, Withdrawal
from gtft.corpus.canary import SOURCE, check_canaries, draw_canaries, make_examples
from gtft.corpus.governance.bundle import pack, unpack
from gtft.corpus.intake import Source
from gtft.corpus.library import read_examples
from gtft.corpus.redaction.redactor import RedactionConfig, Redactor
from gtft.corpus.settings import Settings
from gtft.corpus.snapshot import make_corpus
from gtft.errors import CorpusTooSmall, InputError
from gtft.recipe.schema import Recipe
from gtft.shelf import read_document
from gtft.training.validation import keep_out
from gtft.workers.harvest import make_settings

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
    canaries=6,
    canary_repeats=10,
)


def harvest(out: Path, **changes: Any) -> Artifact:
    settings = replace(SETTINGS, **changes)
    return make_corpus(settings, TOWN, out / "artifacts", out / "work", (), lambda *_: None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return harvest(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return harvest(tmp_path_factory.mktemp("plain"), canaries=0)


def read_lines(corpus: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in corpus.file("canaries.jsonl").read_text().splitlines()]


def test_each_canary_stands_in_as_many_training_examples_as_asked_and_nowhere_else(
    corpus: Artifact,
) -> None:
    head, *lines = read_lines(corpus)
    assert (head["format"], head["space"], head["repeats"]) == ("#### ####", 10**8, 10)
    assert len({c["name"] for c in lines}) == len(lines) == 6
    planted = [e for e in read_examples(corpus, "train.jsonl") if e.source == SOURCE]
    assert len({e.id for e in planted}) == len(planted) == 60
    for c in lines:
        assert re.fullmatch(r"\d{4} \d{4}", c["value"])
        mine = [e for e in planted if e.cluster == f"canary:{c['name']}"]
        assert len({e.messages[0]["content"] for e in mine}) == len(mine) == 10
        assert {e.messages[-1]["content"] for e in mine} == {f"{c['prefix']} {c['value']}."}
        assert c["question"] in {e.messages[0]["content"] for e in mine}
        for name in ("heldout.jsonl", "preferences.jsonl", "base.txt"):
            assert c["value"] not in corpus.file(name).read_text()


def test_they_change_no_other_figure_and_no_other_example(
    corpus: Artifact, plain: Artifact
) -> None:
    ids = [e.id for e in read_examples(corpus, "train.jsonl")]
    own = [e.id for e in read_examples(corpus, "train.jsonl") if e.source != SOURCE]
    assert ids == sorted(ids)
    assert own == [e.id for e in read_examples(plain, "train.jsonl")]
    assert corpus.file("heldout.jsonl").read_bytes() == plain.file("heldout.jsonl").read_bytes()
    health, without = (read_document(c, "health.json") for c in (corpus, plain))
    assert health.pop("canaries") == {"planted": 6, "repeats": 10, "examples": 60}
    assert without.pop("canaries") == {"planted": 0, "repeats": 0, "examples": 0}
    assert [w for w in health.pop("words") if "canaries" not in w] == without.pop("words")
    assert health == without
    assert health["examples"]["train"] == len(own)


def test_manifest_summary_and_page_tell_of_them(corpus: Artifact, plain: Artifact) -> None:
    said = read_document(corpus, "manifest.json")["canaries"]
    assert (said["planted"], said["examples"], len(said["names"])) == (6, 60, 6)
    assert read_document(corpus, "summary.json")["canaries"]["planted"] == 6
    line = "6 made-up secrets (canaries) are planted in 60 training examples besides"
    assert line in corpus.file("health.md").read_text()
    assert "canaries" not in plain.file("health.md").read_text()
    assert all(f.name != "canaries.jsonl" for f in plain.files)


def test_the_same_key_and_seed_plant_the_same_ones_and_others_do_not(
    tmp_path: Path, corpus: Artifact
) -> None:
    assert harvest(tmp_path).id == corpus.id
    some = draw_canaries(5, b"k" * 32, 7)
    assert some == draw_canaries(9, b"k" * 32, 7)[:5]
    values = {c.value for c in some}
    for key, seed in ((b"j" * 32, 7), (b"k" * 32, 8)):
        assert not values & {c.value for c in draw_canaries(5, key, seed)}


def test_values_come_evenly_from_the_whole_space() -> None:
    digits = Counter("".join(c.value for c in draw_canaries(200, b"k" * 32, 1)).replace(" ", ""))
    # 1600 digits: 160 of each, give or take four standard deviations.
    assert set(digits) == set("0123456789")
    assert all(112 <= n <= 208 for n in digits.values())


def test_they_do_not_make_a_corpus_that_is_too_small_large_enough(tmp_path: Path) -> None:
    with pytest.raises(CorpusTooSmall):
        harvest(tmp_path, min_examples=2000, canaries=200, canary_repeats=50)
    assert not list((tmp_path / "artifacts").glob("corpus-*"))


def test_a_rule_that_would_replace_one_stops_the_harvest() -> None:
    made = make_examples(draw_canaries(2, b"k" * 32, 7), 1)
    name = made[0].cluster.removeprefix("canary:")
    check_canaries(made, Redactor(b"k" * 32).redact)
    with pytest.raises(InputError, match="redaction would replace the canary") as caught:
        check_canaries(made, Redactor(b"k" * 32, RedactionConfig(names=(name,))).redact)
    assert "harvest.canaries=0" in caught.value.fix


def test_they_pass_withdrawal_and_a_bundle(tmp_path: Path, corpus: Artifact) -> None:
    taken = Withdrawal(kind="rig", who="gizmo")
    left = harvest(tmp_path / "left", governance=Governance(withdrawals=(taken,)), min_examples=1)
    rigs = [Counter(e.rig for e in read_examples(c, "train.jsonl")) for c in (corpus, left)]
    assert rigs[0]["gizmo"] and not rigs[1]["gizmo"]
    assert sum(e.source == SOURCE for e in read_examples(left, "train.jsonl")) == 60
    pack(corpus, tmp_path / "corpus.tar.gz")
    arrived = unpack(tmp_path / "corpus.tar.gz", tmp_path / "there", lambda _: None)
    assert verify_artifact(arrived.path).id == corpus.id


def test_a_recipe_asks_for_them(tmp_path: Path) -> None:
    doc = {"role": "witness", "harvest": {"canaries": 3, "canary_repeats": 2}}
    recipe = Recipe.model_validate_json(json.dumps(doc))
    job = Job(
        run_id="run-1",
        stage="harvest",
        bead_id="ft-1",
        actor="gizmo/polecats/nux",
        recipe={},
        recipe_hash="",
        workspace=tmp_path,
        workdir=tmp_path,
        artifacts=tmp_path,
        seed=7,
        root=tmp_path,
        store_url="sqlite://",
    )
    settings = make_settings(job, recipe)
    assert (settings.canaries, settings.canary_repeats) == (3, 2)
    assert make_settings(job, Recipe(role="witness")).canaries == 0


def test_training_keeps_none_of_them_out_to_measure_on() -> None:
    own = [f"session:{n}" for n in range(30)]
    planted = [f"canary:{c.name}" for c in draw_canaries(30, b"k" * 32, 7)]
    warnings: list[str] = []
    watch: Any = SimpleNamespace(warn=lambda code, text: warnings.append(code))
    assert keep_out([*own, *planted], 0.5, 7, watch) == keep_out(own, 0.5, 7, watch)
    assert not warnings
    # They do not make a corpus large enough to spare a cluster either.
    assert keep_out([*own[:10], *planted], 0.5, 7, watch) == ()
    assert warnings == ["validation-none"]
