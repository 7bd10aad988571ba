"""How a tuned model fits: losses against the base, gaps where training knew nothing, one rig taken for another."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evals_case import make_base
from gtft.evals.item import CheckSpec, Item
from gtft.evals.probing.fit import Known, Texts, Thresholds, find_rigs, measure_fit, warn

LIMITS = Thresholds(0.1, 0.1)
KNOWN = Known(
    rigs=frozenset({"gizmo", "harbor"}),
    templates=frozenset({"claude-code"}),
    prefixes={"gz": "gizmo", "hb": "harbor", "hb-dock": "lantern"},
)


@dataclass(frozen=True)
class Sums:
    """One row, as a comparison of two models gives it."""

    base_nats: float
    tuned_nats: float
    kl: float = 0.0
    tokens: int = 10


@dataclass(frozen=True)
class Said:
    candidate: str
    item: str
    output: str
    seed: int = 0


def item(name: str, prompt: str = "what now?", **more: Any) -> Item:
    kind = {"template": "claude-code", "reference": "wait", **more}
    messages = ({"role": "user", "content": prompt},)
    check = CheckSpec("json_decision", {})
    return Item(
        name,
        "heldout",
        "x",
        "witness",
        kind["template"],
        "c",
        messages,
        (),
        check,
        kind["reference"],
    )


def measure(
    scored: Sequence[Item] = (),
    passed: dict[tuple[str, str], bool] | None = None,
    answers: Sequence[Said] = (),
    known: Known = KNOWN,
    **texts: Any,
) -> dict[str, Any]:
    doc = measure_fit(list, Texts(**texts), scored, passed or {}, answers, known, LIMITS, seed=3)
    json.dumps(doc)
    return doc


def codes(doc: dict[str, Any]) -> list[str]:
    return [w["code"] for w in warn(doc)]


def test_nothing_given_is_nothing_measured_and_nothing_warned_of() -> None:
    doc = measure()
    assert doc["general"]["texts"] == 0 and "general_texts" in doc["general"]["why"]
    assert doc["answers"]["overfit"] is None and "8 of each are needed" in doc["answers"]["why"]
    assert doc["rigs"]["gap"] is None and doc["templates"]["gap"] is None
    assert doc["cross_rig"] == {"items": 0, "why": "no item is known to be of a rig"}
    assert warn(doc) == []


def test_perplexity_and_kl_are_means_over_tokens() -> None:
    doc = measure(general=[Sums(10, 20, 1, 10), Sums(30, 30, 0, 30)])["general"]
    assert doc["loss"] == {"base": 1.0, "tuned": 1.25}
    assert doc["perplexity"] == {"base": pytest.approx(2.71828), "tuned": pytest.approx(3.49034)}
    assert (doc["kl"], doc["texts"], doc["tokens"]) == (0.025, 2, 40)


@pytest.mark.parametrize(
    ("row", "told"),
    [(Sums(10, 10.9, 0.9), False), (Sums(10, 11.1), True), (Sums(10, 10, 1.1), True)],
)
def test_forgetting_is_told_above_either_threshold(row: Sums, told: bool) -> None:
    assert (codes(measure(general=[row])) == ["forgetting"]) is told


def test_overfitting_is_gain_on_training_that_held_out_examples_do_not_see() -> None:
    trained, heldout = [Sums(30, 10)] * 20, [Sums(40, 38)] * 20
    doc = measure(trained=trained, heldout=heldout)
    assert doc["answers"]["overfit"] == {"nats": 1.8, "low": 1.8, "high": 1.8}
    (warning,) = warn(doc)
    assert warning["code"] == "overfit"
    assert (
        "2.00 nats per token off the loss on 20 training examples and 0.20 off 20"
        in (warning["told"])
    )
    # Held-out text that is harder for both is not overfitting.
    assert codes(measure(trained=trained, heldout=[Sums(60, 40)] * 20)) == []
    # A single odd example proves nothing: the interval says so.
    odd = [Sums(10, 10)] * 10 + [Sums(200, 10)]
    assert codes(measure(trained=odd, heldout=[Sums(10, 10)] * 11)) == []


def test_held_out_answers_that_became_less_likely_are_told() -> None:
    doc = measure(trained=[Sums(30, 28)] * 9, heldout=[Sums(30, 31)] * 9)
    assert codes(doc) == ["heldout-worse"]


def test_a_gap_on_templates_that_training_did_not_know_is_measured_with_its_interval() -> None:
    inside = [item(f"in{n}") for n in range(20)]
    outside = [item(f"out{n}", template="authored") for n in range(20)]
    passed = {("tuned", i.id): True for i in inside} | {("base", outside[0].id): True}
    rows = {i.id: Sums(20, 10) for i in inside[:3]}
    doc = measure([*inside, *outside], passed, items=rows)["templates"]
    assert doc["known"]["rate"] == {"base": 0.0, "tuned": 1.0}
    assert doc["unknown"]["rate"] == {"base": 0.05, "tuned": 0.0}
    assert doc["known"]["answers"]["loss"] == {"base": 2.0, "tuned": 1.0}
    assert doc["gap"]["rate"] == 1.0
    # Newcombe 1998: from the two Wilson intervals.
    low, high = doc["known"]["interval"]["tuned"][0], doc["unknown"]["interval"]["tuned"][1]
    assert doc["gap"]["low"] == pytest.approx(1 - ((1 - low) ** 2 + high**2) ** 0.5, rel=1e-4)
    assert codes(measure([*inside, *outside], passed)) == ["template-gap"]


def test_too_few_items_on_one_side_give_no_gap_but_the_reason() -> None:
    items = [item(f"i{n}") for n in range(20)]
    rigs = {i.id: "gizmo" for i in items[:14]} | {i.id: "lantern" for i in items[14:19]}
    doc = measure(items, known=Known(KNOWN.rigs, KNOWN.templates, KNOWN.prefixes, rigs))["rigs"]
    assert doc["gap"] is None
    assert doc["why"].startswith("14 items of a rig that training knew and 5 of others")
    assert (doc["known"]["items"], doc["unknown"]["items"]) == (14, 5)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bd close gz-12", {"gizmo"}),
        ("hb-7.2 waits for hb-dock-9", {"harbor", "lantern"}),
        ("hb-dock-9", {"lantern"}),
        ("hb-dock", {"harbor"}),
        ("labels: rig:harbor", {"harbor"}),
        ('{"rig": "gizmo"}', {"gizmo"}),
        ("gt sling x --rig gizmo", {"gizmo"}),
        ("gt nudge harbor/polecats/nux", {"harbor"}),
        ("zz-12, a gizmo, rig:unknown, xgz-12, gz-", set()),
    ],
)
def test_rigs_are_told_by_label_address_or_the_longest_known_prefix(
    text: str, found: set[str]
) -> None:
    assert find_rigs(text, KNOWN.prefixes, {"gizmo", "harbor", "lantern"}) == found


def test_wild_text_is_read_in_linear_time() -> None:
    for text in (
        "a-" * 300_000,
        "rig:" * 200_000,
        '"rig"' + " " * 500_000,
        "x" * 600_000 + "/crew",
    ):
        assert find_rigs(text, KNOWN.prefixes, {"gizmo"}) == set()


def test_confusion_counts_rigs_that_neither_question_nor_right_answer_names() -> None:
    items = [
        item("a", "gz-1 is stuck"),
        item("b", "gz-2 is stuck, and hb-4 waits for it"),
        item("c", "where does it go?", reference="rig:harbor"),
        item("d", "gz-3"),
    ]
    known = Known(KNOWN.rigs, KNOWN.templates, KNOWN.prefixes, {i.id: "gizmo" for i in items})
    answers = [
        Said("tuned", "a", "close hb-9 and hb-8"),
        Said("tuned", "b", "close hb-4"),
        Said("tuned", "c", "to harbor/witness"),
        Said("tuned", "d", "rig:harbor", seed=2),
        Said("tuned", "d", "gz-3", seed=1),
        Said("base", "a", "gz-1"),
        Said("base+prime", "a", "hb-1"),
    ]
    doc = measure(items, answers=answers, known=known)
    assert doc["cross_rig"] == {
        "items": 4,
        "named": {"base": 0, "tuned": 1},
        "pairs": [{"asked": "gizmo", "named": "harbor", "base": 0, "tuned": 1}],
    }
    assert codes(doc) == ["cross-rig"]
    assert "1 of 4 answers" in warn(doc)[0]["told"]


def test_comparing_models_gives_each_ones_own_loss_and_the_kl_between_them(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gtft.training.examples import Conversation
    from gtft.training.kl import compare
    from gtft.training.render import render

    folder = make_base(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(folder).eval()
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        # Head and body differ, as they do after a full training.
        for weights in tuned.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.manual_seed(1)) * 0.05)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    talk = Conversation(
        "ex-1",
        ({"role": "user", "content": "pump?"}, {"role": "assistant", "content": "it leaks"}),
        (),
    )
    (row,) = render(talk, tokenizer, 128).rows

    @contextmanager
    def answering(*, as_base: bool) -> Iterator[Any]:
        yield base if as_base else tuned

    told: list[tuple[int, int]] = []
    (found,) = compare(answering, [row], lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2)]
    ids, labels = (torch.tensor([list(part)]) for part in (row.input_ids, row.labels))
    assert found.tokens == row.supervised
    for model, nats in ((base, found.base_nats), (tuned, found.tuned_nats)):
        with torch.no_grad():
            expected = float(model(input_ids=ids, labels=labels).loss) * row.supervised
        assert nats == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        own, other = (
            torch.log_softmax(m(input_ids=ids).logits[0, :-1].double(), -1) for m in (tuned, base)
        )
    picked = labels[0, 1:] != -100
    kl = (own.exp() * (own - other)).sum(-1)[picked].sum()
    assert found.kl == pytest.approx(float(kl), rel=1e-4)
    assert found.kl > 0.01
