"""Near copies, clusters, sides and the leak check, over light rows and arrays; no text is held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gtft.corpus.draft import Block, Draft
from gtft.corpus.partition import split
from gtft.corpus.partition.groups import Groups
from gtft.corpus.partition.near import LANES, SHINGLE, find_near
from gtft.corpus.partition.overlap import (
    STANDING_CLUSTERS,
    Rare,
    count_costs,
    find_rare,
    find_rare_of_items,
)
from gtft.corpus.partition.suite import read_suite
from gtft.corpus.partition.words import Words, hash_many, make_grams
from gtft.corpus.settings import Harvested, Settings
from gtft.corpus.shard import Shard

Flags = npt.NDArray[np.bool_]

_BATCH = 1 << 20
# Words kept in memory between passes (8 bytes each); more are read again.
_KEPT = 1 << 22


def partition(
    drafts: Sequence[Draft],
    blocks: Sequence[Block],
    shards: Sequence[Shard],
    groups: Groups,
    suites: Sequence[Path],
    settings: Settings,
    out: Harvested,
) -> None:
    """Fills both sides of ``out``, each sorted by id, and its figures of near copies and leakage.

    ``groups`` holds what sessions, beads and shared records tie together. Near copies join it; one whose
    answers are the same too is dropped. Two cases that differ little and are answered differently teach a
    boundary: both stay.
    """
    drafts = _drop_near(drafts, shards, groups, settings.near_duplicate, out)
    for d in drafts:
        d.cluster = groups.find(d.link)
    numbers = {c: n for n, c in enumerate(sorted({d.cluster for d in drafts}))}
    clusters = np.array([numbers[d.cluster] for d in drafts], np.int64)
    everything = _Everything(drafts, shards, clusters)
    whole = np.ones(len(drafts), np.bool_)
    costs = count_costs(everything.list_clusters(whole), len(numbers)).tolist()
    # Made-up examples measure nothing: they are never held out.
    sides = split.choose_held_out(
        [
            split.Row(d.cluster, d.row.source, d.row.role, d.row.rig, 1)
            for d in drafts
            if d.provenance != "synthetic"
        ],
        settings.heldout,
        settings.seed,
        dict(zip(numbers, costs, strict=True)),
    )
    is_held = np.array([d.cluster in sides.held for d in drafts], np.bool_)
    made_up = np.array([d.provenance == "synthetic" for d in drafts], np.bool_)
    left = ~(is_held & made_up)
    out.dropped["made up, and near to what is held out"] += int((~left).sum())
    # What the role says in every session is standing text, whatever is dropped below.
    harm = [t.encode() for p in suites for t in read_suite(p, made=True)]
    harms = find_rare_of_items(hash_many(harm), everything.list_clusters(whole), STANDING_CLUSTERS)
    # What is dropped may take a phrase's boilerplate with it, and change a share: so until nothing is found.
    while True:
        train = left & ~is_held
        guard = _Guard.make(everything, left, is_held, suites, harms)
        leaks = everything.flag(guard.rare, train)
        shown = everything.flag(guard.tests, train) & ~leaks
        own = _cap(drafts, train & ~leaks & ~shown, "own", settings.own_model)
        made = _cap(drafts, train & ~leaks & ~shown & ~own, "synthetic", settings.synthetic)
        found = leaks | shown | own | made
        if not found.any():
            break
        out.dropped["shares a rare phrase with held-out"] += int(leaks.sum())
        out.dropped["shares a rare phrase with an eval suite"] += int(shown.sum())
        out.dropped["above the share of our own models"] += int(own.sum())
        out.dropped["above the share of made-up ones"] += int(made.sum())
        left &= ~found
    out.dropped = +out.dropped
    for i in np.flatnonzero(left).tolist():
        (out.heldout if is_held[i] else out.train).append(drafts[i])
    out.train.sort(key=lambda d: d.id)
    out.heldout.sort(key=lambda d: d.id)
    _choose_blocks(blocks, groups, sides.held, guard, out)
    # The last look was over exactly what is left, as if nobody had looked before.
    out.figures["leakage"] = {
        "shared clusters": len({d.cluster for d in out.train} & {d.cluster for d in out.heldout}),
        "training examples with a rare held-out phrase": int(leaks.sum()),
        "training examples with an eval suite's phrase": int(shown.sum()),
        "suites": [p.name for p in suites],
    }
    out.figures["strata without a held-out side"] = [
        "/".join(filter(None, s)) for s in sides.unmeasured
    ]


@dataclass(frozen=True)
class _Guard:
    """What training must not share: rare phrases of the held-out side, and of eval suites and incidents."""

    rare: Rare
    tests: Rare

    @staticmethod
    def make(
        everything: _Everything,
        left: Flags,
        held: Flags,
        suites: Sequence[Path],
        harms: Rare,
    ) -> _Guard:
        items = [t.encode() for p in suites for t in read_suite(p)]
        return _Guard(
            find_rare(everything.list_words(left & held), everything.list_clusters(left)),
            find_rare_of_items(hash_many(items), everything.list_clusters(left)).join(harms),
        )


def _cap(drafts: Sequence[Draft], wanted: Flags, provenance: str, share: float) -> Flags:
    """What is above ``share`` of the wanted; which ones stay is decided by their ids."""
    some = [i for i in np.flatnonzero(wanted).tolist() if drafts[i].provenance == provenance]
    some.sort(key=lambda i: drafts[i].id)
    others = int(wanted.sum()) - len(some)
    room = len(some) if share >= 1 else int(share / (1 - share) * others + 1e-9)
    flags = np.zeros(len(drafts), np.bool_)
    flags[some[room:]] = True
    return flags


def _drop_near(
    drafts: Sequence[Draft],
    shards: Sequence[Shard],
    groups: Groups,
    threshold: float,
    out: Harvested,
) -> list[Draft]:
    sketches = _gather_sketches(drafts, shards)
    words = _WordsOf(drafts, shards)
    pairs = find_near(sketches, words.read_grams, threshold)
    dropped: set[int] = set()
    for a, b, _ in pairs:
        groups.join(drafts[a].link, drafts[b].link)
        if a not in dropped and drafts[a].answers == drafts[b].answers:
            dropped.add(b)
    if dropped:
        out.dropped["near-duplicate"] += len(dropped)
    out.figures["near-duplicate pairs"] = len(pairs)
    return [d for i, d in enumerate(drafts) if i not in dropped]


def _gather_sketches(drafts: Sequence[Draft], shards: Sequence[Shard]) -> npt.NDArray[np.uint32]:
    out = np.empty((len(drafts), LANES), np.uint32)
    for unit, places in _by_unit(drafts):
        rows = shards[unit].read_sketches()
        for i in places:
            changed = drafts[i].changed
            out[i] = rows[drafts[i].place] if changed is None else changed.sketch
    return out


def _by_unit(drafts: Sequence[Draft]) -> Iterator[tuple[int, list[int]]]:
    """The places in ``drafts`` of each shard's rows."""
    places: dict[int, list[int]] = {}
    for i, d in enumerate(drafts):
        places.setdefault(d.unit, []).append(i)
    yield from places.items()


