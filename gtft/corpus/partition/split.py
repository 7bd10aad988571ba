"""Training and held-out sides: whole clusters only, stratified by source, role and rig."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

# Source, role, rig; "" where the role or the rig is not known.
Stratum = tuple[str, str, str]


class Row(NamedTuple):
    """What the split must know of an example. ``size`` in any unit that is the same for all rows."""

    cluster: str
    source: str
    role: str | None
    rig: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Split:
    """The clusters that training never sees, and the strata of which none is held out: nothing measures them."""

    held: frozenset[str]
    unmeasured: tuple[Stratum, ...] = ()


_FREE: Mapping[str, int] = MappingProxyType({})


def choose_held_out(
    rows: Sequence[Row], share: float, seed: int, costs: Mapping[str, int] = _FREE
) -> Split:
    """Hold out about ``share`` of the size of each stratum.

    ``costs``: how many rows of other clusters could not be trained on beside a cluster that is held out.
    Those that cost little come first (by powers of two), then a hash of key and seed decides, so that a
    corpus that grows keeps most of its split.
    A cluster belongs to the stratum that most of it is in. Strata too small to give a whole cluster are
    put together: the rigs of a role, then the roles of a source. No role of a source loses its last cluster.
    """
    if share <= 0:
        return Split(frozenset())
    parts: dict[str, Counter[Stratum]] = defaultdict(Counter)
    for row in rows:
        parts[row.cluster][_name_stratum(row)] += row.size
    sizes = {cluster: part.total() for cluster, part in parts.items()}
    stratum_of = {c: min(part, key=lambda s: (-part[s], s)) for c, part in parts.items()}
    left = Counter(stratum[:2] for stratum in stratum_of.values())

    def order(cluster: str) -> tuple[int, str]:
        return costs.get(cluster, 0).bit_length(), _rank(cluster, seed)

    waiting = sorted(parts, key=order)
    held: set[str] = set()
    for depth in (3, 2, 1):
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for cluster in waiting:
            groups[stratum_of[cluster][:depth]].append(cluster)
        waiting = []
        for _, clusters in sorted(groups.items()):
            if share * len(clusters) < 1:
                waiting += clusters
            else:
                held |= _take(clusters, share, sizes, stratum_of, left)
        waiting.sort(key=order)
    measured = {_name_stratum(row) for row in rows if row.cluster in held}
    return Split(frozenset(held), tuple(sorted({_name_stratum(row) for row in rows} - measured)))


def _take(
    clusters: list[str],
    share: float,
    sizes: dict[str, int],
    stratum_of: dict[str, Stratum],
    left: Counter[tuple[str, str]],
) -> set[str]:
    """Clusters in their order while they bring the sum nearer to its goal; at least one, where one may go."""
    total = sum(sizes[c] for c in clusters)
    goal, taken = share * total, 0
    chosen: set[str] = set()
    for c in clusters:
        nearer = abs(taken + sizes[c] - goal) < abs(taken - goal)
        if nearer and taken + sizes[c] < total and left[stratum_of[c][:2]] > 1:
            chosen.add(c)
            taken += sizes[c]
            left[stratum_of[c][:2]] -= 1
    if not chosen:
        free = [c for c in clusters if left[stratum_of[c][:2]] > 1]
        for c in sorted(free, key=lambda c: sizes[c])[:1]:
            chosen.add(c)
            left[stratum_of[c][:2]] -= 1
    return chosen


def _name_stratum(row: Row) -> Stratum:
    return row.source, row.role or "", row.rig or ""


def _rank(cluster: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{cluster}".encode()).hexdigest()
