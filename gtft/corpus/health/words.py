"""What the figures mean, one plain sentence each; the verdict first."""

from __future__ import annotations

from typing import Any

from gtft.corpus.health.sufficiency import ENOUGH_PER_ROLE, NOT_YET

_LARGEST_SHARE = 0.6
_MUCH_CLIPPED = 0.5


def write_words(health: dict[str, Any]) -> list[str]:
    """The sentences of a report that has everything but them."""
    return [*_write_verdict(health), *_write_mix(health), *_write_faults(health)]


def _write_verdict(health: dict[str, Any]) -> list[str]:
    verdict = health["verdict"]
    mine = health["sufficiency"][verdict["role"]]
    first = f"{verdict['verdict'].capitalize()} for {verdict['role']}: {verdict['reasons'][0]}."
    words = [first]
    if mine["missing"]:
        meaning = {
            "nothing yet": "So few teach next to nothing",
            "nothing: there are none": "There is nothing to learn from",
        }.get(mine["enough for"], f"They are enough for {mine['enough for']}")
        words.append(
            f"{meaning}; about {ENOUGH_PER_ROLE:,} are needed before a role's judgement can be learned."
        )
    words += [f"{reason[0].upper()}{reason[1:]}." for reason in verdict["reasons"][1:]]
    if verdict["verdict"] == NOT_YET and mine["examples"]:
        words.append("A run on it still shows that the way works from end to end.")
    return words


def _write_mix(health: dict[str, Any]) -> list[str]:
    words: list[str] = []
    uneven = health["imbalance"]
    if (
        uneven["share"] > _LARGEST_SHARE
        and uneven["roles"] > 1
        and uneven["largest"] != health["role"]
    ):
        words.append(
            f"{uneven['largest']} is {uneven['share']:.0%} of what has a role: imbalanced."
        )
    provenance = health["by"]["train"]["provenance"]
    train = health["examples"]["train"]
    for kind, called in (("synthetic", "made up"), ("own", "written by gtft's own models")):
        if n := provenance.get(kind, 0):
            words.append(f"{n:,} of {train:,} training examples are {called}.")
    planted = health.get("canaries", {})
    if planted.get("planted"):
        words.append(
            f"{planted['planted']:,} made-up secrets (canaries) are planted in {planted['examples']:,} training "
            "examples besides, to measure memorisation; no other figure counts them."
        )
    return words


def _write_faults(health: dict[str, Any]) -> list[str]:
    stale, conflicts, leaks = health["staleness"], health["conflicts"], health["leakage"]
    words: list[str] = []
    if stale["not known"]:
        named = ", ".join(m["what"] for m in stale["most common"][:3])
        words.append(
            f"Stale: {stale['not known']:,} of {stale['commands seen']:,} commands of gt and bd are not "
            f"known to {stale['asked']} ({named}); {stale['examples in answers']:,} examples teach one."
        )
    else:
        words.append(f"Stale: none of {stale['commands seen']:,} commands of gt and bd.")
    if conflicts["questions"] or conflicts["rules in all"]:
        words.append(
            f"Conflicts: questions answered in more than one way {conflicts['questions']:,}, earlier answers "
            f"left out {conflicts['dropped']:,}, decisions given up and taken again {conflicts['reversals']:,}, "
            f"commands that texts both demand and forbid {conflicts['rules in all']:,}."
        )
    if health["clipped"]["share"] > _MUCH_CLIPPED:
        words.append(
            f"{health['clipped']['share']:.0%} of what was said was cut away to fit; a larger window keeps more."
        )
    words.append(
        f"Leakage: {leaks['shared clusters']} shared clusters, "
        f"{leaks.get('training examples with a rare held-out phrase', 0)} training examples with a rare "
        "held-out phrase."
    )
    return words
