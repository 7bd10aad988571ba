"""Near-duplicates: candidates from MinHash sketches in bands, each pair then checked by exact Jaccard.

Sketches: rensa's R-MinHash over word 5-grams. Bands: Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, 3.4. The work grows with the number of texts, not of pairs, even where all are alike.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from gtft.corpus.partition.groups import Union
from gtft.corpus.partition.words import Hashes, Words, make_grams, sort_distinct

Sketches = NDArray[np.uint32]
Pairs = NDArray[np.int64]

SHINGLE = 5
LANES = 128
_SEED = 7
# What rensa writes into every lane of a text without words.
_EMPTY = np.uint32(0xFFFFFFFF)
# A pair at the threshold is missed by all bands no more often than this.
_MISS = 0.005
# Up to this many texts in one bucket are compared each with each; more, with the next one and the first.
# A text that has so many named pairs gets no more within its group.
_SMALL = 8
# A sketch's estimate may lie this many standard errors below the threshold.
_DOUBT = 3.0
_ROWS_AT_ONCE = 1 << 14
# n-grams of texts kept between comparisons (8 bytes each).
_KEPT_GRAMS = 1 << 22


def sketch(words: Words) -> Sketches:
    """A row of 128 numbers for each text; the share of equal numbers estimates Jaccard over 5-grams."""
    grams = make_grams(words, SHINGLE)
    out = np.empty((len(words), LANES), np.uint32)
    for a in range(0, len(words), _ROWS_AT_ONCE):
        b = min(a + _ROWS_AT_ONCE, len(words))
        at = grams.offsets[a : b + 1]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            grams.hashes[at[0] : at[-1]], (at - at[0]).astype(np.uint64), LANES, _SEED
        )
        out[a:b] = matrix.to_rows()
    return out


def find_near(
    sketches: Sketches, grams_of: Callable[[int], Hashes], threshold: float
) -> list[tuple[int, int, float]]:
    """Pairs (earlier, later, Jaccard) of texts whose 5-grams overlap by at least ``threshold``, in order.

    ``grams_of`` gives the 5-grams of one text (any order, repeats allowed); it is asked only for texts of
    likely pairs. A text without words is near to nothing. In a crowd of more than 8 alike texts not every
    pair is named, but enough to join them all.
    """
    if threshold <= 0:
        return []
    kept = _Kept(grams_of)
    joined = Union(len(sketches))
    named: Counter[int] = Counter()
    found = []
    for i, j in _find_candidates(sketches, threshold).tolist():
        if max(named[i], named[j]) >= _SMALL and joined.find(i) == joined.find(j):
            continue
        jaccard = measure_jaccard(kept.get(i), kept.get(j))
        if jaccard >= threshold:
            found.append((i, j, jaccard))
            named.update((i, j))
            joined.join(i, j)
    return found


def measure_jaccard(a: Hashes, b: Hashes) -> float:
    """The share of common members of two sorted arrays without repeats; 0 when one is empty."""
    if not len(a) or not len(b):
        return 0.0
    both = np.sort(np.concatenate([a, b]), kind="stable")
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def choose_bands(threshold: float, lanes: int = LANES) -> tuple[int, int]:
    """(bands, lanes per band): the widest bands that still find 99.5 % of the pairs at the threshold."""
    for rows in range(lanes, 1, -1):
        if (1 - threshold**rows) ** (lanes // rows) <= _MISS:
            return lanes // rows, rows
    return lanes, 1


class _Kept:
    """Sets of grams of the texts asked for last."""

    def __init__(self, grams_of: Callable[[int], Hashes]) -> None:
        self._grams_of = grams_of
        self._sets: OrderedDict[int, Hashes] = OrderedDict()
        self._size = 0

    def get(self, i: int) -> Hashes:
        grams = self._sets.get(i)
        if grams is not None:
            self._sets.move_to_end(i)
            return grams
        grams = sort_distinct([self._grams_of(i)])
        self._sets[i] = grams
        self._size += len(grams)
        while self._size > _KEPT_GRAMS and len(self._sets) > 2:
            self._size -= len(self._sets.popitem(last=False)[1])
        return grams


def _find_candidates(sketches: Sketches, threshold: float) -> Pairs:
    """Pairs (earlier, later) that share a band and look alike enough, sorted."""
    count = len(sketches)
    if count < 2:
        return np.empty((0, 2), np.int64)
    bands, rows = choose_bands(threshold, sketches.shape[1])
    least = threshold - _DOUBT * (threshold * (1 - threshold) / sketches.shape[1]) ** 0.5
    survivors = np.empty(0, np.int64)
    following = _key_band(sketches, 0, rows)
    for band in range(bands):
        keys, following = following, _key_band(sketches, (band + 1) % bands, rows)
        found = [
            pairs[_estimate(sketches, pairs // count, pairs % count) >= least]
            for pairs in _pair_buckets(keys, following)
        ]
        survivors = np.union1d(survivors, np.concatenate([np.empty(0, np.int64), *found]))
    return np.stack([survivors // count, survivors % count], axis=1)


def _key_band(sketches: Sketches, band: int, rows: int) -> Hashes:
    """One number for the lanes of a band."""
    key = np.zeros(len(sketches), np.uint64)
    for lane in range(band * rows, (band + 1) * rows):
        key = (key ^ sketches[:, lane]) * np.uint64(0x9E3779B97F4A7C13)
        key ^= key >> np.uint64(29)
    return key


def _pair_buckets(keys: Hashes, following: Hashes) -> Iterator[Pairs]:
    """Pairs within buckets of equal keys, as earlier * count + later.

    Inside a bucket texts stand by the next band's key: the most alike are neighbours.
    """
    count = len(keys)
    order = np.lexsort((following, keys))
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sizes = np.diff(np.concatenate([first, [count]]))
    head = np.repeat(np.minimum.reduceat(order, first), sizes)
    small = np.repeat(sizes <= _SMALL, sizes)
    for step in range(1, _SMALL):
        near = np.flatnonzero((head[step:] == head[:-step]) & (small[step:] | (step == 1)))
        a, b = order[near], order[near + step]
        yield np.minimum(a, b) * count + np.maximum(a, b)
    far = ~small & (order > head)
    yield head[far] * count + order[far]


def _estimate(sketches: Sketches, a: Pairs, b: Pairs) -> NDArray[np.float64]:
    """Jaccard by the sketches."""
    out = np.empty(len(a))
    for i in range(0, len(a), _ROWS_AT_ONCE):
        part = slice(i, i + _ROWS_AT_ONCE)
        mine = sketches[a[part]]
        out[part] = ((mine == sketches[b[part]]) & (mine != _EMPTY)).mean(axis=1)
    return out
