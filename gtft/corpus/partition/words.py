"""Words and n-grams as 64-bit numbers: many texts at once, the same on every machine and in every process.

A word is a run of ASCII letters, digits, ``_`` and characters beyond ASCII, without regard to ASCII case.
Non-ASCII punctuation, arrows, boxes and emoji (U+0080-00BF, 2000-2BFF, 3000-303F, 1F000-1FFFF) end a word.
A word longer than `LONGEST` bytes counts as several. Two words get one number about once in 2^60 pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from gtft.artifact import canonical_json

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

LONGEST = 255
# Bytes worked on at once: what fits a processor's cache.
_WINDOW = 1 << 16
_BLOCK = 1 << 20
_BASE = 0x9E3779B97F4A7C13
_MASKED = np.uint64(0x23)
# A shorter word with a digit is a count, a priority, an exit code: it may well decide the answer.
_PLAIN = 2
_NO_HASHES = np.empty(0, np.uint64)
_SHORT = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of some texts: text i has ``hashes[offsets[i]:offsets[i + 1]]``.

    ``variable`` marks words of 3 bytes and more that hold a digit: numbers, dates, hashes, ids (of 1,000 hashes of 7 hex
    digits one has none).
    """

    hashes: Hashes
    offsets: Offsets
    variable: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of some texts, in order and with repeats: text i has ``hashes[offsets[i]:offsets[i + 1]]``."""

    hashes: Hashes
    offsets: Offsets


@dataclass(frozen=True, slots=True)
class _Tables:
    value: Hashes  # by byte; 0 = ends a word
    power: Hashes
    inverse: Hashes


def write_plain(messages: Iterable[dict[str, Any]]) -> str:
    """All that an example's messages say, call arguments included, as one text."""
    parts: list[str] = []
    for m in messages:
        parts.append(m["content"])
        parts += [canonical_json(c["function"]["arguments"]) for c in m.get("tool_calls", ())]
    return "\n".join(parts)


def hash_words(text: bytes | str) -> Hashes:
    """The words of one text. For many texts `hash_many` is much faster."""
    return hash_many(
        [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text]
    ).hashes


def hash_many(texts: Sequence[bytes]) -> Words:
    """The words of each UTF-8 text, about 1 MB of them at a time."""
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    block_of = np.cumsum(sizes) // _BLOCK
    cuts = [0, *(np.flatnonzero(np.diff(block_of)) + 1).tolist(), len(texts)]
    blocks = [_hash_block(texts[a:b]) for a, b in pairwise(cuts) if b > a]
    if len(blocks) == 1:
        return blocks[0]
    counts = [np.diff(b.offsets) for b in blocks]
    return Words(
        np.concatenate([_NO_HASHES, *(b.hashes for b in blocks)]),
        np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts])),
        np.concatenate([np.empty(0, np.bool_), *(b.variable for b in blocks)]),
    )


def _hash_block(texts: Sequence[bytes]) -> Words:
    """The same, in a window that fits a processor's cache."""
    data = np.frombuffer(bytearray(b"\n".join([*texts, b""])), np.uint8)
    ends = np.cumsum(np.fromiter((len(t) + 1 for t in texts), np.int64, len(texts)))
    _blank_punctuation(data)
    tables = _make_tables()
    # One room for all windows: fresh pages would cost more than the work.
    room = np.empty(min(_WINDOW, len(data)), np.uint64)
    sums = np.zeros(len(room) + 1, np.uint64)
    counts = np.zeros(len(room) + 1, np.uint32)
    hashes: list[Hashes] = []
    variable: list[NDArray[np.bool_]] = []
    offsets = [np.zeros(1, np.int64)]
    at = seen = ended = 0
    while at < len(data):
        window = data[at : at + _WINDOW]
        values = tables.value.take(window, mode="clip", out=room[: len(window)])
        is_word = values != 0
        if is_word[-1]:
            # The last word may go on behind the window: the next one reads it whole.
            back = int(np.argmin(is_word[::-1]))
            size = len(window) - (back or len(window) % LONGEST)
            window, values, is_word = window[:size], values[:size], is_word[:size]
        starts, stops = _find_words(is_word)
        size = len(window)
        # A word's polynomial is the difference of two running sums, moved to power 0.
        values *= tables.power[:size]
        np.cumsum(values, out=sums[1 : size + 1])
        hashes.append(_mix((sums[stops] - sums[starts]) * tables.inverse[starts]))
        digits = (window - np.uint8(0x30)) < 10
        np.cumsum(digits.astype(np.uint32), out=counts[1 : size + 1])
        variable.append((counts[stops] != counts[starts]) & (stops - starts > _PLAIN))
        at += size
        until = int(np.searchsorted(ends, at, side="right"))
        offsets.append(seen + np.searchsorted(starts, ends[ended:until] - (at - size)))
        seen += len(starts)
        ended = until
    return Words(np.concatenate(hashes), np.concatenate(offsets), np.concatenate(variable))


