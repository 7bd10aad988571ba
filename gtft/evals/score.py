"""From answers to figures: pass rates, differences, gates. All of them pure functions of the stored answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gtft.evals.generate import Generation
from gtft.evals.item import Item
from gtft.evals.stats import mcnemar_exact, paired_difference, wilson

SAFETY = "safety"
HELDOUT = "heldout"
SURE = 0.05


@dataclass(frozen=True)
class GateSettings:
    """The recipe's gates; shares between 0 and 1."""

    min_items: int
    min_gain: float
    safety: float
    capabilities: Mapping[str, float]


@dataclass(frozen=True)
class Score:
    """Base and tuned on the same items. ``fixed``: only tuned passes; ``broken``: only base passes."""

    n: int
    base: int
    tuned: int
    fixed: int
    broken: int

    @property
    def gain(self) -> float:
        return (self.tuned - self.base) / self.n if self.n else 0.0

    @property
    def p_value(self) -> float:
        return mcnemar_exact(self.broken, self.fixed)

    def figures(self) -> dict[str, Any]:
        """Rates with 95 % intervals, the gain with its interval, the exact paired test's p-value."""
        difference = paired_difference(self.broken, self.fixed, self.n)
        return {
            "n": self.n,
            "base": _rate(self.base, self.n),
            "tuned": _rate(self.tuned, self.n),
            "gain": round(self.gain, 4),
            "gain_low": round(difference.low, 4),
            "gain_high": round(difference.high, 4),
            "p_value": float(f"{self.p_value:.4g}"),
            "fixed": self.fixed,
            "broken": self.broken,
        }


@dataclass(frozen=True)
class Gate:
    name: str
    required: float
    measured: float | None
    met: bool
    told: str


def count(items: Sequence[Item], passed: Mapping[tuple[str, str], bool]) -> Score:
    """``passed``: (candidate, item id) to outcome, complete for both candidates."""
    pairs = [(passed["base", i.id], passed["tuned", i.id]) for i in items]
    return Score(
        n=len(pairs),
        base=sum(b for b, _ in pairs),
        tuned=sum(t for _, t in pairs),
        fixed=sum(t and not b for b, t in pairs),
        broken=sum(b and not t for b, t in pairs),
    )


def outcomes(generations: Sequence[Generation]) -> dict[tuple[str, str], bool]:
    return {(g.candidate, g.item): g.passed for g in generations}


def tell_suites(
    items: Sequence[Item], passed: Mapping[tuple[str, str], bool]
) -> dict[str, dict[str, Any]]:
    """Per suite the figures of all its items, and under ``capabilities`` those of each capability."""
    out: dict[str, dict[str, Any]] = {}
    for suite in sorted({i.suite for i in items}):
        inside = [i for i in items if i.suite == suite]
        names = sorted({i.capability for i in inside})
        by_name = {n: [i for i in inside if i.capability == n] for n in names}
        out[suite] = {
            **count(inside, passed).figures(),
            "capabilities": {n: count(by_name[n], passed).figures() for n in names},
        }
    return out


def judge_gates(
    items: Sequence[Item], passed: Mapping[tuple[str, str], bool], gates: GateSettings
) -> list[Gate]:
    """Every gate with what was wanted and what was measured. One that has nothing to measure is not met."""
    held = count([i for i in items if i.suite == HELDOUT], passed)
    safe = count([i for i in items if i.capability == SAFETY], passed)
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
            f"at least {_points(gates.min_gain)} over the base on held-out items; "
            f"measured {_points(held.gain) if held.n else 'nothing'}",
        ),
        _share_gate(SAFETY, safe, gates.safety),
    ]
    for name, wanted in sorted(gates.capabilities.items()):
        score = count([i for i in items if i.capability == name and i.suite == HELDOUT], passed)
        out.append(_share_gate(name, score, wanted))
    return out


def count_failures(generations: Sequence[Generation], most: int = 8) -> dict[str, dict[str, int]]:
    """The commonest reasons for failing, per candidate."""
    out: dict[str, dict[str, int]] = {}
    for g in generations:
        out.setdefault(g.candidate, {})
    for candidate in out:
        reasons = Counter(
            g.reason[:80] for g in generations if g.candidate == candidate and not g.passed
        )
        ranked = sorted(reasons.items(), key=lambda kv: (-kv[1], kv[0]))
        out[candidate] = dict(ranked[:most])
    return out


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _share_gate(name: str, score: Score, wanted: float) -> Gate:
    measured = score.tuned / score.n if score.n else None
    told = f"{score.tuned} of {score.n}" if score.n else "no such item"
    return Gate(
        name,
        wanted,
        None if measured is None else round(measured, 4),
        measured is not None and measured >= wanted,
        f"at least {percent(wanted)} of the {name} items; measured {told}",
    )


def _rate(passed: int, total: int) -> dict[str, float]:
    interval = wilson(passed, total)
    return {
        "passed": passed,
        "rate": round(passed / total, 4) if total else 0.0,
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
    }


def _points(share: float) -> str:
    return f"{100 * share:+.0f} points"
