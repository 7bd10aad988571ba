"""Training and held-out sides: whole clusters only, stratified by source and role."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from gtft.corpus.example import Example


def choose_held_out(examples: Sequence[Example], share: float, seed: int) -> frozenset[str]:
    """The clusters that training never sees: about ``share`` of the examples of each source and role.

    The order of clusters is a hash of key and seed, so that a corpus that grows keeps most of its split.
    A stratum with one cluster only stays in training.
    """
    sizes = Counter(e.cluster for e in examples)
    stratum_of: dict[str, tuple[str, str]] = {}
    for e in examples:
        stratum_of.setdefault(e.cluster, (e.source, e.role or ""))
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cluster, stratum in stratum_of.items():
        strata[stratum].append(cluster)
    held: set[str] = set()
    for _, clusters in sorted(strata.items()):
        if len(clusters) < 2 or share <= 0:
            continue
        total = sum(sizes[c] for c in clusters)
        target, taken = share * total, 0
        clusters.sort(key=lambda c: _rank(c, seed))
        chosen: list[str] = []
        for c in clusters:
            if abs(taken + sizes[c] - target) < abs(taken - target) and taken + sizes[c] < total:
                chosen.append(c)
                taken += sizes[c]
        if not chosen and share * len(clusters) >= 1:
            chosen = [min(clusters, key=lambda c: (sizes[c], _rank(c, seed)))]
        held.update(chosen)
    return frozenset(held)


def _rank(cluster: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{cluster}".encode()).hexdigest()
