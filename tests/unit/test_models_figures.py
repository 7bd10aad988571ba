"""The figures of a card come from the store, whole, or the card is not written."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from card_case import ADAPTER, CORPUS, EVAL, RUN, WORKER, Case

from gtft.errors import EvidenceError
from gtft.models.adapter_figures import read_adapter
from gtft.models.corpus_figures import read_corpus
from gtft.models.eval_figures import read_eval
from gtft.models.figures import gather_figures
from gtft.records import tables
from gtft.records.rows import ArtifactRow
from gtft.records.store import open_sqlite


def without(summary: dict[str, Any], path: str) -> dict[str, Any]:
    changed = copy.deepcopy(summary)
    *folders, last = path.split(".")
    place = changed
    for key in folders:
        place = place[key]
    del place[last]
    return changed


def make_row(summary: dict[str, Any]) -> ArtifactRow:
    return ArtifactRow("sha256:" + "0" * 64, "any", "artifacts/any", summary, 0)


READERS: dict[str, Callable[[ArtifactRow], object]] = {
    "harvest": read_corpus,
    "train": lambda row: read_adapter(row, nano=True),
    "eval": read_eval,
}


def test_figures_are_those_of_the_store(tmp_path: Path) -> None:
    case = Case(tmp_path, sets=["train.epochs=3"])
    f = gather_figures(case.fill(), RUN)
    assert f.artifact_ids == {
        "corpus": case.made["harvest"].id,
        "adapter": case.made["train"].id,
        "eval": case.made["eval"].id,
    }
    assert (f.corpus.train, f.corpus.heldout) == (240, 60)
    assert f.corpus.by_rig == {"gizmo": 150, "harbor": 90}
    assert f.corpus.by_kind is None
    assert f.adapter.series[0] == (0.0, 3.5)
    assert f.adapter.base.nano and f.adapter.base.hub_id is None
    assert [s.name for s in f.eval.suites] == ["heldout", "authored"]
    assert f.eval.suites[0].overall.tuned.share == 0.75
    assert f.eval.adapter_id == f.adapter.id
    assert f.eval.overlap is not None and f.eval.overlap.removed == 1
    assert [g.met for g in f.eval.gates] == [True, False]
    assert f.changes == ("--set train.epochs=3",)
    assert f.people.workers["train"] == (WORKER,)
    assert f.people.review.at == "2026-03-01 09:12 UTC"
    assert not f.people.review.self_approved


@pytest.mark.parametrize(
    ("stage", "summary", "key"),
    [
        ("harvest", CORPUS, "train"),
        ("harvest", CORPUS, "by_role"),
        ("harvest", CORPUS, "redaction.secrets"),
        ("harvest", CORPUS, "dropped"),
        ("train", ADAPTER, "base.quantization"),
        ("train", ADAPTER, "loss.last"),
        ("train", ADAPTER, "loss.series"),
        ("train", ADAPTER, "tokens.supervised"),
        ("train", ADAPTER, "hyperparameters"),
        ("eval", EVAL, "suites"),
        ("eval", EVAL, "suites.heldout.tuned"),
        ("eval", EVAL, "suites.heldout.capabilities.safety.n"),
        ("eval", EVAL, "gates"),
        ("eval", EVAL, "verdict"),
        ("eval", EVAL, "candidates.base.id"),
    ],
)
def test_a_missing_figure_is_named(stage: str, summary: dict[str, Any], key: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        READERS[stage](make_row(without(summary, key)))
    assert key.rsplit(".", 1)[-1] in caught.value.what
    assert "not in the store" in caught.value.why


@pytest.mark.parametrize("wrong", [True, "12", -1, 1.5, None, [], {}])
def test_a_count_that_is_no_count_is_refused(wrong: object) -> None:
    with pytest.raises(EvidenceError, match="train"):
        read_corpus(make_row({**CORPUS, "train": wrong}))


@pytest.mark.parametrize("series", [[], [[1]], [[1, "x"]], [1, 2], [[1, None]]])
def test_a_broken_loss_series_is_refused(series: object) -> None:
    summary = {**ADAPTER, "loss": {**ADAPTER["loss"], "series": series}}
    with pytest.raises(EvidenceError, match="series"):
        read_adapter(make_row(summary), nano=True)


def test_an_eval_that_nobody_accepted_makes_no_card(tmp_path: Path) -> None:
    case = Case(tmp_path, accept=False)
    with pytest.raises(EvidenceError, match="nobody has accepted the eval"):
        gather_figures(case.fill(), RUN)


def test_an_approval_by_the_worker_needs_the_recipe_s_leave(tmp_path: Path) -> None:
    case = Case(tmp_path, reviewer=WORKER)
    with pytest.raises(EvidenceError, match="approved their own eval"):
        gather_figures(case.fill(), RUN)


def test_an_allowed_approval_by_the_worker_is_marked(tmp_path: Path) -> None:
    case = Case(tmp_path, reviewer=WORKER, recipe={"review": {"self_approval": True}})
    assert gather_figures(case.fill(), RUN).people.review.self_approved


def test_a_reviewer_who_trained_is_marked_too(tmp_path: Path) -> None:
    case = Case(tmp_path, workers={"train": "gizmo/witness"})
    assert gather_figures(case.fill(), RUN).people.review.self_approved


@pytest.mark.parametrize("what", ["base", "adapter"])
def test_an_eval_of_something_else_makes_no_card(tmp_path: Path, what: str) -> None:
    other = "sha256:" + "9" * 64
    candidates = copy.deepcopy(EVAL["candidates"])
    candidates["base" if what == "base" else "tuned"] = (
        {"id": other} if what == "base" else {"adapter": other}
    )
    case = Case(tmp_path, summaries={"eval": {**EVAL, "candidates": candidates}})
    with pytest.raises(EvidenceError, match=f"measured another {what} than was trained"):
        gather_figures(case.fill(), RUN)


def test_an_unknown_run_is_named(tmp_path: Path) -> None:
    store = Case(tmp_path).fill()
    # The beginning of an id is good enough for a person, not for a card.
    for name in ("run-x", RUN[:-2]):
        with pytest.raises(EvidenceError, match="has no run"):
            gather_figures(store, name)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (sa.update(tables.runs).values(recipe='{"recipe": {"role": "mayor"}}'), "not the one"),
        (sa.delete(tables.lineage), "not made from this run"),
        (sa.delete(tables.artifacts).where(tables.artifacts.c.kind == "eval"), "has no eval"),
    ],
)
def test_a_store_that_contradicts_itself_makes_no_card(
    tmp_path: Path, change: sa.Update | sa.Delete, match: str
) -> None:
    case = Case(tmp_path)
    store = case.fill()
    with open_sqlite(tmp_path / "gtft.db").connect() as c, c.begin():
        c.execute(change)
    with pytest.raises(EvidenceError, match=match):
        gather_figures(store, RUN)


@pytest.mark.parametrize(
    ("base", "model", "hub"),
    [
        (
            {"name": "Qwen/Qwen3-0.6B", "path": "Qwen/Qwen3-0.6B"},
            "Qwen/Qwen3-0.6B",
            "Qwen/Qwen3-0.6B",
        ),
        ({"name": "qwen", "path": "models/qwen"}, "models/qwen", None),
        ({"name": "a/b\n---\nx: y", "path": "a/b\n---\nx: y"}, "a/b", None),
        ({"name": "nano-0123456789ab", "path": "bases/nano-0123456789ab"}, "nano", None),
    ],
)
def test_only_a_hub_base_is_a_hub_id(base: dict[str, str], model: str, hub: str | None) -> None:
    row = make_row({**ADAPTER, "base": {**ADAPTER["base"], **base}})
    assert read_adapter(row, nano=model == "nano").base.hub_id == hub


def test_a_name_with_dots_is_a_key_not_a_path() -> None:
    assert read_corpus(make_row({**CORPUS, "by_rig": {"a.b": 240}})).by_rig == {"a.b": 240}


@pytest.mark.parametrize("key", ["continues", "stacks_on"])
def test_an_adapter_that_builds_on_an_earlier_one_gets_a_card(tmp_path: Path, key: str) -> None:
    earlier = "sha256:" + "ee" * 32
    case = Case(tmp_path, summaries={"train": {**ADAPTER, key: earlier}})
    store = case.fill()
    assert getattr(gather_figures(store, RUN).adapter, key) == earlier
    with open_sqlite(tmp_path / "gtft.db").connect() as c, c.begin():
        c.execute(sa.delete(tables.lineage).where(tables.lineage.c.parent == earlier))
    with pytest.raises(EvidenceError, match="not made from this run"):
        gather_figures(store, RUN)


def test_a_missing_figure_stops_the_card(tmp_path: Path) -> None:
    case = Case(tmp_path, summaries={"train": without(ADAPTER, "loss.first")})
    with pytest.raises(EvidenceError, match=r"has no loss\.first"):
        gather_figures(case.fill(), RUN)
