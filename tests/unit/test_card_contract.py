"""What the other rooms write into their summaries is what a card reads: nothing required is missing."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from verdict_case import ADAPTER_ID, BASE_ID, answer_all, make_items, make_world, measure, report

from gtft.corpus.intake import Source
from gtft.corpus.settings import Settings
from gtft.corpus.snapshot import make_corpus
from gtft.evals.telling.report import make_summary
from gtft.models.adapter_figures import read_adapter
from gtft.models.corpus_figures import read_corpus
from gtft.models.eval_figures import read_eval
from gtft.recipe.schema import Recipe, Train
from gtft.records.rows import ArtifactRow
from gtft.training.adapter import summarise
from gtft.training.adapters import Ancestors
from gtft.training.base import BaseModel

REPO = Path(__file__).resolve().parents[2]


def make_row(summary: dict[str, Any]) -> ArtifactRow:
    return ArtifactRow(
        "sha256:" + "0" * 64, "any", "artifacts/any", json.loads(json.dumps(summary)), 0
    )


def test_a_harvest_s_summary_is_read(tmp_path: Path) -> None:
    sources = (Source("beads", "beads"), Source("formulas", "formulas"))
    made = make_corpus(
        Settings(sources, 1, 0.2, 4096, 2000, 0.8, 7, "witness", b"k" * 32),
        REPO / "examples" / "town",
        tmp_path / "artifacts",
        tmp_path,
        [],
        lambda done, total, unit, note: None,
    )
    figures = read_corpus(make_row(json.loads(made.file("summary.json").read_bytes())))
    lines = made.file("train.jsonl").read_bytes().splitlines()
    assert figures.train == len(lines) == sum(figures.by_source.values())
    assert sum(figures.by_role.values()) == figures.train
    assert figures.by_rig is not None and figures.by_provenance is not None
    assert figures.leakage is not None and figures.leakage["shared clusters"] == 0


def test_an_eval_s_summary_is_read() -> None:
    items = make_items(heldout=6, authored=6)
    told = report(measure(items, answer_all(items, base=0, tuned=3)), safety=0.0)
    figures = read_eval(make_row(make_summary(told)))
    assert [s.name for s in figures.suites] == ["heldout", "authored"]
    assert figures.suites[0].overall.n == 6 and figures.suites[0].overall.tuned.passed == 3
    assert {c.name for c in figures.suites[0].capabilities} == {"patrol-decision", "safety"}
    assert [g.name for g in figures.gates] == ["items", "gain", "safety", "memorisation"]
    assert (figures.base_id, figures.adapter_id) == (BASE_ID, ADAPTER_ID)
    assert figures.in_training == 0 and figures.overlap is not None
    assert figures.longest_answer == Recipe(role="witness").eval.max_new_tokens
    assert (figures.memorised, figures.fit_warnings) == (None, None)
    assert figures.advice == "do not deploy" and figures.reasons
    assert [(a.other, a.suite, a.n) for a in figures.against] == [
        ("base", "heldout", 6),
        ("base", "authored", 6),
    ]


def test_a_full_eval_s_summary_is_read() -> None:
    world = make_world()
    figures = read_eval(make_row(make_summary(report(world))))
    assert figures.memorised is False
    assert figures.fit_warnings == ()
    assert figures.prompting is not None and not figures.prompting_enough
    assert {a.other for a in figures.against} >= {"base+prime", "endpoint:today", "model:old"}
    titles = [found.title for found in figures.findings]
    assert "Gas Town's own cases (gt-model-eval)" in titles
    assert all(found.blocks for found in figures.findings)
    assert figures.abstains is None


def test_a_whole_model_of_another_method_is_read() -> None:
    base = BaseModel("b", Path("x"), "bases/b", None, "none", (("config.json", "0"),))
    role = SimpleNamespace(id="sha256:r")
    trained = SimpleNamespace(
        losses=((1, 0.6),), trainable=10, steps=1, epochs=1.0, guarded=0, model=SimpleNamespace()
    )
    proof = SimpleNamespace(supervised=5, context=7, examples=2, rows=("a", "b"), empty=())
    train = Train(method="dpo")
    ancestors = Ancestors(role=role)  # type: ignore[arg-type]
    summary = summarise(trained, base, proof, train, ancestors, 9)  # type: ignore[arg-type]
    figures = read_adapter(make_row(summary), nano=False)
    assert (figures.rank, figures.alpha) == (None, None)
    assert (figures.stacks_on, figures.continues) == ("sha256:r", "")
    assert figures.loss_unit == "the loss of dpo"


def test_a_training_s_summary_is_read() -> None:
    base = BaseModel(
        "Qwen/Qwen3-0.6B", Path("x"), "Qwen/Qwen3-0.6B", "abc", "nf4", (("config.json", "0"),)
    )
    trained = SimpleNamespace(
        losses=((1, 3.0), (2, 2.0)),
        trainable=10,
        steps=2,
        epochs=1.0,
        guarded=4,
        model=SimpleNamespace(disable_adapter=None),
    )
    proof = SimpleNamespace(
        supervised=50, context=70, examples=9, rows=("a", "b"), empty=(("c", "why"),)
    )
    train = Train()
    summary = summarise(trained, base, proof, train, Ancestors(), 1000)  # type: ignore[arg-type]
    figures = read_adapter(make_row(summary), nano=False)
    assert figures.base.hub_id == "Qwen/Qwen3-0.6B" and figures.base.revision == "abc"
    assert figures.base.id == base.id
    assert (figures.loss_first, figures.loss_last) == (3.0, 2.0)
    assert (figures.rows, figures.empty_rows, figures.supervised) == (2, 1, 50)
    assert figures.hyperparameters["lora"]["r"] == train.lora.r
