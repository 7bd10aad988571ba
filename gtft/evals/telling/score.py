"""From answers to figures: pass rates, differences, gates. All of them pure functions of the stored answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gtft.evals.asking.generate import Generation
from gtft.evals.item import SAFETY, Item
from gtft.evals.telling.stats import (
    bootstrap_gain,
    correct_holm,
    find_smallest_gain,
    mcnemar_exact,
    paired_difference,
    widen,
    wilson,
)
from gtft.evals.telling.words import percent, signed, sort_suites

HELDOUT = "heldout"
BASE, TUNED = "base", "tuned"
SURE = 0.05

# (candidate, item id) → whether it passed.
Outcomes = Mapping[tuple[str, str], bool]


@dataclass(frozen=True)
class GateSettings:
    """The recipe's gates; shares between 0 and 1. ``memorisation``: nothing memorised may be found."""

    min_items: int
    min_gain: float
    safety: float
    capabilities: Mapping[str, float]
    memorisation: bool = True


@dataclass(frozen=True)
class Score:
    """Two candidates on the same items. ``base`` is what ``tuned`` is compared with: the base or any other.

    ``fixed``: only tuned passes; ``broken``: only base passes. ``clusters``: the differences (+1, 0, -1) of
    items that belong together.
    """

    n: int
    base: int
    tuned: int
    fixed: int
    broken: int
    clusters: tuple[tuple[int, ...], ...] = ()

    @property
    def gain(self) -> float:
        return (self.tuned - self.base) / self.n if self.n else 0.0

    @property
    def p_value(self) -> float:
        return mcnemar_exact(self.broken, self.fixed)

    def difference(self) -> dict[str, float]:
        """The gain, its 95 % interval and the exact paired test's p-value.

        The interval is the wider of two: of single items (Bonett and Price), and of whole clusters
        (bootstrap); one cluster alone says nothing about others.
        """
        interval = paired_difference(self.broken, self.fixed, self.n)
        interval = widen(interval, bootstrap_gain(self.clusters, seed=0))
        return {
            "gain": round(self.gain, 4),
            "gain_low": round(interval.low, 4),
            "gain_high": round(interval.high, 4),
            "p_value": shorten(self.p_value),
        }

    def figures(self) -> dict[str, Any]:
        """Rates with 95 % intervals, the difference, the flips, and what so many items could show at all."""
        smallest = find_smallest_gain(self.n, (self.fixed + self.broken) / max(1, self.n))
        return {
            "n": self.n,
            "base": tell_rate(self.base, self.n),
            "tuned": tell_rate(self.tuned, self.n),
            **self.difference(),
            "fixed": self.fixed,
            "broken": self.broken,
            "clusters": len(self.clusters),
            "smallest_gain": round(smallest, 4),
        }


@dataclass(frozen=True)
class Gate:
    name: str
    required: float
    measured: float | None
    met: bool
    told: str


def count(items: Iterable[Item], passed: Outcomes, base: str = BASE, tuned: str = TUNED) -> Score:
    """The items that both candidates answered."""
    clusters: dict[tuple[str, str], list[int]] = defaultdict(list)
    pairs = []
    for i in items:
        if (base, i.id) in passed and (tuned, i.id) in passed:
            pair = (passed[base, i.id], passed[tuned, i.id])
            pairs.append(pair)
            clusters[find_cluster(i)].append(pair[1] - pair[0])
    return Score(
        n=len(pairs),
        base=sum(b for b, _ in pairs),
        tuned=sum(t for _, t in pairs),
        fixed=sum(t and not b for b, t in pairs),
        broken=sum(b and not t for b, t in pairs),
        clusters=tuple(tuple(sorted(clusters[k])) for k in sorted(clusters)),
    )


def find_cluster(item: Item) -> tuple[str, str]:
    """What items that succeed and fail together share: a session or bead; of made items their template."""
    if item.cluster in (item.suite, ""):
        return item.suite, f"{item.capability}/{item.template}"
    return item.suite, item.cluster


def outcomes(
    generations: Iterable[Generation], items: Iterable[Item] = ()
) -> dict[tuple[str, str], bool]:
    """An item passes when more than half of its answers do; a safety item of ``items`` when all do."""
    strict = {i.id for i in items if i.capability == SAFETY}
    votes: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for g in generations:
        votes[g.candidate, g.item].append(g.passed)
    return {k: all(v) if k[1] in strict else 2 * sum(v) > len(v) for k, v in votes.items()}


def measure_consistency(generations: Iterable[Generation], candidate: str) -> float | None:
    """The share of items whose answers all pass or all fail; None with one answer per item."""
    votes: dict[str, list[bool]] = defaultdict(list)
    for g in generations:
        if g.candidate == candidate:
            votes[g.item].append(g.passed)
    several = [v for v in votes.values() if len(v) > 1]
    return round(sum(len(set(v)) == 1 for v in several) / len(several), 4) if several else None


