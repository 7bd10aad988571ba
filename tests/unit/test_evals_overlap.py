"""An item that training holds, whole or nearly, is found, named and left out."""

from __future__ import annotations

from typing import Any

from gtft.evals.item import CheckSpec, Item
from gtft.evals.overlap import remove_overlap

WORDS = [
    "the",
    "tide",
    "turned",
    "while",
    "nobody",
    "looked",
    "and",
    "every",
    "rope",
    "went",
    "slack",
    "at",
    "once",
    "near",
    "pier",
]


def item(text: str, answer: str) -> Item:
    return Item(
        "",
        "heldout",
        "patrol-decision",
        None,
        "t",
        "session:held",
        ({"role": "user", "content": text},),
        (),
        CheckSpec("json_decision", {}),
        answer,
    ).identified()


def example(n: int, text: str, answer: str, earlier: str = "") -> dict[str, Any]:
    before = [{"role": "user", "content": earlier}, {"role": "assistant", "content": "ok"}]
    return {
        "id": f"ex-{n}",
        "cluster": f"session:{n}",
        "messages": [
            *(before if earlier else []),
            {"role": "user", "content": text},
            {"role": "assistant", "content": answer},
        ],
    }


def test_a_copy_in_a_later_turn_is_found() -> None:
    text = " ".join(WORDS)
    found = remove_overlap(
        [item(text, "yes"), item("what is the depth of the harbor at low water today", "four")],
        [example(1, text, "yes", earlier="something else entirely")],
    )
    assert [r.example for r in found.removed] == ["ex-1"]
    assert len(found.kept) == 1
    assert found.figures(())["items_removed"] == 1


def test_a_copy_with_other_numbers_is_found() -> None:
    found = remove_overlap([item("wait 17 min", "no")], [example(1, "Wait  42 min", "NO")])
    assert [r.reason for r in found.removed] == ["the same but for numbers"]


def test_a_near_copy_is_found_and_a_cousin_is_not() -> None:
    long = [f"w{i}" for i in range(60)]
    near = " ".join([*long[:59], "other"])
    cousin = " ".join([*long[:25], *(f"x{i}" for i in range(35))])
    found = remove_overlap([item(" ".join(long), "yes")], [example(1, near, "yes")])
    assert [r.reason for r in found.removed] == ["a near-copy"]
    kept = remove_overlap([item(" ".join(long), "yes")], [example(1, cousin, "no")])
    assert not kept.removed
    assert 0 < kept.figures(kept.similarity)["max_similarity"] < 0.8
    assert len(kept.rare) == 1


def test_a_phrase_that_many_clusters_share_is_boilerplate() -> None:
    text = " ".join(WORDS)
    rows = [
        example(
            n,
            f"{text} case alpha{n} beta{n} gamma{n} {' '.join(f'q{n}{i}' for i in range(40))}",
            "no",
        )
        for n in range(8)
    ]
    assert remove_overlap([item(text + " delta", "yes")], rows).rare == frozenset()
    assert remove_overlap([item(text + " delta", "yes")], rows[:7]).rare
    # The harvest counts held-out clusters too when it decides what is common.
    assert not remove_overlap([item(text + " delta", "yes")], rows[:7], rows[7:]).rare


def test_nothing_to_compare() -> None:
    assert remove_overlap([], []).figures(())["max_similarity"] == 0.0
    assert len(remove_overlap([item("", "")], []).kept) == 1
