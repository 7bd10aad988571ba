"""Near-duplicates and shared phrases, exactly: no sampling, no random hash, the same on every machine."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gtft.artifact import canonical_json
from gtft.corpus.example import Example

SHINGLE = 5
PHRASE = 13
# A phrase that this many clusters share is boilerplate (a banner, a licence head), not a leak.
BOILERPLATE_CLUSTERS = 8
_WORD = re.compile(r"\w+")


def write_plain(example: Example) -> str:
    """All that an example says, call arguments included, as one text."""
    parts: list[str] = []
    for m in example.messages:
        parts.append(m["content"])
        parts += [canonical_json(c["function"]["arguments"]) for c in m.get("tool_calls", ())]
    return "\n".join(parts)


@dataclass
class Words:
    """Words as small numbers, given in order of meeting."""

    ids: dict[str, int] = field(default_factory=dict)

    def number(self, text: str) -> list[int]:
        ids = self.ids
        return [ids.setdefault(w, len(ids)) for w in _WORD.findall(text.lower())]


def ngrams(words: Sequence[int], n: int) -> set[tuple[int, ...]]:
    """The n-grams of a text; a shorter text is one gram of its own."""
    if len(words) <= n:
        return {tuple(words)} if words else set()
    return set(zip(*(words[i:] for i in range(n)), strict=False))


def find_near_duplicates(
    texts: Sequence[str], threshold: float, words: Words
) -> Iterator[tuple[int, int, float]]:
    """Pairs (earlier, later, Jaccard) whose word 5-grams overlap by at least ``threshold``.

    Set-similarity join with prefix filter: rare shingles first, so that only texts that can reach the
    threshold are compared.
    """
    if threshold <= 0:
        return
    known: dict[tuple[int, ...], int] = {}
    sets: list[list[int]] = []
    seen: Counter[int] = Counter()
    for text in texts:
        grams = [known.setdefault(g, len(known)) for g in ngrams(words.number(text), SHINGLE)]
        sets.append(grams)
        seen.update(grams)
    known.clear()
    index: dict[int, list[int]] = defaultdict(list)
    ordered = [sorted(s, key=lambda g: (seen[g], g)) for s in sets]
    members = [frozenset(s) for s in sets]
    for i, grams in enumerate(ordered):
        size = len(grams)
        prefix = size - math.ceil(threshold * size) + 1 if size else 0
        candidates: set[int] = set()
        for g in grams[:prefix]:
            candidates.update(index[g])
            index[g].append(i)
        for j in sorted(candidates):
            other = len(ordered[j])
            if min(size, other) < threshold * max(size, other):
                continue
            shared = len(members[i] & members[j])
            jaccard = shared / (size + other - shared)
            if jaccard >= threshold:
                yield j, i, jaccard


@dataclass
class Phrases:
    """13-grams of held-out text that too few clusters share to be boilerplate."""

    rare: set[tuple[int, ...]]
    words: Words

    def shares(self, text: str) -> bool:
        """True when the text holds one of them (a whole shorter text counts as one)."""
        return not self.rare.isdisjoint(ngrams(self.words.number(text), PHRASE))


def find_rare_phrases(
    held: Iterable[str], everything: Iterable[tuple[str, str]], words: Words
) -> Phrases:
    """Phrases of ``held`` texts found in fewer than 8 clusters of ``everything`` (cluster, text)."""
    wanted: set[tuple[int, ...]] = set()
    for text in held:
        wanted |= ngrams(words.number(text), PHRASE)
    clusters: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for cluster, text in everything:
        for g in wanted & ngrams(words.number(text), PHRASE):
            if len(clusters[g]) < BOILERPLATE_CLUSTERS:
                clusters[g].add(cluster)
    rare = {g for g in wanted if len(clusters[g]) < BOILERPLATE_CLUSTERS}
    return Phrases(rare, words)


@dataclass
class Groups:
    """Connected components of cluster keys; a group is called by its smallest key."""

    _parent: dict[str, str] = field(default_factory=dict)

    def find(self, key: str) -> str:
        parent = self._parent
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def join(self, a: str, b: str) -> None:
        x, y = sorted((self.find(a), self.find(b)))
        self._parent[y] = x