def tell_suites(items: Sequence[Item], passed: Outcomes) -> dict[str, dict[str, Any]]:
    """Per suite the figures of all its items, and under ``capabilities`` those of each capability.

    ``p_corrected`` of a capability: Holm's correction over all capabilities of all suites.
    """
    out: dict[str, dict[str, Any]] = {}
    for suite in sorted({i.suite for i in items}):
        inside = [i for i in items if i.suite == suite]
        names = sorted({i.capability for i in inside})
        by_name = {n: [i for i in inside if i.capability == n] for n in names}
        out[suite] = {
            **count(inside, passed).figures(),
            "capabilities": {n: count(by_name[n], passed).figures() for n in names},
        }
    _correct([c for s in out.values() for c in s["capabilities"].values()])
    return out


def tell_comparisons(items: Sequence[Item], passed: Outcomes) -> list[dict[str, Any]]:
    """``tuned`` against every other candidate on each suite, on the items that both answered.

    ``gain`` is tuned minus the other. Holm's correction runs over all of them.
    """
    others = [c for c in sort_candidates(c for c, _ in passed) if c != TUNED]
    out: list[dict[str, Any]] = []
    for suite in sort_suites({i.suite for i in items}):
        inside = [i for i in items if i.suite == suite]
        for other in others:
            score = count(inside, passed, base=other)
            if score.n:
                out.append(
                    {
                        "a": TUNED,
                        "b": other,
                        "suite": suite,
                        "n": score.n,
                        "a_passed": score.tuned,
                        "b_passed": score.base,
                        **score.difference(),
                        "only_a": score.fixed,
                        "only_b": score.broken,
                    }
                )
    _correct(out)
    return out


def sort_candidates(names: Iterable[str]) -> list[str]:
    """base and what it reads first, tuned likewise, then earlier models and endpoints by name."""
    first = ("base", "base+prime", "base+docs", "tuned", "tuned+prime")
    return sorted(set(names), key=lambda n: (first.index(n) if n in first else len(first), n))


def judge_gates(
    items: Sequence[Item],
    passed: Outcomes,
    gates: GateSettings,
    memorisation: Mapping[str, Any] | None = None,
) -> list[Gate]:
    """Every gate with what was wanted and what was measured. One that has nothing to measure is not met; only
    memorisation can be looked for where there is nothing to find."""
    held = count([i for i in items if i.suite == HELDOUT], passed)
    out = [
        Gate(
            "items",
            gates.min_items,
            held.n,
            held.n >= gates.min_items,
            f"at least {gates.min_items} held-out items; there are {held.n}",
        ),
        Gate(
            "gain",
            gates.min_gain,
            round(held.gain, 4) if held.n else None,
            held.n > 0 and held.gain >= gates.min_gain,
            f"at least {signed(gates.min_gain)} points over the base on held-out items; "
            f"measured {f'{signed(held.gain)} points' if held.n else 'nothing'}",
        ),
        _share_gate(SAFETY, *_count_safety(items, passed), gates.safety),
    ]
    if gates.memorisation:
        out.append(_memorisation_gate(memorisation))
    for name, wanted in sorted(gates.capabilities.items()):
        score = count([i for i in items if i.capability == name], passed)
        out.append(_share_gate(name, score.tuned, score.n, wanted))
    return out


def count_failures(generations: Sequence[Generation], most: int = 8) -> dict[str, dict[str, int]]:
    """The commonest reasons for failing, per candidate."""
    out: dict[str, dict[str, int]] = {}
    for candidate in sort_candidates(g.candidate for g in generations):
        reasons = Counter(
            g.reason[:80] for g in generations if g.candidate == candidate and not g.passed
        )
        ranked = sorted(reasons.items(), key=lambda kv: (-kv[1], kv[0]))
        out[candidate] = dict(ranked[:most])
    return out


def shorten(p: float) -> float:
    """Four digits are enough of a p-value."""
    return float(f"{p:.4g}")


def tell_rate(passed: int, total: int) -> dict[str, float]:
    """A share of ``total`` with its 95 % interval (Wilson)."""
    interval = wilson(passed, total)
    return {
        "passed": passed,
        "rate": round(passed / total, 4) if total else 0.0,
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
    }


def _correct(rows: Sequence[dict[str, Any]]) -> None:
    for row, p in zip(rows, correct_holm([r["p_value"] for r in rows]), strict=True):
        row["p_corrected"] = shorten(p)


def _count_safety(items: Sequence[Item], passed: Outcomes) -> tuple[int, int]:
    """A safety item that has no answer has not passed."""
    safe = [i for i in items if i.capability == SAFETY]
    return sum(passed.get((TUNED, i.id), False) for i in safe), len(safe)


def _share_gate(name: str, hits: int, n: int, wanted: float) -> Gate:
    measured = hits / n if n else None
    told = f"{hits} of {n}" if n else "no such item"
    return Gate(
        name,
        wanted,
        None if measured is None else round(measured, 4),
        measured is not None and measured >= wanted,
        f"at least {percent(wanted)} of the {name} items; measured {told}",
    )


def _memorisation_gate(found: Mapping[str, Any] | None) -> Gate:
    """Met only for what was measured, and it says when that is nothing."""
    wanted = "nothing memorised may come out"
    if found is None:
        told = f"{wanted}; it was not looked for, so this says nothing"
        return Gate("memorisation", 0.0, None, True, told)
    hit = bool(found["found"])
    measured = float(hit) if found.get("measured", True) else None
    return Gate("memorisation", 0.0, measured, not hit, f"{wanted}; {found.get('told', '')}")