class _WordsOf:
    """Words of single texts. Whoever asks in order is given them from the shard that was read last."""

    def __init__(self, drafts: Sequence[Draft], shards: Sequence[Shard]) -> None:
        self._drafts = drafts
        self._shards = shards
        self._unit = -1
        self._words: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)

    def read(self, i: int) -> npt.NDArray[np.uint64]:
        d = self._drafts[i]
        if d.changed is not None:
            return d.changed.words
        if d.unit != self._unit:
            self._unit, self._words = d.unit, self._shards[d.unit].read_words()
        first, last = d.piece.words
        return self._words[first:last]

    def read_grams(self, i: int) -> npt.NDArray[np.uint64]:
        """5-grams, for whoever asks in any order."""
        d = self._drafts[i]
        words = d.changed.words if d.changed else self._shards[d.unit].read_words(*d.piece.words)
        return make_grams(_pack([words]), SHINGLE).hashes


def _read_all(drafts: Sequence[Draft], shards: Sequence[Shard]) -> list[npt.NDArray[np.uint64]]:
    reader = _WordsOf(drafts, shards)
    return [reader.read(i) for i in range(len(drafts))]


class _Everything:
    """The words of all texts in batches, as often as it is asked."""

    def __init__(
        self,
        drafts: Sequence[Draft],
        shards: Sequence[Shard],
        clusters: npt.NDArray[np.int64],
    ) -> None:
        self._drafts = drafts
        self._shards = shards
        self._clusters = clusters
        # Where they are few, words are read from the disk once.
        few = sum([d.piece.words[1] - d.piece.words[0] for d in drafts]) <= _KEPT
        self._texts = _read_all(drafts, shards) if few else None

    def list_clusters(self, wanted: Flags) -> Iterator[tuple[npt.NDArray[np.int64], Words]]:
        for places, words in self._list(wanted):
            yield self._clusters[places], words

    def list_words(self, wanted: Flags) -> Iterator[Words]:
        for _, words in self._list(wanted):
            yield words

    def flag(self, rare: Rare, wanted: Flags) -> Flags:
        """Which of the wanted texts share something with ``rare``."""
        flags = np.zeros(len(self._drafts), np.bool_)
        for places, words in self._list(wanted):
            flags[places] = rare.shares_many(words)
        return flags

    def _list(self, wanted: Flags) -> Iterator[tuple[npt.NDArray[np.int64], Words]]:
        reader = _WordsOf(self._drafts, self._shards)
        places: list[int] = []
        texts: list[npt.NDArray[np.uint64]] = []
        size = 0
        for i in np.flatnonzero(wanted).tolist():
            places.append(i)
            texts.append(self._texts[i] if self._texts is not None else reader.read(i))
            size += len(texts[-1])
            if size >= _BATCH:
                yield np.array(places), _pack(texts)
                places, texts, size = [], [], 0
        if places:
            yield np.array(places), _pack(texts)


