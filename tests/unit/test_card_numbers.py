"""No figure gets on a card that is not in the store: every number of its text is looked for there."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from card_case import ADAPTER, CONSENT, CORPUS, EVAL, FOUND, RETENTION, RUN, Case

from gtft.contract import STAGES
from gtft.models.card import write_card
from gtft.models.figures import CardFigures, gather_figures
from gtft.models.limits import ENOUGH_EXAMPLES, FEW_ITEMS
from gtft.models.people import format_time
from gtft.records.store import Store

NUMBER = re.compile(r"(?<![\w.])\d(?:[\d,.]*\d)?(?!\w)")
# What the words of a card hold themselves: 95 % intervals, near-copies from 80 %, p < 0.001, and two thresholds.
WORDS = {"95", "80", "0.001", str(FEW_ITEMS), str(ENOUGH_EXAMPLES)}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, CardFigures]:
    case = Case(
        tmp_path_factory.mktemp("ws"),
        summaries={
            "harvest": {**CORPUS, "consent": CONSENT},
            "train": {**ADAPTER, "retention": RETENTION},
            "eval": {**EVAL, **FOUND},
        },
        sets=["train.epochs=3"],
        durations={"train": 210.0},
    )
    store = case.fill()
    return store, gather_figures(store, RUN)


def walk(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for k, v in value.items():
            yield from (k, *walk(v))
    elif isinstance(value, list):
        for v in value:
            yield from walk(v)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value


def spell(value: float) -> set[str]:
    """The ways in which a card writes one number: as it is, with commas, rounded, as a percentage."""
    v = abs(value)
    rounded = {f"{x:.{n}f}" for x in (v, 100 * v) for n in range(5)}
    return {str(v), f"{v:,}", f"{v:g}", *rounded}


def list_known(store: Store) -> set[str]:
    """All numbers of the run in the store, spelled; the differences and times that a card states among them."""
    run = store.find_run(RUN)
    assert run is not None
    rows = [store.find_artifact(store.find_stage(RUN, s).artifact_id or "") for s in STAGES[:-1]]
    events = store.list_events(RUN)
    found: list[Any] = [run.id, run.recipe_hash, *walk(run.recipe)]
    for row in rows:
        assert row is not None
        found += [row.id, *walk(row.summary)]
    found += [x for e in events for x in (e.text, format_time(e.created_us))]
    losses = [m["general_loss"] for m in RETENTION["measurements"]]  # type: ignore[index,union-attr]
    found += [v - losses[0] for v in losses]
    claims = ("claimed", "taken-over")
    for stage in STAGES[:-1]:
        own = [e for e in events if e.stage == stage]
        found.append(sum(e.kind in claims for e in own))
        found += [(b.created_us - a.created_us) / u for a, b in pairwise(own) for u in (1e6, 6e7)]
    # Sums that a reader can do: rows with and without a trained token, and how much of the corpus is whose.
    found.append(ADAPTER["rows"] + ADAPTER["empty_rows"])
    known = set(WORDS)
    for value in found:
        if isinstance(value, str):
            known |= set(NUMBER.findall(value))
        else:
            known |= spell(value)
    return known


def find_foreign(store: Store, card: str) -> set[str]:
    # A Markdown escape stands before a sign, never inside a number.
    return set(NUMBER.findall(card.replace("\\", ""))) - list_known(store)


def test_every_number_of_a_card_is_in_the_store(told: tuple[Store, CardFigures]) -> None:
    store, figures = told
    card = write_card(figures)
    assert len(NUMBER.findall(card)) > 200
    assert find_foreign(store, card) == set()


@pytest.mark.parametrize("what", ["rate", "examples", "loss", "time"])
def test_a_number_that_is_not_in_the_store_is_found(
    told: tuple[Store, CardFigures], what: str
) -> None:
    """So that the test above cannot pass by knowing every number."""
    store, f = told
    suite = f.eval.suites[0]
    rate = replace(suite.overall.tuned, share=0.7312)
    made = {
        "rate": replace(
            f,
            eval=replace(
                f.eval, suites=(replace(suite, overall=replace(suite.overall, tuned=rate)),)
            ),
        ),
        "examples": replace(f, corpus=replace(f.corpus, train=9173)),
        "loss": replace(f, adapter=replace(f.adapter, loss_last=0.6173)),
        "time": replace(
            f, cost=replace(f.cost, stages=(replace(f.cost.stages[1], seconds=98765.0),))
        ),
    }[what]
    assert find_foreign(store, write_card(made))


def test_a_card_asks_nothing_but_the_store(
    told: tuple[Store, CardFigures], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every other file out of reach the figures are the same."""
    store, figures = told

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise AssertionError(f"{self} was opened")

    for name in ("open", "read_bytes", "read_text"):
        monkeypatch.setattr(Path, name, refuse)
    assert gather_figures(store, RUN) == figures
    assert write_card(gather_figures(store, RUN)) == write_card(figures)
