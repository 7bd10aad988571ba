"""Rare phrases, against the slow definition: a leak of 0 means 0."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtft.corpus.partition import overlap
from gtft.corpus.partition.overlap import (
    BOILERPLATE_CLUSTERS,
    PHRASE,
    find_rare,
    find_rare_of_items,
)
from gtft.corpus.partition.words import Words, hash_many

# Few different words, so that texts share many phrases.
TEXTS = st.lists(
    st.tuples(
        st.integers(0, 11),
        st.one_of(
            st.sampled_from(["aa", "b aa", "aa " * 14, "aa " * 13 + "b"]),
            st.lists(st.sampled_from(["aa", "b", "ö", "12"]), max_size=18).map(" ".join),
        ),
    ),
    max_size=30,
)


def grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    if len(words) < PHRASE:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + PHRASE]) for i in range(len(words) - PHRASE + 1)}


def pack(texts: list[str]) -> Words:
    return hash_many([t.encode() for t in texts])


def batches(rows: list[tuple[int, str]], size: int) -> list[tuple[list[int], Words]]:
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [([c for c, _ in part], pack([t for _, t in part])) for part in parts]


def list_rare(held: list[str], rows: list[tuple[int, str]]) -> set[tuple[str, ...]]:
    clusters: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for cluster, text in rows:
        for g in grams(text):
            clusters[g].add(cluster)
    wanted = {g for text in held for g in grams(text)}
    return {g for g in wanted if len(clusters[g]) < BOILERPLATE_CLUSTERS}


@given(TEXTS, st.sets(st.integers(0, 11)), st.integers(1, 9), st.integers(1, 40))
def test_a_text_shares_exactly_what_the_definition_says(
    rows: list[tuple[int, str]], held: set[int], size: int, pairs: int
) -> None:
    mine = [t for c, t in rows if c in held]
    rare = list_rare(mine, rows)
    with pytest.MonkeyPatch.context() as patch:
        # As few pairs as this are settled many times on the way, as in a large corpus.
        patch.setattr(overlap, "_PAIRS", pairs)
        found = find_rare((pack([t]) for t in mine), batches(rows, size))
    assert len(found) == len(rare)
    texts = [t for _, t in rows] + ["", "b", "aa " * 40]
    expected = [bool(grams(t) & rare) for t in texts]
    assert found.shares_many(pack(texts)).tolist() == expected
    assert [found.shares(t.encode()) for t in texts] == expected


@given(TEXTS, st.lists(st.lists(st.sampled_from(["aa", "b"]), max_size=15).map(" ".join)))
def test_an_item_is_never_boilerplate_as_a_whole(
    rows: list[tuple[int, str]], items: list[str]
) -> None:
    rare = list_rare(items, rows)
    whole = [grams(i) for i in items if grams(i) and not grams(i) & rare]
    found = find_rare_of_items(pack(items), batches(rows, 4))
    texts = [t for _, t in rows] + items
    assert found.shares_many(pack(texts)).tolist() == [
        bool(grams(t) & rare) or any(item <= grams(t) for item in whole) for t in texts
    ]
    assert all(found.shares(i.encode()) for i in items if i)


def test_a_rare_phrase_is_a_leak_and_boilerplate_is_not() -> None:
    banner = " ".join(f"banner{i}" for i in range(20))
    plan = " ".join(f"plan{i}" for i in range(20))
    rows = [(0, f"{banner} {plan}")]
    rows += [(n, f"{banner} own{n}") for n in range(1, BOILERPLATE_CLUSTERS)]
    rows += [(99, f"before {plan} after")]
    rare = find_rare([pack([rows[0][1]])], batches(rows, 3))
    assert rare.shares(f"BEFORE, {plan.upper()}!".encode())
    assert not any(rare.shares(t.encode()) for _, t in rows[1:-1])


def test_one_cluster_that_repeats_a_phrase_makes_no_boilerplate() -> None:
    phrase = " ".join(f"w{i}" for i in range(13))
    rows = [(7, f"{phrase} {n}") for n in range(50)]
    assert find_rare([pack([phrase])], batches(rows, 5)).shares(phrase.encode())


def test_a_suite_that_was_run_in_many_sessions_is_still_a_leak() -> None:
    rules = " ".join(f"rule{i}" for i in range(30))
    question = " ".join(f"ask{i}" for i in range(15))
    rows = [(n, f"{rules} {question} answer{n}") for n in range(20)]
    rows += [(n, f"{rules} work{n}") for n in range(20, 40)]
    rare = find_rare_of_items(pack([f"{rules} {question}", "go on"]), batches(rows, 7))
    flags = rare.shares_many(pack([t for _, t in rows])).tolist()
    assert flags == [True] * 20 + [False] * 20
    assert rare.shares(b"Go on.")
    assert not rare.shares(b"go on now")


def test_nothing_held_leaks_nothing() -> None:
    rows = [(1, "a b c"), (2, "")]
    for rare in (find_rare([], batches(rows, 1)), find_rare_of_items(pack([]), batches(rows, 1))):
        assert len(rare) == 0
        assert not rare.shares_many(pack(["a b c", ""])).any()
    assert find_rare([pack(["a b c"])], []).shares(b"a b c")


def test_every_phrase_of_a_large_held_out_side_is_found() -> None:
    """More phrases than the first look tells apart: strangers that pass it are turned away by the second."""
    rng = random.Random(9)
    held = [" ".join(f"{rng.getrandbits(40):x}" for _ in range(60)) for _ in range(500)]
    others = [" ".join(f"{rng.getrandbits(40):x}" for _ in range(60)) for _ in range(500)]
    rows = [(i, t) for i, t in enumerate(held + others)]
    rare = find_rare([pack(held)], batches(rows, 100))
    assert len(rare) == 500 * 48
    pieces = [" ".join(t.split()[k : k + 13]) for t in held[:50] for k in range(0, 48, 5)]
    assert rare.shares_many(pack(pieces)).all()
    assert not np.any(rare.shares_many(pack(others)))


def test_costs_count_the_texts_of_other_clusters_that_share_a_phrase() -> None:
    common = " ".join(f"word{n}" for n in range(400))
    texts = [
        f"{common} one",
        f"{common} two",
        f"{common} three",
        " ".join(f"x{n}" for n in range(400)),
    ]
    words = hash_many([t.encode() for t in texts])
    costs = overlap.count_costs([(np.array([0, 1, 1, 2]), words)], 3)
    assert costs.tolist() == [2, 1, 0]
    assert overlap.count_costs([], 2).tolist() == [0, 0]
