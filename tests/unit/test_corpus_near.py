"""Word numbers, near-duplicates and clusters, against slow definitions."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus.partition.groups import Groups
from gtft.corpus.partition.near import choose_bands, find_near, measure_jaccard, sketch
from gtft.corpus.partition.words import (
    LONGEST,
    Words,
    digest_masked,
    hash_many,
    hash_words,
    make_grams,
    write_plain,
)

PUNCTUATION = re.compile("[\u0080-\u00bf\u2000-\u2bff\u3000-\u303f\U0001f000-\U0001ffff]")
WORD = re.compile(rb"[0-9a-z_\x80-\xff]{1,%d}" % LONGEST)
# Wild text that meets every rule: letters of all lengths of UTF-8, separators, digits, long words.
TEXT = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.text("aAbB_9 -.\n\x00é—·中。🙂ÀÿŁ", max_size=30),
        st.integers(250, 800).map(lambda n: "x" * n),
    ),
    max_size=8,
).map("".join)


def find_words(text: str) -> list[bytes]:
    data = PUNCTUATION.sub(" ", text).encode("utf-8", "surrogatepass")
    return WORD.findall(bytes(data).lower())


def slow_grams(words: list[bytes], n: int) -> list[tuple[bytes, ...]]:
    if len(words) < n:
        return [tuple(words)] if words else []
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def one_to_one(numbers: list[int], things: list[object]) -> bool:
    """Equal things have equal numbers, and different ones different numbers."""
    pairs = set(zip(numbers, things, strict=True))
    return len(pairs) == len(set(numbers)) == len(set(things))


@given(st.lists(TEXT, max_size=6), st.integers(1, 14))
def test_words_and_grams_are_those_of_the_definition(texts: list[str], n: int) -> None:
    words = hash_many([encode(t) for t in texts])
    expected = [find_words(t) for t in texts]
    assert np.diff(words.offsets).tolist() == [len(w) for w in expected]
    flat = [w for text in expected for w in text]
    assert one_to_one(words.hashes.tolist(), list(flat))
    assert words.variable.tolist() == [
        len(w) > 2 and any(c in b"0123456789" for c in w) for w in flat
    ]
    grams = make_grams(words, n)
    slow = [slow_grams(w, n) for w in expected]
    assert np.diff(grams.offsets).tolist() == [len(g) for g in slow]
    assert one_to_one(grams.hashes.tolist(), [g for text in slow for g in text])


@given(TEXT, TEXT)
def test_a_text_has_the_same_words_alone_and_among_others(a: str, b: str) -> None:
    many = hash_many([encode(a), encode(b)])
    assert many.hashes[: many.offsets[1]].tolist() == hash_words(a).tolist()
    assert many.hashes[many.offsets[1] :].tolist() == hash_words(encode(b)).tolist()


@pytest.mark.parametrize("filler", ["", ".", "— ", "é", "z"])
def test_words_across_windows_are_read_whole(filler: str) -> None:
    rng = random.Random(3)
    long = " ".join("w" * rng.randrange(1, 700) + filler for _ in range(1500))
    texts = [long, "x" * 300_000, ". " * 100_000, "", "—" * 50_000, "tail words"]
    words = hash_many([t.encode() for t in texts])
    for i, text in enumerate(texts):
        mine = words.hashes[words.offsets[i] : words.offsets[i + 1]].tolist()
        assert one_to_one(mine, list(find_words(text)))
        assert len(mine) == len(find_words(text))


def test_bytes_that_are_no_utf8_do_no_harm() -> None:
    for text in (b"\xe2", b"\xe2\x80", b"a\xf0\x9f", b"\xc2", b"\xff\xfe\x00x", b"\x00" * 9):
        assert len(hash_many([text, b"b"])) == 2


def test_numbers_of_words_never_change() -> None:
    """They are in caches and decide clusters: another number is another format."""
    assert hash_words("Gas Town").tolist() == [14575235356512370827, 7716606805547515245]


def test_texts_that_differ_in_ids_and_long_numbers_only_have_one_masked_digest() -> None:
    texts = [
        "wait 170 min for gt-a1b",
        "Wait  4200 min, for gt-zz9",
        "wait 170 hours for gt-a1b",
        "",
    ]
    a, b, c, empty = digest_masked(hash_many([t.encode() for t in texts]))
    assert a == b != c
    assert len(a) == 16
    one, two = digest_masked(hash_many([b"bd create -p 0 gt-a1b", b"bd create -p 3 gt-a1b"]))
    assert one != two
    assert empty == b""


def test_call_arguments_are_part_of_the_plain_text() -> None:
    call = {"function": {"name": "Bash", "arguments": {"command": "bd ready"}}}
    said = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    assert write_plain(said) == 'go\n\n{"command":"bd ready"}'


def make_words(rng: random.Random, n: int) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(n)]


def find(texts: list[str], threshold: float) -> list[tuple[int, int, float]]:
    words = hash_many([t.encode() for t in texts])
    grams = make_grams(words, 5)
    return find_near(
        sketch(words), lambda i: grams.hashes[grams.offsets[i] : grams.offsets[i + 1]], threshold
    )


def brute(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    sets = [set(slow_grams(find_words(t), 5)) for t in texts]
    scores = {
        (i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        for j in range(len(texts))
        for i in range(j)
        if sets[i] and sets[j]
    }
    return {pair: score for pair, score in scores.items() if score >= threshold}


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_planted_near_duplicates_are_found_and_nothing_else(threshold: float) -> None:
    rng = random.Random(5)
    texts = []
    for _ in range(40):
        base = make_words(rng, rng.choice([3, 8, 60, 400]))
        edited = [w if rng.random() > 0.01 else "edited" for w in base]
        texts += [" ".join(base), " ".join(edited), " ".join(base[:40] + make_words(rng, 20))]
    rng.shuffle(texts)
    expected = brute(texts, threshold)
    found = {(i, j): score for i, j, score in find(texts, threshold)}
    assert found.items() <= expected.items()
    assert len(expected) >= 20
    assert len(found) >= 0.97 * len(expected)


def test_identical_short_texts_are_near_and_texts_without_words_are_not() -> None:
    assert find(["yes", "yes", "", "", "no", "..."], 0.8) == [(0, 1, 1.0)]
    assert find([], 0.8) == find(["one"], 0.8) == find(["a", "a"], 0.0) == []


def test_a_crowd_of_alike_texts_is_joined_without_comparing_all_pairs() -> None:
    rng = random.Random(1)
    base = make_words(rng, 200)
    texts = []
    for n in range(3000):
        copy = list(base)
        copy[rng.randrange(200)] = f"only{n}"
        texts.append(" ".join(copy))
    words = hash_many([t.encode() for t in texts])
    grams = make_grams(words, 5)
    asked: list[int] = []

    def grams_of(i: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        asked.append(i)
        return grams.hashes[grams.offsets[i] : grams.offsets[i + 1]]

    pairs = find_near(sketch(words), grams_of, 0.8)
    groups = Groups()
    for a, b, _ in pairs:
        groups.join(f"{a:04}", f"{b:04}")
    assert len({groups.find(f"{i:04}") for i in range(3000)}) == 1
    assert len(pairs) < 9 * len(texts)
    assert len(asked) <= 2 * len(texts)


def test_sketches_are_the_same_in_every_process_and_every_batch() -> None:
    texts = ["a b c d e f g", "", "one two", "w " * 900]
    code = (
        "from gtft.corpus.partition.near import sketch; from gtft.corpus.partition.words import hash_many\n"
        f"print(sketch(hash_many([t.encode() for t in {texts!r}])).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    alone = [sketch(hash_many([t.encode()]))[0].tolist() for t in texts]
    assert str(alone) == done.stdout.strip()
    assert sketch(hash_many([])).shape == (0, 128)


@given(st.floats(0.05, 1.0))
def test_bands_find_a_pair_at_the_threshold(threshold: float) -> None:
    bands, rows = choose_bands(threshold)
    assert bands * rows <= 128
    assert (1 - threshold**rows) ** bands <= 0.005


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_jaccard_is_that_of_sets(a: set[int], b: set[int]) -> None:
    arrays = [np.array(sorted(s), np.uint64) for s in (a, b)]
    assert measure_jaccard(*arrays) == (len(a & b) / len(a | b) if a and b else 0.0)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20))), st.randoms())
def test_groups_are_called_by_their_smallest_key_in_any_order(
    edges: list[tuple[int, int]], rng: random.Random
) -> None:
    names = [f"k{i:02}" for i in range(21)]
    label = dict(zip(names, names, strict=True))
    for _ in names:
        for a, b in edges:
            label[names[a]] = label[names[b]] = min(label[names[a]], label[names[b]])
    rng.shuffle(edges)
    groups = Groups()
    for a, b in edges:
        groups.join(names[a], names[b])
    assert {k: groups.find(k) for k in names} == label


def test_a_long_chain_is_one_group() -> None:
    groups = Groups()
    for i in range(200_000, 0, -1):
        groups.join(f"{i:06}", f"{i - 1:06}")
    assert groups.find("200000") == "000000"


def test_words_of_nothing() -> None:
    words = hash_many([])
    assert len(words) == 0
    assert make_grams(words, 13).hashes.tolist() == []
    assert digest_masked(words) == []
    assert isinstance(words, Words)
