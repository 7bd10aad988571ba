"""How a tuned model fits: what it forgot of general text, whether it learned its examples by heart, how it does on rigs
and templates that training did not know, and whether it takes one rig for another.

The arithmetic of a model's loss is the caller's (`Compare`); here are groups, gaps, intervals and what they mean.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, sqrt
from typing import Any, Protocol

from gtft.evals.item import Item
from gtft.evals.telling.stats import Interval, wilson

# Fewer items or texts than this on one side of a comparison say nothing.
FEWEST = 8
# Nats per token by which a tuned model may gain more on its training examples than on held-out ones before it is
# called overfit: at 0.5 it holds a training token for 1.6 times as likely as the same gain on new work would give.
OVERFIT_NATS = 0.5
# Two pass rates this far apart, with an interval that leaves out 0, are told as a gap.
RATE_GAP = 0.15
# Share of items in whose answer another rig is named, above the base's, that is told.
CONFUSED = 0.05
_RESAMPLES = 1000
_NAMES = ("base", "tuned")
_LONGEST_ANSWER = 20_000
_ID = re.compile(r"(?<![\w-])[a-z][a-z0-9]{0,30}(?:-[a-z0-9]{1,30}){1,6}(?![\w-])")
_RIG = re.compile(
    r"\brig:([\w-]{1,60})"
    r"|--rig[ =]\"?([\w-]{1,60})"
    r"|\"rig\"\s{0,3}:\s{0,3}\"([\w-]{1,60})\""
    r"|(?<![\w/-])([\w-]{1,60})/(?:polecats|crew|witness|refinery)\b"
)


class Compared(Protocol):
    """Sums over the trained tokens of one row, in nats: its loss by base and by tuned, and KL(tuned ‖ base)."""

    @property
    def base_nats(self) -> float: ...
    @property
    def tuned_nats(self) -> float: ...
    @property
    def kl(self) -> float: ...
    @property
    def tokens(self) -> int: ...


Compare = Callable[[Sequence[Any]], Sequence[Compared]]


class Answered(Protocol):
    """One answer; `gtft.evals.asking.generate.Generation` is one."""

    @property
    def candidate(self) -> str: ...
    @property
    def item(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def output(self) -> str: ...


@dataclass(frozen=True)
class Texts:
    """Rows as training renders them: general text, examples that were trained, examples that were held out, and by
    item id the prompt with its right answer."""

    general: Sequence[Any] = ()
    trained: Sequence[Any] = ()
    heldout: Sequence[Any] = ()
    items: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """What training knew: its rigs and templates (sources). ``prefixes``: id prefix without its dash → rig; ``rig_of``:
    item id → the rig that it is about."""

    rigs: frozenset[str] = frozenset()
    templates: frozenset[str] = frozenset()
    prefixes: Mapping[str, str] = field(default_factory=dict)
    rig_of: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Thresholds:
    """Rise of the loss on general text, and KL to the base, both in nats per token, from which it forgets."""

    nats: float
    kl: float


def measure_fit(
    compare: Compare,
    texts: Texts,
    items: Sequence[Item],
    passed: Mapping[tuple[str, str], bool],
    answers: Sequence[Answered],
    known: Known,
    thresholds: Thresholds,
    *,
    seed: int,
) -> dict[str, Any]:
    """All of it, as report.json holds it; `warn` reads it. ``passed``: (candidate, item id) → outcome. What could
    not be measured is None, with ``why`` beside it."""
    losses = dict(zip(texts.items, compare(list(texts.items.values())), strict=True))
    rig_sides = _divide(
        [i for i in items if i.id in known.rig_of], lambda i: known.rig_of[i.id] in known.rigs
    )
    template_sides = _divide(items, lambda i: i.template in known.templates)
    return {
        "general": _measure_general(compare(texts.general), thresholds),
        "answers": _measure_answers(compare(texts.trained), compare(texts.heldout), seed),
        "rigs": _measure_gap(*rig_sides, passed, losses, "rig"),
        "templates": _measure_gap(*template_sides, passed, losses, "template"),
        "cross_rig": _measure_confusion(items, answers, known),
    }


def warn(doc: Mapping[str, Any]) -> list[dict[str, str]]:
    """What is wrong with a fit, each with a code and its figures; nothing when all is well."""
    return [{"code": code, "told": told} for code, told in _list_warnings(doc)]


def _list_warnings(doc: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    general, answers, confusion = doc["general"], doc["answers"], doc["cross_rig"]
    if general.get("texts"):
        rise = general["loss"]["tuned"] - general["loss"]["base"]
        limits = general["thresholds"]
        if rise > limits["nats"] or general["kl"] > limits["kl"]:
            yield (
                "forgetting",
                f"it forgets: on {general['texts']} general texts its loss is {rise:+.3f} nats per token from the "
                f"base's (perplexity {general['perplexity']['base']:.4g} to {general['perplexity']['tuned']:.4g}), "
                f"KL {general['kl']:.3f}; told above {limits['nats']} and {limits['kl']}",
            )
    if answers.get("overfit") is not None:
        trained, heldout, extra = answers["trained"], answers["heldout"], answers["overfit"]
        if extra["nats"] > OVERFIT_NATS and extra["low"] > 0:
            yield (
                "overfit",
                f"it learned its examples by heart: tuning took {_fall(trained):.2f} nats per token off the loss on "
                f"{trained['texts']} training examples and {_fall(heldout):.2f} off {heldout['texts']} held-out ones, "
                f"{extra['nats']:.2f} less (95 %: {extra['low']:.2f} to {extra['high']:.2f}; told above {OVERFIT_NATS})",
            )
        if _fall(heldout) < 0:
            yield (
                "heldout-worse",
                f"the right answers of held-out examples became less likely: loss {heldout['loss']['base']:.3f} to "
                f"{heldout['loss']['tuned']:.3f} nats per token on {heldout['texts']} examples",
            )
    for key, called in (("rigs", "rig"), ("templates", "template")):
        gap = doc[key].get("gap")
        if gap is not None and gap["rate"] > RATE_GAP and gap["low"] > 0:
            inside, outside = doc[key]["known"], doc[key]["unknown"]
            yield (
                f"{called}-gap",
                f"it does worse where training knew no such {called}: {outside['rate']['tuned']:.0%} of "
                f"{outside['items']} items against {inside['rate']['tuned']:.0%} of {inside['items']} "
                f"(difference 95 %: {gap['low']:.0%} to {gap['high']:.0%}; told above {RATE_GAP:.0%})",
            )
    if confusion.get("items"):
        more = confusion["named"]["tuned"] - confusion["named"]["base"]
        if more > CONFUSED * confusion["items"]:
            first = max(confusion["pairs"], key=lambda p: p["tuned"])
            yield (
                "cross-rig",
                f"it takes one rig for another: {confusion['named']['tuned']} of {confusion['items']} answers name a rig "
                f"that neither question nor right answer names (base {confusion['named']['base']}), most often "
                f"{first['named']} when asked about {first['asked']}",
            )


def _fall(side: Mapping[str, Any]) -> float:
    return float(side["loss"]["base"] - side["loss"]["tuned"])


def _measure_general(rows: Sequence[Compared], thresholds: Thresholds) -> dict[str, Any]:
    if not rows:
        return {"texts": 0, "why": "no general text was compared (eval.general_texts)"}
    side = _add(rows)
    return {
        **side,
        "perplexity": {n: _round(exp(min(700.0, side["loss"][n]))) for n in _NAMES},
        "kl": _round(sum(r.kl for r in rows) / side["tokens"]),
        "thresholds": {"nats": thresholds.nats, "kl": thresholds.kl},
    }


def _measure_answers(
    trained: Sequence[Compared], heldout: Sequence[Compared], seed: int
) -> dict[str, Any]:
    """``overfit``: how much more tuning gained on training examples than on held-out ones. What the base finds
    harder about one side is in both losses, and falls out."""
    doc: dict[str, Any] = {
        "trained": _add(trained),
        "heldout": _add(heldout),
        "threshold": OVERFIT_NATS,
        "overfit": None,
    }
    if min(len(trained), len(heldout)) < FEWEST:
        doc["why"] = (
            f"{len(trained)} training and {len(heldout)} held-out examples; {FEWEST} of each are needed"
        )
        return doc
    dice = random.Random(seed)  # noqa: S311
    drawn = sorted(
        _gain(dice.choices(trained, k=len(trained))) - _gain(dice.choices(heldout, k=len(heldout)))
        for _ in range(_RESAMPLES)
    )
    cut = _RESAMPLES // 40
    doc["overfit"] = {
        "nats": _round(_gain(trained) - _gain(heldout)),
        "low": _round(drawn[cut]),
        "high": _round(drawn[-1 - cut]),
    }
    return doc


def _gain(rows: Sequence[Compared]) -> float:
    return sum(r.base_nats - r.tuned_nats for r in rows) / sum(r.tokens for r in rows)


def _add(rows: Sequence[Compared]) -> dict[str, Any]:
    """Mean loss per trained token."""
    tokens = sum(r.tokens for r in rows)
    if not tokens:
        return {"texts": 0, "tokens": 0, "loss": None}
    base, tuned = sum(r.base_nats for r in rows), sum(r.tuned_nats for r in rows)
    loss = {"base": _round(base / tokens), "tuned": _round(tuned / tokens)}
    return {"texts": len(rows), "tokens": tokens, "loss": loss}


def _divide(items: Sequence[Item], known: Callable[[Item], bool]) -> tuple[list[Item], list[Item]]:
    return [i for i in items if known(i)], [i for i in items if not known(i)]


def _measure_gap(
    inside: Sequence[Item],
    outside: Sequence[Item],
    passed: Mapping[tuple[str, str], bool],
    losses: Mapping[str, Compared],
    called: str,
) -> dict[str, Any]:
    """Pass rate and answer loss where training knew the rig or template, and where it did not."""
    doc: dict[str, Any] = {
        "known": _describe_side(inside, passed, losses),
        "unknown": _describe_side(outside, passed, losses),
        "gap": None,
    }
    if min(len(inside), len(outside)) < FEWEST:
        doc["why"] = (
            f"{len(inside)} items of a {called} that training knew and {len(outside)} of others; "
            f"{FEWEST} of each are needed"
        )
        return doc
    known, unknown = (
        (sum(passed.get(("tuned", i.id), False) for i in side), len(side))
        for side in (inside, outside)
    )
    low, high = _difference(known, unknown)
    rate = known[0] / known[1] - unknown[0] / unknown[1]
    doc["gap"] = {"rate": _round(rate), "low": _round(low), "high": _round(high)}
    return doc


def _describe_side(
    items: Sequence[Item],
    passed: Mapping[tuple[str, str], bool],
    losses: Mapping[str, Compared],
) -> dict[str, Any]:
    rates = {n: sum(passed.get((n, i.id), False) for i in items) for n in _NAMES}
    intervals: dict[str, Interval] = {n: wilson(rates[n], len(items)) for n in _NAMES}
    return {
        "items": len(items),
        "rate": {n: _round(rates[n] / len(items)) for n in _NAMES} if items else None,
        "interval": {n: [_round(i.low), _round(i.high)] for n, i in intervals.items()},
        "answers": _add([losses[i.id] for i in items if i.id in losses]),
    }


def _difference(a: tuple[int, int], b: tuple[int, int]) -> tuple[float, float]:
    """95 % interval of the difference of two independent shares (Newcombe 1998, method 10)."""
    p, q = a[0] / a[1], b[0] / b[1]
    i, j = wilson(*a), wilson(*b)
    return (
        p - q - sqrt((p - i.low) ** 2 + (j.high - q) ** 2),
        p - q + sqrt((i.high - p) ** 2 + (q - j.low) ** 2),
    )


def _measure_confusion(
    items: Sequence[Item], answers: Sequence[Answered], known: Known
) -> dict[str, Any]:
    """Answers that name a rig which neither the question nor the right answer names, by asked and named rig."""
    rigs = known.rigs | set(known.prefixes.values()) | set(known.rig_of.values())
    asked = {i.id: i for i in items if i.id in known.rig_of}
    if len(rigs) < 2 or not asked:
        why = (
            "fewer than two rigs are known" if len(rigs) < 2 else "no item is known to be of a rig"
        )
        return {"items": 0, "why": why}
    pairs: dict[tuple[str, str], Counter[str]] = {}
    named = Counter[str]()
    seen: set[tuple[str, str]] = set()
    for answer in sorted(answers, key=lambda a: (a.candidate, a.item, a.seed)):
        key = (answer.candidate, answer.item)
        # One answer per item and candidate; of several seeds the first.
        if answer.candidate not in _NAMES or answer.item not in asked or key in seen:
            continue
        seen.add(key)
        item, rig = asked[answer.item], known.rig_of[answer.item]
        said = "\n".join(str(m.get("content") or "") for m in item.messages)
        allowed = {rig} | find_rigs(f"{said}\n{item.reference}", known.prefixes, rigs)
        others = find_rigs(answer.output, known.prefixes, rigs) - allowed
        named[answer.candidate] += bool(others)
        for other in others:
            pairs.setdefault((rig, other), Counter())[answer.candidate] += 1
    return {
        "items": len(asked),
        "named": {n: named[n] for n in _NAMES},
        "pairs": [
            {"asked": a, "named": b, **{n: counts[n] for n in _NAMES}}
            for (a, b), counts in sorted(pairs.items())
        ],
    }


def find_rigs(text: str, prefixes: Mapping[str, str], rigs: frozenset[str] | set[str]) -> set[str]:
    """The known rigs that a text names: by a label, a flag, an address, or an id with the longest known prefix."""
    text = text[:_LONGEST_ANSWER]
    found = {name for m in _RIG.finditer(text) if (name := next(filter(None, m.groups()))) in rigs}
    for m in _ID.finditer(text):
        parts = m[0].split("-")
        heads = ("-".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
        if longest := next((h for h in heads if h in prefixes), None):
            found.add(prefixes[longest])
    return found


def _round(value: float) -> float:
    return float(f"{value:.6g}")