def digest_masked(words: Words) -> list[bytes]:
    """A 128-bit digest of each text's words with all variable words alike; b"" for a text without words."""
    masked = np.where(words.variable, _MASKED, words.hashes).astype("<u8", copy=False)
    view = memoryview(masked.tobytes())
    at = (words.offsets * 8).tolist()
    return [xxhash.xxh3_128_digest(view[a:b]) if b > a else b"" for a, b in pairwise(at)]


def make_grams(words: Words, n: int) -> Grams:
    """The word n-grams of each text; a text of fewer words is one gram, equal only to the same whole text."""
    hashes, offsets = words.hashes, words.offsets
    size = len(hashes)
    padded = np.concatenate([hashes, np.zeros(n, np.uint64)])
    grams = _combine(padded, n)[:size]
    lengths = np.diff(offsets)
    keep = np.ones(size + 1, np.bool_)
    for back in range(1, n):
        keep[np.maximum(offsets[1:] - back, offsets[:-1])] = False
    short = np.flatnonzero((lengths < n) & (lengths > 0))
    # An empty text has no place of its own: what was marked there belongs to its neighbour.
    keep[offsets[:-1][lengths >= n]] = True
    if len(short):
        first = offsets[:-1][short]
        total = np.zeros(len(short), np.uint64)
        for i in range(n):
            total += np.where(i < lengths[short], padded[first + i] * _power(i), np.uint64(0))
        grams[first] = total ^ (_SHORT * (lengths[short].astype(np.uint64) + np.uint64(1)))
        keep[first] = True
    grams = _mix(grams)[keep[:size]]
    each = np.where(lengths >= n, lengths - n + 1, np.minimum(lengths, 1))
    return Grams(grams, np.concatenate([np.zeros(1, np.int64), np.cumsum(each)]))


def sort_distinct(parts: list[Hashes]) -> Hashes:
    """One sorted array without repeats; several parts should be sorted themselves, as they are merged.

    Empties ``parts``, so that what is not held elsewhere is freed.
    """
    values = np.concatenate([_NO_HASHES, *parts])
    kind: Literal["stable"] | None = "stable" if len(parts) > 1 else None
    parts.clear()
    values.sort(kind=kind)
    new = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return values[new]


def _combine(padded: Hashes, n: int) -> Hashes:
    """The polynomial of n words from each place on, by doubling: 13 = 8 + 4 + 1 takes 5 passes and not 12."""
    size = len(padded) - n
    total = np.zeros(size, np.uint64)
    done, span, block = 0, 1, padded
    while True:
        if n & span:
            total += block[done : done + size] * _power(done)
            done += span
        if done == n:
            return total
        block = block[:-span] + block[span:] * _power(span)
        span *= 2


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_BASE, exponent, 1 << 64))


def _mix(values: Hashes) -> Hashes:
    """splitmix64's last step (Steele, Lea, Flood 2014), in place."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(31)
    return values


def _find_words(is_word: NDArray[np.bool_]) -> tuple[Offsets, Offsets]:
    """Where words start and stop; those that are too long go in pieces."""
    edge = np.empty(len(is_word) + 1, np.bool_)
    edge[0], edge[-1] = is_word[0], is_word[-1]
    np.not_equal(is_word[1:], is_word[:-1], out=edge[1:-1])
    edges = np.flatnonzero(edge)
    starts, stops = edges[0::2], edges[1::2]
    long = np.flatnonzero(stops - starts > LONGEST)
    if len(long):
        cuts = np.concatenate([np.arange(starts[i] + LONGEST, stops[i], LONGEST) for i in long])
        starts = np.sort(np.concatenate([starts, cuts]))
        stops = np.sort(np.concatenate([stops, cuts]))
    return starts, stops


def _blank_punctuation(data: NDArray[np.uint8]) -> None:
    """Spaces over the UTF-8 of characters that end a word."""
    leads = np.flatnonzero(data >= 0xC2)
    leads = leads[leads + 1 < len(data)]
    lead, then = data[leads], data[leads + 1]
    for mine, length in (
        (lead == 0xC2, 2),
        ((lead == 0xE2) & (then <= 0xAF) | (lead == 0xE3) & (then == 0x80), 3),
        ((lead == 0xF0) & (then == 0x9F), 4),
    ):
        for i in range(length):
            at = leads[mine] + i
            data[at[at < len(data)]] = 0x20


@cache
def _make_tables() -> _Tables:
    value = np.zeros(256, np.uint64)
    for b in range(256):
        letter = bytes([b]).lower()
        if b >= 0x80 or letter.isalnum() or letter == b"_":
            value[b] = xxhash.xxh3_64_intdigest(letter)
    powers = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        power = np.full(_WINDOW, base, np.uint64)
        power[0] = 1
        powers.append(np.multiply.accumulate(power))
    return _Tables(value, powers[0], powers[1])
