"""No item may stand in the training set, whole or nearly: found, named, counted, left out."""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gtft.evals.heldout import write_reference
from gtft.evals.item import Item, Message

SHINGLE = 5
PHRASE = 13
# A phrase that this many training clusters share is boilerplate, not a leak.
BOILERPLATE = 8
NEAR = 0.8
_VARIABLE = re.compile(r"\b[0-9a-f]{6,}\b|\d+")

_Gram = tuple[str, ...]


@dataclass(frozen=True)
class Removed:
    """An item that training holds. ``similarity``: Jaccard of word 5-grams, 1.0 for a masked copy."""

    item: str
    example: str
    similarity: float
    reason: str


@dataclass(frozen=True)
class Overlap:
    """What is left, what was removed, and how close the closest training turn came to each kept item.

    ``rare``: kept items that share 13 words in a row with training, where fewer than 8 clusters of the
    corpus hold those words.
    """

    kept: tuple[Item, ...]
    removed: tuple[Removed, ...]
    similarity: Mapping[str, float]
    rare: frozenset[str]

    def figures(self, scored: Collection[str]) -> dict[str, Any]:
        """Of the items that are ``scored`` (ids), and how many were removed before."""
        values = sorted(v for k, v in self.similarity.items() if k in scored)
        return {
            "items_removed": len(self.removed),
            "max_similarity": round(values[-1], 4) if values else 0.0,
            "median_similarity": round(statistics.median(values), 4) if values else 0.0,
            "items_sharing_a_rare_phrase": len(self.rare & set(scored)),
        }


def remove_overlap(
    items: Sequence[Item],
    training: Iterable[Mapping[str, Any]],
    heldout: Iterable[Mapping[str, Any]] = (),
) -> Overlap:
    """Compare every item with every assistant turn of the training examples (lines of train.jsonl).
    ``heldout`` (lines of heldout.jsonl) only tells how common a phrase is in the whole corpus, as the
    harvest counts it.

    An item goes when its last request and answer equal a turn's after masking numbers and hashes, or share at
    least 0.8 of their word 5-grams.
    """
    texts = {i.id: _item_text(i) for i in items}
    shingles = {k: _grams(_words(t), SHINGLE) for k, t in texts.items()}
    masked = {k: _mask(t) for k, t in texts.items()}
    by_mask: dict[str, list[str]] = {}
    for k, text in masked.items():
        by_mask.setdefault(text, []).append(k)
    index: dict[_Gram, list[str]] = {}
    for k, grams in shingles.items():
        for g in grams:
            index.setdefault(g, []).append(k)
    phrases = {k: _grams(_words(t), PHRASE, short=False) for k, t in texts.items()}
    wanted = {g for grams in phrases.values() for g in grams}
    clusters: dict[_Gram, set[str]] = {}
    closest: dict[str, tuple[float, str]] = dict.fromkeys(texts, (0.0, ""))
    removed: dict[str, Removed] = {}
    for example in training:
        for text in _turn_texts(example["messages"]):
            for k in by_mask.get(_mask(text), ()):
                removed.setdefault(k, Removed(k, example["id"], 1.0, "the same but for numbers"))
            words = _words(text)
            grams = _grams(words, SHINGLE)
            shared: dict[str, int] = {}
            for g in grams:
                for k in index.get(g, ()):
                    shared[k] = shared.get(k, 0) + 1
            for k, n in shared.items():
                score = n / (len(grams) + len(shingles[k]) - n)
                closest[k] = max(closest[k], (score, example["id"]))
            for g in _grams(words, PHRASE, short=False) & wanted:
                clusters.setdefault(g, set()).add(example["cluster"])
    trained = set(clusters)
    for example in heldout:
        for text in _turn_texts(example["messages"]):
            for g in _grams(_words(text), PHRASE, short=False) & trained:
                clusters[g].add(example["cluster"])
    for k, (score, example_id) in closest.items():
        if score >= NEAR:
            removed.setdefault(k, Removed(k, example_id, round(score, 4), "a near-copy"))
    rare = {g for g, seen in clusters.items() if len(seen) < BOILERPLATE}
    kept = tuple(i for i in items if i.id not in removed)
    return Overlap(
        kept,
        tuple(removed[k] for k in sorted(removed)),
        {i.id: closest[i.id][0] for i in kept},
        frozenset(i.id for i in kept if phrases[i.id] & rare),
    )


def _item_text(item: Item) -> str:
    return "\n".join([*_last_request(item.messages), item.reference])


def _turn_texts(messages: Sequence[Message]) -> Iterator[str]:
    for at, message in enumerate(messages):
        if message["role"] == "assistant":
            yield "\n".join([*_last_request(messages[:at]), write_reference(message)])


def _last_request(messages: Sequence[Message]) -> list[str]:
    """The last user message and the tool results after it."""
    start = next((i for i in range(len(messages) - 1, -1, -1) if messages[i]["role"] == "user"), 0)
    return [m.get("content") or "" for m in messages[start:] if m["role"] in ("user", "tool")]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def _grams(words: Sequence[str], n: int, *, short: bool = True) -> set[_Gram]:
    """Word n-grams; with ``short`` a text of fewer words is one gram."""
    if len(words) < n:
        return {tuple(words)} if short and words else set()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def _mask(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_VARIABLE.sub("#", folded).split())
