"""report.json and summary.json of an evaluation: figures only, no clock and no path. timing.json: the clock."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gtft.artifact import Artifact
from gtft.evals.asking.generate import Generation
from gtft.evals.asking.load import BaseRecord
from gtft.evals.item import Item
from gtft.evals.overlap import Overlap
from gtft.evals.probing.fit import warn
from gtft.evals.telling.advice import advise, judge, list_next, tell_prompting, write_headline
from gtft.evals.telling.blocks import to_json
from gtft.evals.telling.calibration import tell_calibration, tell_safety
from gtft.evals.telling.score import (
    HELDOUT,
    TUNED,
    Gate,
    Outcomes,
    count_failures,
    measure_consistency,
    outcomes,
    sort_candidates,
    tell_comparisons,
    tell_rate,
    tell_suites,
)
from gtft.evals.telling.verdict import list_findings
from gtft.recipe.schema import Recipe

_MOST_NAMED = 50
# Characters of a failed safety item and of its answer.
_SHOWN = 600


@dataclass(frozen=True)
class Measured:
    """Everything that an evaluation measured. ``items``: what was scored, with the answers of all candidates
    and seeds in ``generations``; a candidate may lack items that it cannot read.

    ``not_run``: what was wanted and could not be measured, and why. ``prices``: candidate → US dollars per million
    tokens read and written; absent for what runs on this box. ``memorisation``, ``fit``, ``model_eval`` and
    ``real_tools`` are documents of their own modules, None when not measured. ``training``: the adapter's own summary;
    ``conflicts``: training examples that contradict each other.
    """

    items: Sequence[Item]
    generations: Sequence[Generation]
    overlap: Overlap
    dropped: Mapping[str, int]
    base: BaseRecord
    adapter: Artifact
    recipe: Recipe
    not_run: Sequence[tuple[str, str]] = ()
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    memorisation: Mapping[str, Any] | None = None
    fit: Mapping[str, Any] | None = None
    model_eval: Mapping[str, Any] | None = None
    real_tools: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    conflicts: int | None = None


def make_report(measured: Measured, gates: Sequence[Gate]) -> dict[str, Any]:
    """Everything that the verdict, the store and the card say, as one JSON document.

    ``overlap`` counts scored items that training holds; they are removed before, so it must be 0.
    """
    m, recipe = measured, measured.recipe
    passed = outcomes(m.generations, m.items)
    safety = tell_safety(m.items, m.generations)
    suites = tell_suites(m.items, passed)
    scored = {i.id for i in m.items}
    shares = {k: v for k, v in m.overlap.similarity.items() if k in scored}
    report: dict[str, Any] = {
        "outcome": judge(suites.get(HELDOUT)),
        "verdict": write_headline(suites, gates),
        "suites": suites,
        "candidates": _tell_candidates(m, passed),
        "comparisons": tell_comparisons(m.items, passed),
        "gates": [asdict(g) for g in gates],
        "gates_met": all(g.met for g in gates),
        "safety_score": _score_safety(safety),
        "safety": _show_answers(safety, m),
        "calibration": tell_calibration(m.items, m.generations),
        "memorisation": _copy(m.memorisation),
        "fit": None if m.fit is None else {**m.fit, "warnings": warn(m.fit)},
        "model_eval": _copy(m.model_eval),
        "real_tools": _copy(m.real_tools),
        "overlap": len(scored & {r.item for r in m.overlap.removed}),
        "overlap_figures": m.overlap.figures(scored)
        | {"items_compared": len(m.overlap.similarity)},
        "removed": [asdict(r) for r in m.overlap.removed[:_MOST_NAMED]],
        "closest": dict(sorted(shares.items(), key=lambda kv: (-kv[1], kv[0]))[:5]),
        "dropped": dict(m.dropped),
        "not_run": [list(pair) for pair in m.not_run],
        "failures": count_failures(m.generations),
        "cut_off": _count_ends(m.generations, "length")[TUNED],
        "timeouts": dict(_count_ends(m.generations, "timeout")),
        "errors": dict(_count_ends(m.generations, "error")),
        "tokens": dict(sorted(_sum_tokens(m.generations).items())),
        "max_new_tokens": recipe.eval.max_new_tokens,
        "seeds": recipe.eval.seeds,
        "decoding": _tell_decoding(recipe),
        "role": recipe.role,
    }
    report["advice"] = advise(report, gates)
    report["prompting"] = tell_prompting(report)
    report["next"] = list_next(report, recipe, m.training, m.conflicts)
    return report


def make_summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the report that goes into the store: figures and words, no model's answers.

    ``findings`` are the verdict's own sections on what the card states besides rates and gates.
    """
    left_out = {"removed", "closest", "failures", "safety", "model_eval", "real_tools"}
    kept = {k: v for k, v in report.items() if k not in left_out}
    return kept | {"findings": [to_json(s) for s in list_findings(report)]}


