"""Is there enough, for what, and what to collect next: role by role, and the verdict in a word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gtft.corpus.example import Example
from gtft.corpus.segment import CHARACTERS_PER_TOKEN

# What public runs of this size needed for one role (design section 6); fewer teach format, not judgement.
ENOUGH_PER_ROLE = 1000
ENOUGH_CLUSTERS = 50
# Below these a trial says more about luck than about the data.
TRIAL_PER_ROLE = 100
TRIAL_CLUSTERS = 10
# Shares from which a fault of the data is worth mending before a long training.
MOST_STALE = 0.05
MOST_UNKNOWN = 0.5

UNKNOWN = "unknown"
STARTING, TRIAL, NOT_YET = "worth starting", "worth a trial", "not yet"


@dataclass
class Stock:
    """What there is of one role on the training side; ``heldout`` counts the other one."""

    examples: int = 0
    heldout: int = 0
    synthetic: int = 0
    characters: int = 0
    answers: int = 0
    clusters: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)

    def add(self, example: Example, characters: int, answers: int) -> None:
        self.examples += 1
        self.synthetic += example.provenance == "synthetic"
        self.characters += characters
        self.answers += answers
        self.clusters.add(example.cluster)
        if example.origin.session:
            self.sessions.add(example.origin.session)


def measure_stock(stocks: Mapping[str, Stock], role: str) -> dict[str, dict[str, Any]]:
    """Role → what there is of it and what it is enough for; the wanted role first, then the largest."""
    names = sorted({*stocks, role}, key=lambda r: (r != role, -_examples(stocks, r), r))
    described = {name: _describe(stocks.get(name, Stock())) for name in names if name}
    if UNKNOWN in described:
        described[UNKNOWN]["enough for"] = "no role: nothing says which"
    return described


def _examples(stocks: Mapping[str, Stock], role: str) -> int:
    return stocks[role].examples if role in stocks else 0


def _describe(stock: Stock) -> dict[str, Any]:
    return {
        "examples": stock.examples,
        "held out": stock.heldout,
        "synthetic": stock.synthetic,
        "clusters": len(stock.clusters),
        "sessions": len(stock.sessions),
        "estimated tokens": stock.characters // CHARACTERS_PER_TOKEN,
        "estimated tokens trained": stock.answers // CHARACTERS_PER_TOKEN,
        "needed": ENOUGH_PER_ROLE,
        "missing": max(0, ENOUGH_PER_ROLE - stock.examples),
        "enough for": _name_use(stock.examples, len(stock.clusters)),
    }


def _name_use(examples: int, clusters: int) -> str:
    if examples >= ENOUGH_PER_ROLE and clusters >= ENOUGH_CLUSTERS:
        return "judgement"
    if examples >= TRIAL_PER_ROLE and clusters >= TRIAL_CLUSTERS:
        return "formats and conventions"
    return "nothing yet" if examples else "nothing: there are none"


def judge(health: dict[str, Any]) -> dict[str, Any]:
    """``verdict`` in a word, the reasons for it, and the next command. ``health`` is a report but for this."""
    mine = health["sufficiency"][health["role"]]
    examples, clusters = mine["examples"], mine["clusters"]
    against: list[str] = []
    if examples < ENOUGH_PER_ROLE:
        against.append(
            f"{examples:,} of about {ENOUGH_PER_ROLE:,} examples that are needed for judgement"
        )
    if clusters < ENOUGH_CLUSTERS:
        against.append(
            f"they come from {clusters:,} separate pieces of work, {ENOUGH_CLUSTERS} or more are wanted"
        )
    if examples and not mine["sessions"] and not mine["synthetic"]:
        against.append(
            "none of them is from a session: beads and formulas teach how things are written, not what to decide"
        )
    if not health["examples"]["heldout"]:
        against.append("nothing is held out, so that no evaluation can say whether it learned")
    elif not mine["held out"]:
        against.append("nothing of this role is held out, so that its gain cannot be measured")
    against += _list_faults(health)
    if examples < TRIAL_PER_ROLE or clusters < TRIAL_CLUSTERS:
        verdict = NOT_YET
    else:
        verdict = TRIAL if against else STARTING
    reasons = against or [
        f"{examples:,} examples from {clusters:,} separate pieces of work; no fault above its limit"
    ]
    return {
        "verdict": verdict,
        "role": health["role"],
        "reasons": reasons,
        "collect": _list_collecting(health, mine),
        "next": _name_next(verdict, health),
    }


def _list_faults(health: dict[str, Any]) -> list[str]:
    train = health["examples"]["train"] or 1
    stale = health["staleness"]["training examples"] / train
    faults = []
    if stale > MOST_STALE:
        faults.append(
            f"{stale:.0%} of the training examples teach commands or flags that "
            f"{health['staleness']['asked']} do not know"
        )
    unknown = health["by"]["train"]["role"].get(UNKNOWN, 0) / train
    if unknown > MOST_UNKNOWN:
        faults.append(f"{unknown:.0%} of the training examples name no role")
    return faults


def _list_collecting(health: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    """What to collect next, and where it is."""
    out: list[str] = []
    unknown = health["by"]["train"]["role"].get(UNKNOWN, 0)
    role = health["role"]
    if mine["missing"] and unknown:
        out.append(
            f"{unknown:,} training examples name no role; some may be {role}'s. "
            "The session hook labels every session from the day it is installed: gtft town install"
        )
    left = {
        why: n
        for row in health["flow"]
        for why, n in row["dropped"].items()
        if any(word in why for word in ("consent", "scope", "licence"))
    }
    for why, n in sorted(left.items(), key=lambda item: (-item[1], item[0]))[:3]:
        out.append(f"{n:,} left out: {why}")
    if mine["missing"]:
        out.append(
            f"{mine['missing']:,} more {role} examples: add folders of {role} sessions to the recipe's "
            "sources, and harvest again as sessions come"
        )
        if not mine["synthetic"]:
            out.append("made-up decision examples help a small town: --set harvest.scenarios=300")
    return out


def _name_next(verdict: str, health: dict[str, Any]) -> str:
    if verdict == NOT_YET:
        return "gtft recipe list    (add sources to the recipe of this corpus, then run it again)"
    if health["staleness"]["training examples"]:
        return "gtft corpus health --flagged stale    (which examples, before you train)"
    return "gtft run RECIPE    (that of this corpus; its harvest is not done again)"
