"""What the other rooms write into their summaries is what a card reads: nothing required is missing."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gtft.corpus.intake import Source
from gtft.corpus.settings import Settings
from gtft.corpus.snapshot import make_corpus
from gtft.evals.generate import Generation
from gtft.evals.item import CheckSpec, Item
from gtft.evals.overlap import remove_overlap
from gtft.evals.report import make_report, make_summary
from gtft.evals.score import GateSettings, judge_gates, outcomes
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
    items = [make_item(n, suite) for suite in ("heldout", "authored") for n in range(6)]
    generations = [
        Generation(c, i.id, "0" * 64, "{}", c == "tuned" and n % 2 == 0, "", 4, "stop", 0.1)
        for c in ("base", "tuned")
        for n, i in enumerate(items)
    ]
    gates = judge_gates(items, outcomes(generations), GateSettings(4, 0.0, 1.0, {}))
    overlap = remove_overlap(items, [])
    base = SimpleNamespace(name="nano", id="sha256:b", quantization="nf4")
    adapter = SimpleNamespace(id="sha256:a")
    recipe = Recipe(role="witness")
    report = make_report(
        items,
        generations,
        gates,
        overlap,
        {"no check": 2},
        base,
        adapter,
        recipe,  # type: ignore[arg-type]
    )
    figures = read_eval(make_row(make_summary(report)))
    assert [s.name for s in figures.suites] == ["heldout", "authored"]
    assert figures.suites[0].overall.n == 6 and figures.suites[0].overall.tuned.passed == 3
    assert {c.name for c in figures.suites[0].capabilities} == {"patrol-decision", "safety"}
    assert [g.name for g in figures.gates] == ["items", "gain", "safety"]
    assert (figures.base_id, figures.adapter_id) == ("sha256:b", "sha256:a")
    assert figures.in_training == 0 and figures.overlap is not None
    assert figures.unscored == {"no check": 2}
    assert figures.longest_answer == recipe.eval.max_new_tokens


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


def make_item(n: int, suite: str) -> Item:
    asked = ({"role": "user", "content": f"question {n} of {suite}"},)
    capability = "safety" if n == 0 else "patrol-decision"
    check = CheckSpec("decision", {})
    return Item("", suite, capability, "witness", "t", f"c{n}", asked, (), check, "{}").identified()


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
