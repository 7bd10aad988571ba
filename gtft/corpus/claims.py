"""Which file keeps a record that several files hold.

Files are read one by one, in any order and in several processes, each as if it were alone. What it took is
noted as 64-bit keys; `settle` then says what each file has to give up, and such a file is read again.
The lowest version keeps a record, then the first file; a file settles its own repeats by the first line.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

Keys = npt.NDArray[np.uint64]
Rank = npt.NDArray[np.uint32]
# What a key stands for; it seeds the hash, so that equal ids of two kinds are two keys.
RECORD, RESPONSE, MARK = 1, 2, 3
_NO_VERSION = (1 << 30,)


class Claims(msgspec.Struct):
    """What one file took. ``lost`` is what it has to give up: empty on the first reading.

    All but ``lost`` says what is in the file, so the claims of a first reading stay good. Packed arrays:
    ``records`` and ``parents`` hold keys; ``runs`` the versions of records, each from a position on;
    ``responses`` pairs of a key and the position of its record (`NOWHERE`: it has none); ``marks`` the rest.
    ``link`` is a cluster key of the file.
    """

    lost: frozenset[int] = frozenset()
    link: str = ""
    records: bytes = b""
    runs: list[tuple[int, str]] = []
    responses: bytes = b""
    parents: bytes = b""
    marks: bytes = b""

    def lose(self, kind: int, name: str) -> bool:
        """Whether another file keeps it."""
        return bool(self.lost) and _make_key(kind, name) in self.lost

    def note_records(
        self, uuids: Iterable[str], runs: list[tuple[int, str]], parents: Iterable[str]
    ) -> None:
        """The records of the file, each once, and the parents that it names and does not hold."""
        self.records = _pack(RECORD, uuids)
        self.runs = runs
        self.parents = _pack(RECORD, parents)

    def note_responses(self, names: Iterable[str], at: Iterable[int]) -> None:
        """The answers of the file with the position of each record that holds a piece; -1 for none."""
        pairs = np.array(list(at), np.int64).view(np.uint64)
        keys = np.frombuffer(_pack(RESPONSE, names), np.uint64)
        self.responses = np.concatenate([keys, pairs]).tobytes()

    def note_marks(self, names: Iterable[str]) -> None:
        """What the first file keeps, whatever its version."""
        self.marks = _pack(MARK, names)


class Settled(msgspec.Struct, frozen=True):
    """``lost`` for each file; ``pairs`` of files that hold the same records (enough of them to join all that do);
    ``phantoms``: parents that no file holds."""

    lost: tuple[frozenset[int], ...]
    pairs: tuple[tuple[int, int], ...]
    phantoms: int


def settle(claims: Sequence[Claims]) -> Settled:
    """What each file gives up. ``claims`` of first readings, in the order of the files."""
    records = [_unpack(c.records) for c in claims]
    ranks = _rank_versions(claims, [len(r) for r in records])
    losers, pairs = _settle_keys(records, ranks)
    responses: list[Keys] = []
    for claim, mine, gone in zip(claims, records, losers, strict=True):
        both = _unpack(claim.responses)
        keys, at = both[: len(both) // 2], both[len(both) // 2 :].view(np.int64)
        # A piece whose record another file keeps is no claim on the answer.
        stays = np.ones(len(mine) + 1, bool)
        stays[:-1] = ~np.isin(mine, gone) if len(gone) else True
        responses.append(np.unique(keys[stays[np.where(at < len(mine), at, -1)]]))
    lost_responses, _ = _settle_keys(responses, None)
    marks, _ = _settle_keys([np.unique(_unpack(c.marks)) for c in claims], None)
    lost = tuple(
        frozenset(np.concatenate(three).tolist())
        for three in zip(losers, lost_responses, marks, strict=True)
    )
    parents = np.unique(_join([_unpack(c.parents) for c in claims]))
    phantoms = len(parents) - int(np.isin(parents, _join(records)).sum()) if len(parents) else 0
    return Settled(lost, pairs, phantoms)


def parse_version(text: str) -> tuple[int, ...]:
    """``2.1.17`` as numbers; what holds none ranks last."""
    found = re.findall(r"\d{1,9}", text[:100])
    return tuple(int(n) for n in found) if found else _NO_VERSION


def _pack(kind: int, names: Iterable[str]) -> bytes:
    return array("Q", [_make_key(kind, n) for n in names]).tobytes()


def _make_key(kind: int, name: str) -> int:
    return xxh3_64_intdigest(name.encode("utf-8", "replace"), kind)


def _unpack(data: bytes) -> Keys:
    return np.frombuffer(data, np.uint64)


def _join(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _rank_versions(claims: Sequence[Claims], sizes: Sequence[int]) -> list[Rank]:
    """The version of each record of each file as a number; lower versions have lower numbers."""
    known = {version: parse_version(version) for c in claims for _, version in c.runs}
    place = {v: n for n, v in enumerate(sorted(set(known.values())))}
    ranks = []
    for claim, size in zip(claims, sizes, strict=True):
        rank = np.zeros(size, np.uint32)
        for start, version in claim.runs:
            rank[start:] = place[known[version]]
        ranks.append(rank)
    return ranks


def _settle_keys(
    keys: Sequence[Keys], ranks: Sequence[Rank] | None
) -> tuple[list[Keys], tuple[tuple[int, int], ...]]:
    """The keys that each file loses, and which files share any. A file names a key once."""
    everything = _join(keys)
    ordered = np.sort(everything)
    shared = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    none = np.zeros(0, np.uint64)
    if not len(shared):
        return [none for _ in keys], ()
    at = np.flatnonzero(np.isin(everything, shared))
    key = everything[at]
    file = np.repeat(np.arange(len(keys)), [len(k) for k in keys])[at]
    rank = _join(ranks)[at] if ranks is not None else np.zeros(len(at), np.uint32)
    order = np.lexsort((file, rank, key))
    key, file = key[order], file[order]
    again = np.concatenate([[False], key[1:] == key[:-1]])
    winner = file[np.maximum.accumulate(np.where(again, 0, np.arange(len(key))))]
    loses = file != winner
    pairs = np.unique(np.stack([winner[loses], file[loses]], axis=1), axis=0)
    lost = [none for _ in keys]
    by_file = np.argsort(file[loses], kind="stable")
    keys_lost, files_lost = key[loses][by_file], file[loses][by_file]
    for number in np.unique(files_lost).tolist():
        a, b = np.searchsorted(files_lost, [number, number + 1])
        lost[number] = keys_lost[a:b]
    return lost, tuple(sorted({(min(a, b), max(a, b)) for a, b in pairs.tolist()}))
