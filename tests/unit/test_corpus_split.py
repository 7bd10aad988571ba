"""Near-duplicates, clusters, sides and leaks."""

from __future__ import annotations

import random

from gtft.corpus.example import Example, Origin
from gtft.corpus.similar import (
    BOILERPLATE_CLUSTERS,
    Groups,
    Words,
    find_near_duplicates,
    find_rare_phrases,
    ngrams,
)
from gtft.corpus.split import choose_held_out


def example(cluster: str, role: str = "witness", source: str = "claude-code") -> Example:
    messages = ({"role": "user", "content": cluster},)
    origin = Origin("a.jsonl", (1, 1), None, 0)
    made = Example("", source, cluster, messages, (), role, None, None, 1.0, "agent", origin)
    return made.identified()


def words(rng: random.Random, n: int) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(n)]


def test_near_duplicates_are_exactly_those_of_the_definition() -> None:
    rng = random.Random(5)
    base = [words(rng, 60) for _ in range(12)]
    texts = []
    for b in base:
        edited = [w if rng.random() > 0.01 else "edited" for w in b]
        texts += [" ".join(b), " ".join(edited), " ".join(b[:40] + words(rng, 20))]
    sets = [ngrams(Words().number(t), 5) for t in texts]
    shared = Words()
    sets = [ngrams(shared.number(t), 5) for t in texts]
    expected = {
        (i, j)
        for j in range(len(texts))
        for i in range(j)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= 0.5
    }
    found = {(a, b) for a, b, _ in find_near_duplicates(texts, 0.5, Words())}
    assert found == expected
    assert len(expected) >= 12


def test_identical_short_texts_are_near_duplicates_and_empty_ones_are_not() -> None:
    pairs = list(find_near_duplicates(["yes", "yes", "", "", "no"], 0.8, Words()))
    assert pairs == [(0, 1, 1.0)]


def test_a_rare_phrase_is_a_leak_and_boilerplate_is_not() -> None:
    banner = " ".join(f"banner{i}" for i in range(20))
    secret_plan = " ".join(f"plan{i}" for i in range(20))
    held = [("h", f"{banner} {secret_plan}")]
    train = [(f"t{i}", f"{banner} own{i}") for i in range(BOILERPLATE_CLUSTERS)]
    copy = ("t99", f"before {secret_plan} after")
    phrases = find_rare_phrases([t for _, t in held], [*held, *train, copy], Words())
    assert phrases.shares(copy[1])
    assert not any(phrases.shares(t) for _, t in train)


def test_groups_are_called_by_their_smallest_key_in_any_order() -> None:
    edges = [("d", "c"), ("b", "a"), ("c", "b"), ("x", "y")]
    for seed in range(10):
        random.Random(seed).shuffle(edges)
        groups = Groups()
        for a, b in edges:
            groups.join(a, b)
        assert {groups.find(k) for k in "abcd"} == {"a"}
        assert groups.find("y") == "x"


def test_the_split_takes_whole_clusters_from_every_stratum() -> None:
    made = [example(f"session:w{i}") for i in range(100)]
    made += [example(f"session:m{i}", role="mayor") for i in range(20)]
    made += [example("bead:1", source="beads")]
    held = choose_held_out(made, 0.2, seed=7)
    assert sum(c.startswith("session:w") for c in held) == 20
    assert sum(c.startswith("session:m") for c in held) == 4
    assert "bead:1" not in held
    assert held == choose_held_out(list(reversed(made)), 0.2, seed=7)
    assert held != choose_held_out(made, 0.2, seed=8)
    assert choose_held_out(made, 0.0, seed=7) == frozenset()


def test_one_huge_cluster_does_not_swallow_the_held_out_side() -> None:
    made = [example("session:big") for _ in range(90)] + [
        example(f"session:{i}") for i in range(10)
    ]
    for seed in range(20):
        assert "session:big" not in choose_held_out(made, 0.2, seed)


def test_a_corpus_that_grows_keeps_most_of_its_split() -> None:
    made = [example(f"session:{i}") for i in range(100)]
    before = choose_held_out(made, 0.2, 7)
    after = choose_held_out([*made, *(example(f"session:n{i}") for i in range(10))], 0.2, 7)
    assert len(before & after) >= 15