def make_timing(generations: Sequence[Generation]) -> dict[str, dict[str, float]]:
    """Per candidate: seconds per answer (median and 95th percentile) and tokens written per second."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for g in generations:
        seconds[g.candidate].append(g.seconds)
    tokens = _sum_tokens(generations)
    return {
        name: {
            "answers": len(seconds[name]),
            "median_s": round(statistics.median(seconds[name]), 4),
            "p95_s": round(sorted(seconds[name])[-(-95 * len(seconds[name]) // 100) - 1], 4),
            "tokens_per_s": round(tokens[name] / max(sum(seconds[name]), 1e-6), 2),
        }
        for name in sort_candidates(seconds)
    }


def _tell_candidates(m: Measured, passed: Outcomes) -> dict[str, dict[str, Any]]:
    """Who answered, how well in all and per suite, and what it read, wrote and cost."""
    read: Counter[str] = Counter()
    for g in m.generations:
        read[g.candidate] += g.prompt_tokens
    written = _sum_tokens(m.generations)
    out: dict[str, dict[str, Any]] = {}
    for name in sort_candidates(g.candidate for g in m.generations):
        answered = [i for i in m.items if (name, i.id) in passed]
        suites = {
            suite: _tell_share([i for i in answered if i.suite == suite], name, passed)
            for suite in sorted({i.suite for i in answered})
        }
        out[name] = {
            **_identify(m, name),
            **_tell_share(answered, name, passed),
            "suites": suites,
            "consistency": measure_consistency(m.generations, name),
            "tokens_read": read[name],
            "tokens_written": written[name],
            "cost": _price(m.prices.get(name), read[name], written[name]),
        }
    return out


def _identify(m: Measured, name: str) -> dict[str, Any]:
    """``kind``, the content id of what answered, and its name for people."""
    kind, _, rest = name.partition(":")
    base = {"name": m.base.name, "id": m.base.id, "quantization": m.base.quantization}
    tuned = {"name": f"{m.base.name} + adapter", "id": m.adapter.id, "adapter": m.adapter.id}
    if rest:
        return {"kind": kind, "name": rest, "id": rest}
    return {"kind": kind, **(tuned if kind.startswith("tuned") else base)}


def _tell_share(items: Sequence[Item], candidate: str, passed: Outcomes) -> dict[str, Any]:
    hits = sum(passed[candidate, i.id] for i in items)
    return {"n": len(items), **tell_rate(hits, len(items))}


def _price(price: tuple[float, float] | None, read: int, written: int) -> float | None:
    """US dollars; None for what has no price."""
    return None if price is None else round((price[0] * read + price[1] * written) / 1e6, 6)


def _score_safety(safety: Mapping[str, Any]) -> dict[str, int]:
    """Of the tuned model; an item without an answer has not passed."""
    found = safety.get(TUNED, {"n": 0, "passed": 0, "unanswered": ()})
    return {"n": found["n"] + len(found["unanswered"]), "passed": found["passed"]}


def _show_answers(safety: Mapping[str, Any], m: Measured) -> dict[str, Any]:
    """With what the tuned model was asked and said where it fails; the first failing answer."""
    asked = {i.id: str(i.messages[-1].get("content") or "") for i in m.items if i.messages}
    said: dict[str, str] = {}
    for g in m.generations:
        if g.candidate == TUNED and not g.passed:
            said.setdefault(g.item, g.output)
    out = dict(safety)
    if TUNED in out:
        failed = [
            {
                **f,
                "asked": asked.get(f["id"], "")[:_SHOWN],
                "answer": said.get(f["id"], "")[:_SHOWN],
            }
            for f in out[TUNED]["failed"]
        ]
        out[TUNED] = {**out[TUNED], "failed": failed}
    return out


def _tell_decoding(recipe: Recipe) -> str:
    e = recipe.eval
    if e.seeds == 1:
        return "greedy"
    return (
        f"{e.seeds} answers per item drawn at temperature {e.temperature:g}, the majority decides"
    )


def _sum_tokens(generations: Sequence[Generation]) -> Counter[str]:
    out: Counter[str] = Counter()
    for g in generations:
        out[g.candidate] += g.tokens
    return out


def _count_ends(generations: Sequence[Generation], finish: str) -> Counter[str]:
    found = (g.candidate for g in generations if g.finish == finish)
    return Counter(dict(sorted(Counter(found).items())))


def _copy(doc: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if doc is None else dict(doc)
