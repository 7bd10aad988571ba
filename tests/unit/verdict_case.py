"""Measured evaluations made by hand, for the tests of reports, verdicts and comparisons."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gtft.artifact import Artifact
from gtft.evals.asking.generate import Generation
from gtft.evals.item import CheckSpec, Item
from gtft.evals.overlap import Overlap
from gtft.evals.telling.report import Measured, make_report
from gtft.evals.telling.score import GateSettings, judge_gates, outcomes
from gtft.recipe.schema import Recipe

BASE_ID, ADAPTER_ID = "sha256:" + "b" * 64, "sha256:" + "a" * 64


def make_item(n: int, suite: str = "heldout", capability: str = "patrol-decision") -> Item:
    """Two items of ``heldout`` share a session; other suites have three templates."""
    cluster = f"session:{n // 2}" if suite == "heldout" else suite
    asked = ({"role": "user", "content": f"question {n} of {suite} about {capability}"},)
    check = CheckSpec("abstain", {"answerable": n % 2 == 0})
    return Item(
        "", suite, capability, "witness", f"t{n % 3}", cluster, asked, (), check, f"answer {n}"
    ).identified()


def make_items(**counts: int) -> list[Item]:
    """``heldout=30`` gives 30 items; every fifth is a safety item."""
    return [
        make_item(n, suite, "safety" if n % 5 == 0 else "patrol-decision")
        for suite, count in counts.items()
        for n in range(count)
    ]


def answer(item: Item, candidate: str, passed: bool, seed: int = 0, **more: Any) -> Generation:
    values: dict[str, Any] = {
        "output": f"{candidate} says {item.id}",
        "reason": "" if passed else "wrong",
        "tokens": 10,
        "prompt_tokens": 100,
        "finish": "stop",
        "confidence": 0.5,
        "seconds": 0.5,
        **more,
    }
    return Generation(
        candidate=candidate,
        item=item.id,
        seed=seed,
        prompt_sha256="0" * 64,
        passed=passed,
        **values,
    )


def answer_all(items: Sequence[Item], **passing: Mapping[str, int] | int) -> list[Generation]:
    """``base=3``: the base passes the first three items of each suite; ``base_prime`` is base+prime."""
    out = []
    for name, most in passing.items():
        seen: dict[str, int] = {}
        for i in items:
            at = seen[i.suite] = seen.get(i.suite, 0) + 1
            wanted = most if isinstance(most, int) else most.get(i.suite, 0)
            out.append(answer(i, name.replace("_", "+"), at <= wanted))
    return out


def measure(
    items: Sequence[Item], generations: Sequence[Generation], recipe: Mapping[str, Any] | None = None, **more: Any
) -> Measured:  # fmt: skip
    values = {"role": "witness", **(recipe or {})}
    base = SimpleNamespace(name="nano", id=BASE_ID, quantization="nf4")
    return Measured(
        items=items,
        generations=generations,
        overlap=Overlap(tuple(items), (), {i.id: 0.1 for i in items}, frozenset()),
        dropped={},
        base=base,  # type: ignore[arg-type]
        adapter=Artifact(ADAPTER_ID, "adapter", (), (), Path("adapter")),
        recipe=Recipe.model_validate_json(json.dumps(values)),
        **more,
    )


def report(measured: Measured, **gates: Any) -> dict[str, Any]:
    settings = GateSettings(**{"min_items": 1, "min_gain": 0.0, "safety": 1.0, "capabilities": {}, **gates})  # fmt: skip
    passed = outcomes(measured.generations, measured.items)
    return make_report(
        measured, judge_gates(measured.items, passed, settings, measured.memorisation)
    )


MEMORISATION: dict[str, Any] = {
    "found": False,
    "measured": True,
    "level": 0.01,
    "samples": 8,
    "told": "nothing above chance: of 12 planted values 0 came out whole",
    "canaries": {
        "planted": 12,
        "probed": 12,
        "completions": 108,
        "most_bits": 7.0,
        "chance_bits": 1.4,
        "exposure": {
            n: {"mean_bits": 1.3, "highest_bits": 3.0, "p": 0.6, "above_chance": False}
            for n in ("base", "tuned")
        },
        "extracted": {
            n: {"planted": 0, "unseen": 0, "p": 1.0, "above_chance": False}
            for n in ("base", "tuned")
        },
    },
    "redacted": {
        "placeholders": 4,
        "prefixes": 4,
        "completions": 36,
        "came_out": {"base": 0, "tuned": 0},
    },
}


def make_fit(kl: float = 0.2, overfit: float = 0.1) -> dict[str, Any]:
    """The document of `gtft.evals.probing.fit.measure_fit`; its warnings follow from the figures."""

    def side(base: float, tuned: float) -> dict[str, Any]:
        return {"texts": 20, "tokens": 900, "loss": {"base": base, "tuned": tuned}}

    nothing = {"known": {}, "unknown": {}, "gap": None, "why": "40 items of a rig; 8 are needed"}
    return {
        "general": {
            **side(1.0, 1.1),
            "perplexity": {"base": 2.72, "tuned": 3.0},
            "kl": kl,
            "thresholds": {"nats": 0.3, "kl": 0.5},
        },
        "answers": {
            "trained": side(2.0, 0.4),
            "heldout": side(2.1, 0.9),
            "threshold": 0.5,
            "overfit": {"nats": overfit, "low": overfit / 2, "high": overfit * 2},
        },
        "rigs": nothing,
        "templates": nothing,
        "cross_rig": {"items": 0, "why": "fewer than two rigs are known"},
    }


MODEL_EVAL: dict[str, Any] = {
    "told": ["3 of Gas Town's 4 cases were asked, as they are", "1 is not run"],
    "rows": [
        {"role": "all", "n": 3, "not_run": 1, "passed": {"base": 0, "tuned": 1}, "rates": {}},
        {"role": "witness", "n": 3, "not_run": 1, "passed": {"base": 0, "tuned": 1}, "rates": {}},
    ],
    "files": [],
    "not_run": [
        {"file": "witness", "number": 2, "case": "zombie", "role": "witness", "reason": "graded"}
    ],
    "published": [{"model": "Haiku 4.5", "rate": 0.9}],
}


def make_world(seed: int = 3) -> Measured:
    """Seven candidates on three suites, everything measured; two safety items fail."""
    dice = random.Random(seed)
    items = make_items(heldout=80, authored=60, generated=60)
    rates = {
        "base": 0.1,
        "base+prime": 0.35,
        "base+docs": 0.2,
        "tuned": 0.7,
        "tuned+prime": 0.6,
        "model:old": 0.5,
        "endpoint:today": 0.7,
    }
    failing = {i.id for i in [i for i in items if i.capability == "safety"][:2]}
    generations = []
    for name, rate in rates.items():
        for i in items:
            passed = dice.random() < rate
            if name == "tuned" and i.capability == "safety":
                passed = i.id not in failing
            generations.append(
                answer(
                    i,
                    name,
                    passed,
                    confidence=round(dice.random(), 3),
                    seconds=round(dice.uniform(0.1, 1.0), 3),
                )
            )
    return measure(
        items,
        generations,
        prices={"endpoint:today": (3.0, 15.0)},
        not_run=[("base+docs", "eval.docs names nothing")],
        memorisation=MEMORISATION,
        fit=make_fit(),
        model_eval=MODEL_EVAL,
        real_tools={
            "beads": {
                "answers": 40,
                "run": 38,
                "accepted": 20,
                "disagreements": [{"item": items[0].id, "difference": "bd takes --parent none"}],
            },
            "not_run": ["formulas: gt not installed"],
        },
        conflicts=3,
    )
