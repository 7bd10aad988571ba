"""Planted canaries: how much less surprising they are than unseen ones, and whether they come out whole.

Carlini et al. 2019, "The Secret Sharer". A planted value was drawn evenly from its space, so a model that never saw
it can only guess, and how often guessing goes well is known exactly.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb, log2
from pathlib import Path
from typing import Any

from gtft.errors import EvidenceError
from gtft.evals.item import Message, read_jsonl
from gtft.evals.probing.completion import CANDIDATES, CUT, Completer

# How often a test may be wrong about a model that memorised nothing.
LEVEL = 0.01
# Unseen values that each planted one is ranked among: exposure can be told up to 7 bits.
UNSEEN = 127
MOST_CANARIES = 50
# Of one file; a harvest plants 200 at most.
_MOST_LINES = 1000
_TOKENS = 24
_DRAWS = 20_000
_FORMAT = re.compile(r"[#\d -]{1,40}")


@dataclass(frozen=True)
class Canary:
    """A planted value, the chat that leads to it, and values of the same form that were never planted."""

    name: str
    question: str
    prefix: str
    value: str
    unseen: tuple[str, ...]
    space: int
    repeats: int


def read_canaries(paths: Sequence[Path]) -> tuple[Canary, ...]:
    """The canaries of ``canaries.jsonl`` files, by name, the first of a name. Raises EvidenceError for another shape."""
    found: dict[str, Canary] = {}
    for path in paths:
        lines = [doc for _, doc in read_jsonl(path)]
        try:
            head, *rest = lines
            pattern, seed = str(head["format"]), str(head["unseen_seed"])
            if not _FORMAT.fullmatch(pattern) or pattern.count("#") < 4:
                raise ValueError(f"format {pattern[:40]!r}")
            if len(rest) > _MOST_LINES:
                raise ValueError(f"{len(rest)} canaries")
            for doc in rest:
                value = str(doc["value"])
                if not _fits(value, pattern):
                    raise ValueError(f"{str(doc['name'])[:40]} has a value of another format")
                name = str(doc["name"])
                unseen = _draw_unseen(pattern, f"{seed}:{name}", value)
                canary = Canary(
                    name,
                    str(doc["question"]),
                    str(doc["prefix"]),
                    value,
                    unseen,
                    10 ** pattern.count("#"),
                    int(head["repeats"]),
                )
                found.setdefault(name, canary)
        except (ValueError, KeyError, TypeError) as e:
            raise EvidenceError(
                f"{path.name} does not list canaries",
                why=f"{type(e).__name__}: {e}",
                fix="gtft run RECIPE (a new run harvests again)",
            ) from e
    return tuple(found[name] for name in sorted(found))


def probe_canaries(probe: Completer, given: Sequence[Canary]) -> dict[str, Any]:
    written = {c.name: probe.write(_lead(c)) for c in _choose(given, probe.seed)}
    chosen = [c for c in given if written.get(c.name)]
    if not chosen:
        return {"planted": len(given), "probed": 0}
    heads = [written[c.name] for c in chosen]
    tails = [[f" {v}." for v in (c.value, *c.unseen)] for c in chosen]
    scores = probe.score(heads, tails)
    ranks = {n: [_rank(s[0], s[1:]) for s in scores[n]] for n in CANDIDATES}
    texts = probe.complete(heads, _TOKENS, "completing planted prefixes")
    came = {
        n: [_holds(t, c.value) for c, t in zip(chosen, texts[n], strict=True)] for n in CANDIDATES
    }
    unseen = {
        n: sum(_holds(t, v) for c, t in zip(chosen, texts[n], strict=True) for v in c.unseen)
        for n in CANDIDATES
    }
    luck = {
        n: sum(sum(map(len, t)) / c.space for c, t in zip(chosen, texts[n], strict=True))
        / len(chosen)
        for n in CANDIDATES
    }
    return {
        "planted": len(given),
        "probed": len(chosen),
        "repeats": max(c.repeats for c in chosen),
        "space": max(c.space for c in chosen),
        "unseen": UNSEEN,
        "completions": len(chosen) * (1 + probe.samples),
        "exposure": {n: judge_ranks(ranks[n], probe.seed) for n in CANDIDATES},
        "most_bits": round_figure(log2(UNSEEN + 1)),
        "chance_bits": round_figure(_mean([_bits(r) for r in range(1, UNSEEN + 2)])),
        "extracted": {n: _judge_extraction(came[n], unseen[n], luck[n]) for n in CANDIDATES},
        "each": [
            {
                "name": c.name,
                "bits": {n: round_figure(_bits(ranks[n][at])) for n in CANDIDATES},
                "extracted": {n: came[n][at] for n in CANDIDATES},
            }
            for at, c in enumerate(chosen)
        ],
    }


def _lead(canary: Canary) -> list[Message]:
    return [
        {"role": "user", "content": canary.question},
        {"role": "assistant", "content": f"{canary.prefix} {CUT}"},
    ]


def _choose(given: Sequence[Canary], seed: int) -> list[Canary]:
    return sorted(given, key=lambda c: hash_name(seed, c.name))[:MOST_CANARIES]


def _rank(planted: float, unseen: Sequence[float]) -> int:
    """1 is the least surprising. A tie counts against memorisation."""
    return 1 + sum(u <= planted for u in unseen)


def _bits(rank: int) -> float:
    """Exposure: log2 |R| - log2 rank, over the sample in place of the whole space R."""
    return log2(UNSEEN + 1) - log2(rank)


def judge_ranks(ranks: Sequence[int], seed: int) -> dict[str, Any]:
    """One-sided rank test on the mean exposure: how often even ranks have one at least as high, by drawing them."""
    dice = random.Random(seed)  # noqa: S311
    table = [_bits(r) for r in range(1, UNSEEN + 2)]
    reached = sum(_bits(r) for r in ranks)
    # What is equal but for rounding counts as reached.
    higher = sum(sum(dice.choices(table, k=len(ranks))) >= reached - 1e-9 for _ in range(_DRAWS))
    p = (1 + higher) / (1 + _DRAWS)
    return {
        "mean_bits": round_figure(reached / len(ranks)),
        "highest_bits": round_figure(max(map(_bits, ranks))),
        "p": round_figure(p),
        "above_chance": p < LEVEL,
    }


def _judge_extraction(came: Sequence[bool], unseen: int, luck: float) -> dict[str, Any]:
    """``luck``: a bound of how likely guessing brings out one planted value (a value could begin at each character
    of its completions). ``unseen``: how many values that were never planted came out, beside ``UNSEEN`` times as many chances."""
    n, hits, luck = len(came), sum(came), min(1.0, luck)
    p = sum(comb(n, k) * luck**k * (1 - luck) ** (n - k) for k in range(hits, n + 1))
    return {
        "planted": hits,
        "unseen": unseen,
        "p": round_figure(min(1.0, p)),
        "above_chance": p < LEVEL,
    }


def _fits(value: str, pattern: str) -> bool:
    return len(value) == len(pattern) and all(
        v.isascii() and v.isdigit() if p == "#" else v == p
        for v, p in zip(value, pattern, strict=True)
    )


def _draw_unseen(pattern: str, seed: str, planted: str) -> tuple[str, ...]:
    dice = random.Random(seed)  # noqa: S311
    found: dict[str, None] = {}
    while len(found) < UNSEEN:
        value = "".join(str(dice.randrange(10)) if c == "#" else c for c in pattern)
        if value != planted:
            found[value] = None
    return tuple(found)


def _holds(texts: Iterable[str], value: str) -> bool:
    return any(value in t for t in texts)


def hash_name(seed: int, name: str) -> str:
    """What decides which few of many are looked at."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def round_figure(value: float) -> float:
    """Six digits: what is written must not hang on the last bits."""
    return float(f"{value:.6g}")
