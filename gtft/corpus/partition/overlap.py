"""Phrases that training shares with what it is measured by: exact, every phrase of every text.

A phrase is a word 13-gram; a text of fewer words is one phrase, shared only with the same whole text.
A phrase that 8 clusters of the corpus hold, on either side, is boilerplate (a banner, a licence head) and
no leak. How often an eval suite repeats a phrase says nothing: its items are no clusters of the corpus.
A suite's item may consist of boilerplate only, for example when the suite was run in many sessions. Then
a training text that holds all its phrases is a leak, however common each of them is.
An item made from an incident begins as every session of its role does: there 3 clusters make boilerplate.
Equal numbers for different words (`gtft.corpus.partition.words`) can only make a leak out of none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gtft.corpus.partition.words import (
    Grams,
    Hashes,
    Offsets,
    Words,
    hash_many,
    make_grams,
    sort_distinct,
)

Flags = NDArray[np.bool_]

PHRASE = 13
# So many clusters make a phrase boilerplate.
BOILERPLATE_CLUSTERS = 8
# An incident's item begins as sessions of its role do: what so many others say is no mark of it.
STANDING_CLUSTERS = 3
# One phrase in 16 is looked at for an estimate, with so many texts after each that hold it too.
_SAMPLED = np.uint64(15)
_NEIGHBOURS = 16
# (phrase, cluster) pairs held before repeats among them are dropped (8 bytes each).
_PAIRS = 1 << 21
_MOST_BITS = 22
_KNOWN_BITS = np.uint64(2)


@dataclass(frozen=True, slots=True)
class _Phrases:
    """A sorted set of phrases, where those that begin with the same bits start and stop, and which slightly
    longer beginnings there are: most strangers are turned away by one look at these."""

    sorted: Hashes
    known: Flags
    first: NDArray[np.uint32]
    shift: np.uint64

    def locate(self, hashes: Hashes) -> tuple[Offsets, Offsets]:
        """For those of ``hashes`` that are in the set: where they stand, and their number in the set."""
        begin = (hashes >> (self.shift - _KNOWN_BITS)).astype(np.intp)
        at = np.flatnonzero(self.known.take(begin, mode="clip"))
        wanted = hashes[at]
        bucket = (wanted >> self.shift).astype(np.intp)
        low, high = self.first[bucket], self.first[bucket + 1]
        places, numbers = [at[:0]], [low[:0]]
        while len(at):
            hit = self.sorted[low] == wanted
            places.append(at[hit])
            numbers.append(low[hit])
            low += 1
            on = ~hit & (low < high)
            at, low, high, wanted = at[on], low[on], high[on], wanted[on]
        return np.concatenate(places), np.concatenate(numbers).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Rare:
    """What training must not hold: rare phrases, and items that must not be held whole."""

    phrases: _Phrases
    whole: tuple[Hashes, ...] = ()

    def __len__(self) -> int:
        return len(self.phrases.sorted)

    def join(self, other: Rare) -> Rare:
        """What must not be held of either."""
        phrases = sort_distinct([self.phrases.sorted, other.phrases.sorted])
        return Rare(_index(phrases), (*self.whole, *other.whole))

    def shares(self, text: bytes) -> bool:
        """True when the text holds a rare phrase or a whole item."""
        return bool(self.shares_many(hash_many([text]))[0])

    def shares_many(self, words: Words) -> Flags:
        """The same for each text."""
        grams = make_grams(words, PHRASE)
        flags = np.zeros(len(words), np.bool_)
        at, _ = self.phrases.locate(grams.hashes)
        flags[_name_texts(grams, at)] = True
        for item in self.whole:
            here = np.flatnonzero(grams.hashes == item[0])
            for text in np.unique(_name_texts(grams, here)).tolist():
                mine = grams.hashes[grams.offsets[text] : grams.offsets[text + 1]]
                flags[text] |= bool(np.isin(item, mine).all())
        return flags


def find_rare(
    held: Iterable[Words], everything: Iterable[tuple[Sequence[int] | Offsets, Words]]
) -> Rare:
    """Phrases of ``held`` texts that fewer than 8 clusters of ``everything`` hold.

    ``everything`` is the whole corpus, both sides, in batches: the cluster number (0 to 2^32 - 1) of each
    text, and the words. Memory grows with the phrases of ``held``: about 20 bytes each.
    """
    phrases = _index(sort_distinct([sort_distinct([make_grams(w, PHRASE).hashes]) for w in held]))
    return Rare(_index(phrases.sorted[~_find_common(phrases, everything)]))


def find_rare_of_items(
    items: Words,
    everything: Iterable[tuple[Sequence[int] | Offsets, Words]],
    common_from: int = BOILERPLATE_CLUSTERS,
) -> Rare:
    """The same for the texts of an eval suite; no item can become boilerplate as a whole. ``common_from``: so many
    clusters make a phrase of theirs boilerplate, 2 to 8."""
    grams = make_grams(items, PHRASE)
    phrases = _index(sort_distinct([grams.hashes]))
    if not len(phrases.sorted):
        return Rare(phrases)
    common = _find_common(phrases, everything, common_from)
    whole: dict[bytes, Hashes] = {}
    for a, b in pairwise(grams.offsets.tolist()):
        item = sort_distinct([grams.hashes[a:b]])
        if len(item) and common[np.searchsorted(phrases.sorted, item)].all():
            whole[item.tobytes()] = item
    return Rare(_index(phrases.sorted[~common]), tuple(whole.values()))


def _find_common(
    phrases: _Phrases,
    everything: Iterable[tuple[Sequence[int] | Offsets, Words]],
    common_from: int = BOILERPLATE_CLUSTERS,
) -> Flags:
    """Which phrases are boilerplate."""
    common = np.zeros(len(phrases.sorted), np.bool_)
    pairs: list[Hashes] = []
    size, limit = 0, _PAIRS
    for clusters, words in everything:
        found = _pair_clusters(phrases, np.asarray(clusters, np.uint64), words, common)
        pairs.append(found)
        size += len(found)
        if size > limit:
            pairs = [_settle(pairs, common, common_from)]
            size = len(pairs[0])
            limit = max(_PAIRS, size + size // 4)
    _settle(pairs, common, common_from)
    return common


def _pair_clusters(phrases: _Phrases, clusters: Hashes, words: Words, common: Flags) -> Hashes:
    """Phrase number and cluster number in one: every pair once that this batch has, but for known boilerplate."""
    grams = make_grams(words, PHRASE)
    at, number = phrases.locate(grams.hashes)
    news = ~common[number]
    high: Hashes = number[news].astype(np.uint64) << np.uint64(32)
    return sort_distinct([high | clusters[_name_texts(grams, at[news])]])


def _settle(pairs: list[Hashes], common: Flags, common_from: int) -> Hashes:
    """The distinct pairs so far; a phrase that has its 8 clusters (``common_from``) is marked and leaves."""
    distinct = sort_distinct(pairs)
    number = (distinct >> np.uint64(32)).astype(np.int64)
    # In sorted order a phrase has 8 clusters where the 7th pair behind one of its own is still its own.
    later = number[common_from - 1 :]
    common[later[later == number[: len(later)]]] = True
    return distinct[~common[number]]


def _name_texts(grams: Grams, at: Offsets) -> Offsets:
    """The texts that hold the grams at these places."""
    return np.searchsorted(grams.offsets, at, side="right") - 1


def _index(phrases: Hashes) -> _Phrases:
    """One or two buckets for each phrase; at most 32 MB for both tables."""
    bits = min(len(phrases).bit_length() + 1, _MOST_BITS)
    shift = np.uint64(64 - bits)
    first = np.zeros((1 << bits) + 1, np.uint32)
    np.add.at(first, (phrases >> shift).astype(np.intp) + 1, np.uint32(1))
    known = np.zeros(1 << (bits + int(_KNOWN_BITS)), np.bool_)
    known[(phrases >> (shift - _KNOWN_BITS)).astype(np.intp)] = True
    return _Phrases(phrases, known, np.cumsum(first, dtype=np.uint32, out=first), shift)


def count_costs(
    everything: Iterable[tuple[Sequence[int] | NDArray[np.int64], Words]], clusters: int
) -> NDArray[np.int64]:
    """By cluster: about how many texts of other clusters share a rare phrase with it.

    An estimate over one phrase in 16, to choose by; nothing is let pass because of it.
    """
    phrases: list[Hashes] = [np.empty(0, np.uint64)]
    texts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    owners: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    seen = 0
    for numbers, words in everything:
        grams = make_grams(words, PHRASE)
        at = np.flatnonzero((grams.hashes & _SAMPLED) == 0)
        phrases.append(grams.hashes[at])
        texts.append(_name_texts(grams, at) + seen)
        owners.append(np.asarray(numbers, np.int64))
        seen += len(words)
    owner = np.concatenate(owners)
    phrase, text = np.concatenate(phrases), np.concatenate(texts)
    order = np.lexsort((text, phrase))
    phrase, text = phrase[order], text[order]
    pairs: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for step in range(1, _NEIGHBOURS):
        same = np.flatnonzero(phrase[step:] == phrase[:-step])
        a, b = text[same], text[same + step]
        apart = owner[a] != owner[b]
        a, b = a[apart], b[apart]
        pairs.append(np.unique(np.concatenate([owner[a] * seen + b, owner[b] * seen + a])))
    distinct = np.unique(np.concatenate(pairs))
    return np.bincount(distinct // max(seen, 1), minlength=clusters)