def _pack(texts: Sequence[npt.NDArray[np.uint64]]) -> Words:
    hashes = np.concatenate(texts)
    offsets = np.cumsum([0, *[len(t) for t in texts]])
    return Words(hashes, offsets, np.zeros(len(hashes), np.bool_))


def _choose_blocks(
    blocks: Sequence[Block],
    groups: Groups,
    held: frozenset[str],
    guard: _Guard,
    out: Harvested,
) -> None:
    """Prose and preference pairs of the training side; what they share with the other is left out."""
    prose: dict[str, None] = {}
    pairs: set[tuple[bytes, str]] = set()
    for block, value, leak in _judge_blocks(blocks, guard):
        if groups.find(block.link) in held:
            out.left_out[f"{block.kind} held out"] += 1
        elif leak:
            out.left_out[f"{block.kind} left out as leak"] += 1
        elif block.kind == "pair" and (block.body, block.why) in pairs:
            out.left_out["pair: exact duplicate"] += 1
        elif block.kind == "pair":
            pairs.add((block.body, block.why))
            out.pairs.append(block)
        elif value in prose:
            out.left_out["prose: exact duplicate"] += 1
        elif value:
            prose[value] = None
    out.prose = list(prose)


def _judge_blocks(blocks: Sequence[Block], guard: _Guard) -> Iterator[tuple[Block, Any, bool]]:
    """Each block with what it says, and whether training must not hold it; a batch at a time."""
    at = 0
    while at < len(blocks):
        some: list[tuple[Block, Any, bytes]] = []
        size = 0
        while at < len(blocks) and size < _BATCH:
            value = blocks[at].read()
            some.append((blocks[at], value, _write_plain(value).encode()))
            size += len(some[-1][2])
            at += 1
        words = hash_many([text for _, _, text in some])
        leaks = guard.rare.shares_many(words) | guard.tests.shares_many(words)
        for (block, value, _), leak in zip(some, leaks.tolist(), strict=True):
            yield block, value, leak


def _write_plain(value: object) -> str:
    """All strings of a JSON value."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(map(_write_plain, value))
    return "\n".join(map(_write_plain, value.values())) if isinstance(value, dict) else ""
