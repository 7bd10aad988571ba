"""Models are found by what people write, and lead back to what they were made from."""

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from card_case import Case

from gtft.errors import EvidenceError, UsageError
from gtft.models.registry import find_model, list_models, trace_lineage
from gtft.records.rows import ModelRow
from gtft.records.store import Store


class Shelf(Store):
    """A store with models on it; only what the registry asks of a store."""

    def __init__(self, *models: ModelRow) -> None:
        super().__init__(sa.create_engine("sqlite://", poolclass=sa.StaticPool), lambda: 0.0)
        self.migrate()
        self.models = list(models)

    def list_models(self) -> list[ModelRow]:
        return self.models


OLD = ModelRow(
    "sha256:" + "aa1" + "0" * 61, "witness-aa1000000000", "witness", 1, "approved", "run-1",
    "sha256:c", "sha256:a", "sha256:e", "sha256:d", 100,
)  # fmt: skip
NEW = replace(OLD, id="sha256:" + "aa2" + "0" * 61, name="witness-aa2000000000", created_us=200)
OTHER = replace(OLD, id="sha256:" + "bb" * 32, name="mayor-bbbbbbbbbbbb", role="mayor")
SHELF = Shelf(OLD, NEW, OTHER)


def test_newest_first_and_by_role() -> None:
    assert list_models(SHELF)[0] == NEW
    assert list_models(SHELF, "mayor") == [OTHER]
    assert list_models(SHELF, "deacon") == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (OLD.name, OLD),
        (OLD.id, OLD),
        ("witness-aa1", OLD),
        ("sha256:aa2000", NEW),
        ("bbbbbb", OTHER),
        ("witness", NEW),
        ("mayor", OTHER),
    ],
)
def test_a_model_is_found_by(name: str, found: ModelRow) -> None:
    assert find_model(SHELF, name) == found


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("witness-aa", "beginning of 2 models"),
        ("witness-aa9000000000", "gtft model show witness-aa"),
        ("aa1", "no model aa1"),
        ("", "no model"),
        ("polecat", "gtft model list"),
    ],
)
def test_what_is_not_found_says_what_to_type(name: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        find_model(SHELF, name)


def test_an_empty_registry_says_so() -> None:
    with pytest.raises(UsageError, match="no model is registered yet"):
        find_model(Shelf(), "witness")


def test_lineage_leads_back_to_run_and_artifacts(tmp_path: Path) -> None:
    case = Case(tmp_path)
    store = case.fill()
    adapter = case.made["train"].id
    card = case.make_card("card text")
    model = case.register(card)
    found = trace_lineage(store, find_model(store, adapter))
    assert found.model.version == 1 and found.model.name == model.name
    assert found.run.recipe_name == "mol-gtft-quickstart"
    assert [a.kind for a in found.artifacts] == ["corpus", "adapter", "eval", "card"]
    assert found.corpus.id == case.made["harvest"].id


def test_a_model_whose_corpus_the_store_has_lost_is_named(tmp_path: Path) -> None:
    case = Case(tmp_path)
    store = case.fill()
    model = case.register(case.make_card("card text"))
    with pytest.raises(EvidenceError, match=f"no corpus 000000000000, which {model.name}"):
        trace_lineage(store, replace(model, corpus_id="sha256:" + "0" * 64))
    with pytest.raises(EvidenceError, match="no run run-gone"):
        trace_lineage(store, replace(model, run_id="run-gone"))
